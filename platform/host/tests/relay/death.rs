//! A relay whose vamosd has died, at each place where it can have, and the one that goes on.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vamos_host::keeper::relay::Relay;
use vamos_host::keeper::socket::MessageSocket;
use vamos_proto::cell::{IN_HAND, Keep};
use vamos_sandbox::passing;

use crate::cell::{GET_FEATURES, NEED_REPLY, SET_OWNER, arrived, message};

/// What a dead vamosd leaves: both sockets, and one message in hand after two that were done.
struct Left {
    front_end: UnixStream,
    outer: UnixStream,
    cell: UnixStream,
    inner: UnixStream,
    in_hand: Vec<u8>,
}

const BEFORE: u64 = 2;

impl Left {
    fn with(request: u32) -> Self {
        let (front_end, outer) = UnixStream::pair().unwrap();
        let (cell, inner) = UnixStream::pair().unwrap();
        for socket in [&front_end, &cell] {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        Self { front_end, outer, cell, inner, in_hand: message(request, 0, &[]) }
    }

    /// The front-end has said it; `taken` bytes of it are not in its socket any more.
    fn said(&self, taken: usize) {
        (&self.front_end).write_all(&self.in_hand).unwrap();
        passing::look_from(&self.outer, 0).unwrap();
        passing::peek(&self.outer, &mut vec![0; self.in_hand.len()], &mut Vec::new()).unwrap();
        if taken > 0 {
            passing::receive(&self.outer, &mut vec![0; taken], &mut Vec::new()).unwrap();
        }
    }

    /// Goes on; the device has handled so many messages. Then the front-end asks something else: both hear
    /// nothing twice and miss nothing.
    async fn goes_on(self, handled: u64, hears: &[u32], is_answered: bool) {
        let keep = Keep { slot: IN_HAND, message: self.in_hand.clone(), descriptors: 0, sent: BEFORE };
        let request = u32::from_ne_bytes([self.in_hand[0], self.in_hand[1], 0, 0]);
        let socket = |socket| MessageSocket::new(socket).unwrap();
        let kept: Vec<(Keep, Vec<OwnedFd>)> = vec![(keep, Vec::new())];
        let adopted = Relay::adopted(socket(self.outer), socket(self.inner), false, kept);
        let (mut relay, told) = adopted.unwrap();
        assert!(told);
        let (resumed, has_resumed) = tokio::sync::oneshot::channel();
        let relay = tokio::spawn(async move {
            relay.resume(handled).await.unwrap();
            let _ = resumed.send(());
            relay.run().await
        });
        if hears.is_empty() {
            // A front-end that reads a reply before it is looked for, and says nothing, would have it twice.
            has_resumed.await.unwrap();
        }
        let (cell, front_end, hears) = (self.cell, self.front_end, hears.to_vec());
        let ends = tokio::task::spawn_blocking(move || {
            for expected in hears {
                assert_eq!(arrived(&cell).request, expected);
                (&cell).write_all(&message(expected, 1 << 2, &7u64.to_ne_bytes())).unwrap();
            }
            if is_answered {
                let reply = arrived(&front_end);
                assert_eq!((reply.request, reply.body), (request, 7u64.to_ne_bytes().to_vec()));
            }
            (&front_end).write_all(&message(GET_FEATURES, 0, &[])).unwrap();
            assert_eq!(arrived(&cell).request, GET_FEATURES);
            (&cell).write_all(&message(GET_FEATURES, 1 << 2, &9u64.to_ne_bytes())).unwrap();
            assert_eq!(arrived(&front_end).body, 9u64.to_ne_bytes());
            // The front-end hangs up first.
            cell
        });
        let _cell = ends.await.unwrap();
        relay.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_died_before_the_message_was_taken_from_the_front_end() {
    for taken in [0, 5] {
        let left = Left::with(GET_FEATURES);
        left.said(taken);
        left.goes_on(BEFORE, &[GET_FEATURES], true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_died_before_the_device_had_it() {
    let left = Left::with(GET_FEATURES);
    left.said(left.in_hand.len());
    left.goes_on(BEFORE, &[GET_FEATURES], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_died_before_the_reply_was_passed_on() {
    let left = Left::with(GET_FEATURES);
    left.said(left.in_hand.len());
    (&left.cell).write_all(&message(GET_FEATURES, 1 << 2, &7u64.to_ne_bytes())).unwrap();
    left.goes_on(BEFORE + 1, &[], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_died_after_the_reply_and_before_its_note() {
    let left = Left::with(GET_FEATURES);
    left.said(left.in_hand.len());
    (&left.cell).write_all(&message(GET_FEATURES, 1 << 2, &7u64.to_ne_bytes())).unwrap();
    // Not read yet, so it is known to have been written: once.
    (&left.outer).write_all(&message(GET_FEATURES, 1 << 2, &7u64.to_ne_bytes())).unwrap();
    left.goes_on(BEFORE + 1, &[], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_died_after_the_device_had_a_message_without_reply() {
    let left = Left::with(SET_OWNER);
    left.said(left.in_hand.len());
    left.goes_on(BEFORE + 1, &[], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cell_cannot_have_been_given_is_refused() {
    let socket = || MessageSocket::new(UnixStream::pair().unwrap().0).unwrap();
    let wires = [Vec::new(), vec![0; 5], message(SET_OWNER, NEED_REPLY, &[1; 9]), message(77, 0, &[])];
    for (at, message) in wires.into_iter().enumerate() {
        let keep = Keep { slot: 1, message, descriptors: 0, sent: 0 };
        let adopted = Relay::adopted(socket(), socket(), false, vec![(keep, Vec::new())]);
        assert!(adopted.is_err(), "message {at} was taken");
    }
    assert!(Relay::adopted(socket(), socket(), true, Vec::new()).is_err(), "a part was taken for the whole");
}
