//! Bad inputs, group B: what a hostile guest can say in vsock packets. After each, the device must
//! still serve, and have grown by no more than its limits.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::raw::{RawGuest, TX};
use support::{CID, ECHO, GUSH, KEEP, NOBODY, Running, STALL};
use tokio::io::AsyncWriteExt;
use vamos_proto::id::{GuestCid, VsockPort};
use vamos_vsock::limits::{STREAM_RECEIVE_BYTES_MAX, STREAM_SEND_BYTES_MAX, VM_STREAMS_MAX};
use vamos_vsock::protocol::{HEADER_BYTES, TYPE_SEQPACKET};
use vamos_vsock::{Header, Operation};

const SOON: Duration = Duration::from_millis(50);

fn start() -> (Running, RawGuest) {
    let (device, front) = support::start();
    (device, RawGuest::attach(front))
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn data(port: u32, service: VsockPort, len: usize) -> (Header, Vec<u8>) {
    let header = Header { len: len as u32, ..RawGuest::header(Operation::ReadWrite, port, service) };
    (header, vec![9; len])
}

#[test]
fn b14_a_flood_of_requests_is_capped_and_the_rest_is_reset() {
    let (device, mut guest) = start();
    guest.lend(8, 4096);
    let before = resident();
    let (mut accepted, mut refused) = (0, 0);
    for port in 0..65_536u32 {
        guest.send(&RawGuest::header(Operation::Request, port, STALL), &[]);
        let (header, _) = guest.receive();
        guest.lend(1, 4096);
        assert_eq!(header.dst_port, VsockPort(port));
        match Operation::from_wire(header.op) {
            Some(Operation::Response) => accepted += 1,
            Some(Operation::Reset) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((accepted, refused), (VM_STREAMS_MAX, 65_536 - VM_STREAMS_MAX));
    assert_eq!(device.counters().streams_open, VM_STREAMS_MAX as u64);
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "grew by {grown} bytes");
    // One stream less, and there is room for one.
    guest.send(&RawGuest::header(Operation::Reset, 5, STALL), &[]);
    device.services.kept.lock().unwrap().clear();
    guest.send(&RawGuest::header(Operation::Request, 70_000, ECHO), &[]);
    loop {
        let (header, _) = guest.receive();
        guest.lend(1, 4096);
        if header.dst_port == VsockPort(70_000) {
            assert_eq!(Operation::from_wire(header.op), Some(Operation::Response));
            break;
        }
    }
}

#[test]
fn b15_rw_beyond_credit_is_reset() {
    let (device, mut guest) = start();
    let response = guest.open(9, STALL);
    assert_eq!(response.buf_alloc, STREAM_RECEIVE_BYTES_MAX);
    for _ in 0..4 {
        let (header, payload) = data(9, STALL, 64 << 10);
        guest.send(&header, &payload);
    }
    assert_eq!(device.counters().bytes_received, 256 << 10, "all the window, and it holds");
    guest.lend(1, 4096);
    let (header, payload) = data(9, STALL, 1);
    guest.send(&header, &payload);
    guest.expect(Operation::Reset, 9);
    let counters = device.wait_for("counted", |counters| counters.protocol_errors == 1);
    assert_eq!((counters.bytes_received, counters.streams_reset, counters.streams_open), (256 << 10, 1, 0));
    guest.prove_alive(70);
}

#[test]
fn b16_shrunk_buf_alloc_and_a_fwd_cnt_ahead_of_what_was_sent_are_no_credit() {
    let (_device, mut guest) = start();
    guest.lend(10, 4096);
    let request = Header { buf_alloc: 8192, ..RawGuest::header(Operation::Request, 9, GUSH) };
    guest.send(&request, &[]);
    guest.expect(Operation::Response, 9);
    let mut got = 0;
    while got < 8192 {
        got += guest.expect(Operation::ReadWrite, 9).1.len();
    }
    assert_eq!(got, 8192);
    guest.expect(Operation::CreditRequest, 9);
    let says = |buf_alloc, fwd_cnt| Header {
        buf_alloc,
        fwd_cnt,
        ..RawGuest::header(Operation::CreditUpdate, 9, GUSH)
    };
    for (buf_alloc, fwd_cnt) in [(4096, 0), (8191, 0), (8192, 8193), (u32::MAX - 8191, 16_384), (0, 8192)] {
        guest.send(&says(buf_alloc, fwd_cnt), &[]);
        let sent = guest.receive_within(SOON);
        assert!(
            sent.as_ref().is_none_or(|(header, _)| header.op == Operation::CreditRequest as u16),
            "sent {sent:?} at buf_alloc {buf_alloc}, fwd_cnt {fwd_cnt}"
        );
    }
    // Sane again: exactly as much as there is credit for.
    guest.send(&says(4096, 8192 - 1096), &[]);
    assert_eq!(guest.expect(Operation::ReadWrite, 9).1.len(), 3000);
}

#[test]
fn b17_a_guest_that_offers_4_gib_and_never_reads_gets_the_local_cap() {
    let (device, front) = support::start();
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    *device.services.on_keep.lock().unwrap() = Some(Box::new(move |mut stream| {
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok(bytes) = stream.write(&[7; 10_000]).await {
                count.fetch_add(bytes, Ordering::Relaxed);
            }
        });
    }));
    let mut guest = RawGuest::attach(front);
    guest.lend(1, 4096);
    let request = Header { buf_alloc: u32::MAX, ..RawGuest::header(Operation::Request, 9, KEEP) };
    guest.send(&request, &[]);
    guest.expect(Operation::Response, 9);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(written.load(Ordering::Relaxed), STREAM_SEND_BYTES_MAX, "the service stalls there");
    let before = device.cpu_time();
    std::thread::sleep(Duration::from_millis(200));
    assert!(device.cpu_time() - before < Duration::from_millis(10), "and costs nothing");
    // Another stream is served in between: turns are taken packet by packet.
    guest.send(&RawGuest::header(Operation::Request, 70, ECHO), &[]);
    guest.lend(3, 4096);
    let served = (0..3).filter(|_| guest.receive().0.dst_port == VsockPort(70)).count();
    assert_eq!(served, 1);
}

#[test]
fn b18_a_flood_of_credit_requests_without_receive_buffers_is_answered_once() {
    let (device, mut guest) = start();
    guest.open(9, ECHO);
    for _ in 0..10_000 {
        guest.send(&RawGuest::header(Operation::CreditRequest, 9, ECHO), &[]);
    }
    assert_eq!(device.counters().protocol_errors, 0, "it is allowed");
    guest.lend(8, 4096);
    guest.expect(Operation::CreditUpdate, 9);
    assert!(guest.receive_within(SOON).is_none(), "one answer to all of them");
}

#[test]
fn b18_replies_to_strangers_wait_in_a_bounded_queue_and_then_in_the_ring() {
    let (device, mut guest) = start();
    let (header, payload) = data(9, NOBODY, 1);
    let slot = |index: u32| (index % 16) as u16;
    for index in 0..16 {
        let address = support::raw::packet_address(0);
        guest.write(address, &header.encode());
        guest.write(address + HEADER_BYTES as u64, &payload);
        guest.descriptor(TX.descriptors, index, address, HEADER_BYTES as u32 + 1, 0, 0);
    }
    // 256 are taken; then the ring itself is the queue.
    let mut taken = 0;
    for index in 0..300u32 {
        guest.offer(TX, slot(index));
        guest.kick(TX);
        if guest.used_within(TX, SOON).is_none() {
            break;
        }
        taken += 1;
    }
    assert_eq!(taken, 256);
    guest.lend(16, 4096);
    for _ in 0..16 {
        guest.expect(Operation::Reset, 9);
    }
    assert!(guest.used_within(TX, Duration::from_secs(2)).is_some(), "and it goes on as soon as it can");
    assert!(device.counters().protocol_errors >= 257);
}

#[test]
fn b19_packets_for_unknown_streams_are_reset() {
    let (device, mut guest) = start();
    for operation in [
        Operation::Response,
        Operation::ReadWrite,
        Operation::Shutdown,
        Operation::CreditUpdate,
        Operation::CreditRequest,
    ] {
        guest.lend(1, 4096);
        guest.send(&Header { flags: 3, ..RawGuest::header(operation, 9, ECHO) }, &[]);
        let (reset, _) = guest.expect(Operation::Reset, 9);
        assert_eq!((reset.src_cid, reset.dst_cid, reset.src_port), (GuestCid::HOST, CID, ECHO));
    }
    guest.send(&RawGuest::header(Operation::Reset, 9, ECHO), &[]);
    guest.lend(1, 4096);
    assert!(guest.receive_within(SOON).is_none(), "a RST is not answered with a RST");
    assert_eq!(device.counters().protocol_errors, 5);
}

#[test]
fn b19_a_port_nobody_serves_is_refused() {
    let (device, mut guest) = start();
    guest.lend(1, 4096);
    guest.send(&RawGuest::header(Operation::Request, 9, NOBODY), &[]);
    guest.expect(Operation::Reset, 9);
    assert_eq!((device.counters().streams_opened, device.counters().streams_open), (0, 0));
}

#[test]
fn b20_forged_addresses_are_dropped_and_counted() {
    let (device, mut guest) = start();
    guest.open(9, ECHO);
    guest.lend(2, 4096);
    let honest = RawGuest::header(Operation::Request, 10, ECHO);
    let mut forged = 0;
    for (src_cid, dst_cid) in [
        (GuestCid(4), GuestCid::HOST),
        (GuestCid::HOST, GuestCid::HOST),
        (GuestCid(u64::MAX), GuestCid::HOST),
        (GuestCid(3 | 1 << 32), GuestCid::HOST),
        (CID, GuestCid(4)),
        (CID, CID),
        (CID, GuestCid(2 | 1 << 32)),
    ] {
        guest.send(&Header { src_cid, dst_cid, ..honest }, &[]);
        // Not even an established stream can be reached this way.
        let reset = RawGuest::header(Operation::Reset, 9, ECHO);
        guest.send(&Header { src_cid, dst_cid, ..reset }, &[]);
        forged += 2;
    }
    assert!(guest.receive_within(SOON).is_none(), "no answer");
    let counters = device.counters();
    assert_eq!((counters.protocol_errors, counters.streams_open, counters.streams_opened), (forged, 1, 1));
    let (header, payload) = data(9, ECHO, 3);
    guest.send(&header, &payload);
    assert_eq!(guest.expect(Operation::ReadWrite, 9).1.len(), 3);
}

#[test]
fn b21_unknown_operations_types_and_lengths_are_rejected() {
    let (device, mut guest) = start();
    let mut port = 9;
    let mut errors = 0;
    // Each on a stream of its own, which is reset; and without a stream, answered with RST too.
    for stream in [false, true] {
        for change in 0..6 {
            port += 1;
            if stream {
                guest.open(port, STALL);
            }
            let (mut header, payload) = data(port, STALL, 10);
            match change {
                0 => header.op = 0,
                1 => header.op = 8,
                2 => header.op = u16::MAX,
                3 => header.socket_type = TYPE_SEQPACKET,
                4 => header.len = 11,
                _ => header.len = u32::MAX,
            }
            guest.lend(1, 4096);
            guest.send(&header, &payload);
            guest.expect(Operation::Reset, port);
            errors += 1;
            assert_eq!(device.counters().protocol_errors, errors, "change {change}");
        }
    }
    assert_eq!((device.counters().bytes_received, device.counters().streams_open), (0, 0));
    guest.prove_alive(70);
}

#[test]
fn b21_control_packets_with_payload_and_senseless_shutdowns_are_rejected() {
    let (device, mut guest) = start();
    for (port, operation, flags, len) in [
        (10, Operation::CreditUpdate, 0, 4),
        (11, Operation::Shutdown, 3, 4),
        (12, Operation::Shutdown, 0, 0),
        (13, Operation::Shutdown, 4, 0),
        (14, Operation::Request, 0, 0),
        (15, Operation::Response, 0, 0),
    ] {
        guest.open(port, STALL);
        guest.lend(1, 4096);
        guest
            .send(&Header { flags, len, ..RawGuest::header(operation, port, STALL) }, &vec![0; len as usize]);
        guest.expect(Operation::Reset, port);
    }
    assert_eq!(device.counters().protocol_errors, 6);
    guest.prove_alive(70);
}

#[test]
fn b21_payload_after_the_sender_ended_is_rejected() {
    let (device, mut guest) = start();
    guest.open(9, STALL);
    guest.send(&Header { flags: 2, ..RawGuest::header(Operation::Shutdown, 9, STALL) }, &[]);
    guest.lend(1, 4096);
    let (header, payload) = data(9, STALL, 1);
    guest.send(&header, &payload);
    guest.expect(Operation::Reset, 9);
    assert_eq!(device.counters().protocol_errors, 1);
}

#[test]
fn b22_a_reset_during_a_host_write_ends_that_write_and_nothing_else() {
    let (device, mut guest) = start();
    for port in 10..60 {
        // The service is in the middle of writing, without credit, with credit and with buffers.
        let buf_alloc = [0, 10_000, u32::MAX][port as usize % 3];
        guest.lend(1, 4096);
        guest.send(&Header { buf_alloc, ..RawGuest::header(Operation::Request, port, GUSH) }, &[]);
        guest.expect(Operation::Response, port);
        guest.send(&RawGuest::header(Operation::Reset, port, GUSH), &[]);
    }
    let counters = device.wait_for("all gone", |counters| counters.streams_open == 0);
    assert_eq!((counters.streams_opened, counters.streams_reset, counters.protocol_errors), (50, 50, 0));
    guest.prove_alive(70);
}
