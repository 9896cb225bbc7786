//! Messages no device of ours can mean: refused to the front-end's face, the device as it was.

use vamos_host::keeper::relay::RelayError;
use vamos_host::keeper::socket::SocketError;

use crate::cell::{
    Conversation, GET_FEATURES, GET_PROTOCOL_FEATURES, NEED_REPLY, SET_MEM_TABLE, SET_OWNER, SET_VRING_KICK,
    SET_VRING_NUM, borrow, memory, table,
};

const PAGE: u64 = 4096;

fn pair(index: u32, value: u32) -> Vec<u8> {
    [index.to_ne_bytes(), value.to_ne_bytes()].concat()
}

/// Sends a message that must be refused and sees that the device still answers.
fn is_refused(talk: &Conversation, request: u32, body: &[u8], fds: &[std::os::fd::OwnedFd]) {
    talk.say(request, NEED_REPLY, body, &borrow(fds));
    let verdict = talk.hears();
    assert_eq!(verdict.request, request);
    assert_ne!(verdict.body, 0u64.to_ne_bytes(), "request {request} with {body:?} was taken");
    // Without having asked for a verdict there is none, and the message is gone all the same.
    talk.say(request, 0, body, &borrow(fds));
    device_lives(talk);
}

fn device_lives(talk: &Conversation) {
    talk.say(GET_FEATURES, 0, &[], &[]);
    assert_eq!(talk.cell_hears().request, GET_FEATURES, "the cell heard what it must not");
    talk.cell_replies(GET_FEATURES, &7u64.to_ne_bytes());
    assert_eq!(talk.hears().body, 7u64.to_ne_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_bad_queue_sizes_are_answered_with_an_error_and_the_device_lives() {
    let talk = Conversation::start();
    talk.negotiate_acknowledgements();
    for size in [0, 3, 65_536, u32::MAX] {
        is_refused(&talk, SET_VRING_NUM, &pair(0, size), &[]);
    }
    for queue in [3, 255, u32::MAX] {
        is_refused(&talk, SET_VRING_NUM, &pair(queue, 256), &[]);
    }
    talk.say(SET_VRING_NUM, NEED_REPLY, &pair(0, 256), &[]);
    assert_eq!(talk.cell_hears().body, pair(0, 256));
    talk.cell_replies(SET_VRING_NUM, &0u64.to_ne_bytes());
    assert_eq!(talk.hears().body, 0u64.to_ne_bytes());
    // Kicked, and enabled because VHOST_USER_F_PROTOCOL_FEATURES was not acknowledged: it runs.
    let kick = [memory(0)];
    talk.say(SET_VRING_KICK, 0, &0u64.to_ne_bytes(), &borrow(&kick));
    assert_eq!(talk.cell_hears().fds, 1);
    is_refused(&talk, SET_VRING_NUM, &pair(0, 128), &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_bad_memory_tables_are_refused() {
    let talk = Conversation::start();
    talk.negotiate_acknowledgements();
    let short = || vec![memory(PAGE)];
    is_refused(&talk, SET_MEM_TABLE, &table(0, &[]), &[]);
    is_refused(&talk, SET_MEM_TABLE, &table(9, &[(0, PAGE); 9]), &[]);
    is_refused(&talk, SET_MEM_TABLE, &table(509, &[(0, PAGE); 8]), &short());
    is_refused(&talk, SET_MEM_TABLE, &table(2, &[(0, PAGE)]), &short());
    is_refused(&talk, SET_MEM_TABLE, &table(1, &[(0, 0)]), &short());
    is_refused(&talk, SET_MEM_TABLE, &table(1, &[(u64::MAX, PAGE)]), &short());
    is_refused(&talk, SET_MEM_TABLE, &table(1, &[(0, 2 * PAGE)]), &short());
    is_refused(&talk, SET_MEM_TABLE, &table(1, &[(0, PAGE)]), &[]);
    let two = || vec![memory(4 * PAGE), memory(4 * PAGE)];
    is_refused(&talk, SET_MEM_TABLE, &table(2, &[(0, 2 * PAGE), (PAGE, PAGE)]), &two());
    is_refused(&talk, SET_MEM_TABLE, &table(1, &[(0, PAGE)]), &two());
    talk.say(SET_MEM_TABLE, 0, &table(2, &[(0, PAGE), (PAGE, PAGE)]), &borrow(&two()));
    assert_eq!(talk.cell_hears().fds, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_user_mode_linux_does_not_count_are_cut_off() {
    let talk = Conversation::start();
    talk.say(SET_MEM_TABLE, 0, &table(1, &[(0, PAGE), (0, 0)]), &borrow(&[memory(PAGE)]));
    let heard = talk.cell_hears();
    assert_eq!((heard.body, heard.fds), (table(1, &[(0, PAGE)]), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn features_that_would_bring_unknown_messages_are_not_offered() {
    let talk = Conversation::start();
    talk.say(GET_PROTOCOL_FEATURES, 0, &[], &[]);
    talk.cell_hears();
    talk.cell_replies(GET_PROTOCOL_FEATURES, &u64::MAX.to_ne_bytes());
    let offered = u64::from_ne_bytes(talk.hears().body.try_into().unwrap());
    for (feature, bit) in [("in-flight descriptor", 12), ("memory slots", 15), ("log", 1), ("in-band", 14)] {
        assert_eq!(offered & 1 << bit, 0, "{feature}");
    }
    for (feature, bit) in [("reply acknowledgements", 3), ("back-end requests", 5), ("configuration", 9)] {
        assert_ne!(offered & 1 << bit, 0, "{feature}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_refused_politely_ends_the_conversation() {
    let talk = Conversation::start();
    talk.say(11, 0, &pair(77, 0), &[]);
    assert!(matches!(talk.relay.await.unwrap(), Err(RelayError::Unanswerable(_))));
    let talk = Conversation::start();
    talk.say(SET_OWNER, 0x2, &[], &[]);
    assert!(matches!(talk.relay.await.unwrap(), Err(RelayError::FrontEnd(SocketError::Violation(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_a_cell_gone_bad_cannot_speak_first_nor_answer_something_else() {
    let talk = Conversation::start();
    talk.cell_replies(GET_FEATURES, &1u64.to_ne_bytes());
    assert!(matches!(talk.relay.await.unwrap(), Err(RelayError::WrongReply { .. })));
    let talk = Conversation::start();
    talk.say(GET_FEATURES, 0, &[], &[]);
    talk.cell_hears();
    talk.cell_replies(GET_PROTOCOL_FEATURES, &1u64.to_ne_bytes());
    assert!(matches!(talk.relay.await.unwrap(), Err(RelayError::WrongReply { .. })));
}
