//! Descriptors that come with broken messages are closed, however many there are.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use vamos_host::keeper::socket::MessageSocket;
use vamos_sandbox::passing;

use crate::cell::{Conversation, SET_OWNER, SET_VRING_KICK, message};

/// Descriptors of this process that refer to this pipe: other tests run in this process, so their number
/// alone would say nothing.
fn copies(target: &str) -> usize {
    let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
    fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.to_string_lossy() == target)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_broken_messages_with_many_descriptors_leak_none() {
    const ROUNDS: usize = 10_000;
    let (marker, _writer) = rustix::pipe::pipe().unwrap();
    let name = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&marker))).unwrap();
    let name = name.to_string_lossy().into_owned();
    let before = copies(&name);
    let attached = [marker.as_fd(); 32];
    let kick = message(SET_VRING_KICK, 0, &0u64.to_ne_bytes());
    let cut = &kick[..7];
    let unknown_version = message(SET_OWNER, 2, &[]);
    // One conversation that goes on through refusals, and one after the other that does not.
    let lasting = Conversation::start();
    for round in 0..ROUNDS {
        passing::send(&lasting.front_end, &kick, &attached).unwrap();
        if round % 20 == 0 {
            let brief = Conversation::start();
            let wire: &[u8] = if round % 40 == 0 { cut } else { &unknown_version };
            passing::send(&brief.front_end, wire, &attached).unwrap();
            drop::<UnixStream>(brief.front_end);
            assert!(brief.relay.await.unwrap().is_err());
        }
    }
    // Every message before this one has been dealt with when it arrives.
    passing::send(&lasting.front_end, &message(SET_OWNER, 0, &[]), &[]).unwrap();
    assert_eq!(lasting.cell_hears().request, SET_OWNER);
    assert_eq!(copies(&name), before);
}

/// The kernel shows the descriptors of the next message to whoever looks at one without any.
#[tokio::test(flavor = "multi_thread")]
async fn descriptors_of_the_next_message_are_its_own() {
    let (marker, _writer) = rustix::pipe::pipe().unwrap();
    let attached = [marker.as_fd()];
    let (near, far) = UnixStream::pair().unwrap();
    let own = MessageSocket::new(near).unwrap();
    let kick = message(SET_VRING_KICK, 0, &0u64.to_ne_bytes());
    let plain = message(SET_OWNER, 0, &[]);
    // All of it is there before the first look.
    for (wire, fds) in [(&plain, &attached[..0]), (&kick, &attached), (&plain, &[]), (&kick, &attached)] {
        passing::send(&far, wire, fds).unwrap();
    }
    for expected in [0, 1, 0, 1] {
        let found = own.peek().await.unwrap().unwrap();
        assert_eq!(found.fds.len(), expected);
        own.take().unwrap();
    }
    assert!(!own.has_arrived().unwrap());
}
