//! What front-ends do that is allowed, and still has broken many a device: UML's pipes, messages in
//! pieces, a paused VM, a driver that begins anew, a driver without EVENT_IDX, a second owner.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use support::raw::{RX, RawGuest, TX, longs, message, request, send_raw, words};
use support::{CID, ECHO, Running, STALL};
use tokio::io::AsyncReadExt;
use vamos_vsock::{Header, Operation};
use vm_memory::{Bytes, GuestAddress};

fn start() -> (Running, RawGuest) {
    let (device, front) = support::start();
    (device, RawGuest::attach(front))
}

/// Every feature but EVENT_IDX.
const NO_EVENT_IDX: u64 = !(1 << 29);

fn echo(guest: &mut RawGuest, port: u32, bytes: &[u8]) {
    guest.lend(1, 4096);
    let header = Header { len: bytes.len() as u32, ..RawGuest::header(Operation::ReadWrite, port, ECHO) };
    guest.send(&header, bytes);
    assert_eq!(guest.expect(Operation::ReadWrite, port).1, bytes);
}

#[test]
fn the_configuration_is_the_cid_and_nothing_beyond_it() {
    let (_device, mut guest) = start();
    let mut ask = |offset: u32, size: u32| {
        let mut body = words(&[offset, size, 0]);
        body.resize(12 + size as usize, 0);
        send_raw(&guest.socket, &message(request::GET_CONFIG, &body), &[]).unwrap();
        let mut header = [0; 12];
        guest.socket.read_exact(&mut header).unwrap();
        let mut reply = vec![0; u32::from_ne_bytes(header[8..].try_into().unwrap()) as usize];
        guest.socket.read_exact(&mut reply).unwrap();
        reply.split_off(12)
    };
    assert_eq!(ask(0, 8), CID.0.to_le_bytes());
    assert_eq!(ask(0, 4), CID.0.to_le_bytes()[..4]);
    assert_eq!(ask(4, 8), [0; 0], "beyond the end");
    guest.prove_alive(70);
}

#[test]
fn a_second_owner_is_refused_and_the_first_served_on() {
    let (_device, mut guest) = start();
    guest.open(9, ECHO);
    assert_ne!(guest.request(request::SET_OWNER, &[], &[]), 0);
    echo(&mut guest, 9, b"still mine");
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let (_device, mut guest) = start();
    assert_ne!(guest.request(request::SET_FEATURES, &longs(&[1 << 34]), &[]), 0, "a packed ring");
    guest.prove_alive(70);
}

#[test]
fn a_message_in_pieces_is_one_message() {
    let (_device, mut guest) = start();
    let whole = message(request::SET_VRING_ENABLE, &words(&[1, 1]));
    for cut in [1, 11, 12, 13, 19] {
        guest.socket.write_all(&whole[..cut]).unwrap();
        // The rings are served meanwhile: nobody waits for the rest.
        guest.prove_alive(70 + cut as u32);
        let rest = guest.socket.write_all(&whole[cut..]);
        rest.unwrap();
        let mut reply = [0; 20];
        guest.socket.read_exact(&mut reply).unwrap();
        assert_eq!(reply[12..], 0u64.to_ne_bytes());
    }
}

#[test]
fn calls_through_a_pipe_that_nobody_reads_block_nobody() {
    let (device, front) = support::start();
    let mut guest = RawGuest::attach_with_features(front, NO_EVENT_IDX);
    for ring in [RX, TX] {
        guest.start_ring(ring, 16, 0);
    }
    let (_never_read, written) = rustix::pipe::pipe().unwrap();
    for queue in [0u64, 1] {
        let file = File::from(written.try_clone().unwrap());
        assert_eq!(guest.request(request::SET_VRING_CALL, &longs(&[queue]), &[file.as_fd()]), 0);
    }
    guest.open(9, ECHO);
    // A pipe holds 8192 calls, and each packet makes one.
    for round in 0..10_000u32 {
        echo(&mut guest, 9, &round.to_le_bytes());
    }
    assert!(device.counters().calls_sent > 10_000, "{:?}", device.counters());
}

#[test]
fn a_driver_without_event_idx_is_kicked_and_kicks_by_the_flags() {
    let (device, front) = support::start();
    let mut guest = RawGuest::attach_with_features(front, NO_EVENT_IDX);
    for ring in [RX, TX] {
        guest.start_ring(ring, 16, 0);
    }
    guest.open(9, ECHO);
    for round in 0..50u32 {
        echo(&mut guest, 9, &round.to_le_bytes());
        assert!(guest.called_within(RX, Duration::from_millis(900)), "round {round}");
    }
    assert_eq!(device.counters().calls_suppressed, 0);
}

#[test]
fn a_guest_hears_that_its_packets_were_taken_soon_or_when_they_are_many() {
    let (device, mut guest) = start();
    guest.open(9, STALL);
    while guest.called_within(TX, Duration::from_millis(50)) {}
    let send = |guest: &mut RawGuest, packets: u32| {
        for _ in 0..packets {
            // As Linux does: an interrupt is wanted for every packet.
            let used: u16 = guest.memory.read_obj(GuestAddress(TX.used + 2)).unwrap();
            guest.set_used_event(TX, used);
            guest.send(&Header { len: 1, ..RawGuest::header(Operation::ReadWrite, 9, STALL) }, b"x");
        }
    };
    send(&mut guest, 1);
    assert!(guest.called_within(TX, Duration::from_millis(900)), "soon");
    let before = device.counters().calls_sent;
    send(&mut guest, 64);
    let calls = device.counters().calls_sent - before;
    assert!((16..=32).contains(&calls), "{calls} calls for 64 packets in a ring of 16");
}

#[test]
fn a_paused_vm_keeps_its_streams() {
    let (device, mut guest) = start();
    guest.open(9, ECHO);
    guest.lend(3, 4096);
    let bases: Vec<u32> = [RX, TX]
        .into_iter()
        .map(|ring| (guest.request(request::GET_VRING_BASE, &words(&[ring.queue, 0]), &[]) >> 32) as u32)
        .collect();
    std::thread::sleep(Duration::from_millis(20));
    guest.resume_ring(RX, bases[0]);
    guest.resume_ring(TX, bases[1]);
    let header = Header { len: 2, ..RawGuest::header(Operation::ReadWrite, 9, ECHO) };
    guest.send(&header, b"on");
    assert_eq!(guest.expect(Operation::ReadWrite, 9).1, b"on");
    assert_eq!(device.counters().streams_reset, 0);
}

#[test]
fn a_driver_that_begins_anew_finds_no_old_streams() {
    let (device, mut guest) = start();
    guest.open(9, STALL);
    for ring in [RX, TX] {
        guest.request(request::GET_VRING_BASE, &words(&[ring.queue, 0]), &[]);
        guest.forget_ring(ring);
        guest.start_ring(ring, 16, 0);
    }
    assert_eq!((device.counters().streams_open, device.counters().streams_reset), (0, 1));
    let mut kept = device.services.kept.lock().unwrap().pop().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(kept.read(&mut [0; 8])).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The same port again, at once.
    guest.prove_alive(9);
}

#[test]
fn kicks_sent_before_the_ring_is_enabled_are_not_lost() {
    let (_device, front) = support::start();
    let mut guest = RawGuest::attach_without_rings(front);
    guest.start_ring(RX, 16, 0);
    guest.start_ring(TX, 16, 0);
    assert_eq!(guest.request(request::SET_VRING_ENABLE, &words(&[1, 0]), &[]), 0);
    guest.lend(1, 4096);
    guest.offer_packet(&RawGuest::header(Operation::Request, 9, ECHO));
    guest.kick(TX);
    assert_eq!(guest.used_within(TX, Duration::from_millis(50)), None, "disabled");
    assert_eq!(guest.request(request::SET_VRING_ENABLE, &words(&[1, 1]), &[]), 0);
    guest.expect(Operation::Response, 9);
}

#[test]
fn a_front_end_that_reads_no_replies_is_dropped() {
    let (device, guest) = start();
    let ask = message(request::GET_FEATURES, &[]);
    guest.socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    for _ in 0..100_000 {
        if send_raw(&guest.socket, &ask, &[]).is_err() {
            break;
        }
    }
    let error = device.join().unwrap_err();
    assert!(format!("{error:?}").contains("RepliesNotRead"), "{error:?}");
}
