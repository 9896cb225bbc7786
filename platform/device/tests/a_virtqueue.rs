//! Bad inputs, group A: what a hostile driver can put into a ring and a hostile front-end into a
//! memory table. After each, the device must still serve.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::raw::{
    INDIRECT, MEMORY_BYTES, NEXT, RX, RawGuest, TX, USER_BASE, WRITE, longs, packet_address, request, words,
};
use support::{ECHO, Running, STALL};
use vamos_vsock::protocol::HEADER_BYTES;
use vamos_vsock::{Header, Operation};
use vm_memory::{Bytes, GuestAddress};

const PACKET: u64 = 0x2_0000;
const TABLE: u64 = 0x8000;

fn start() -> (Running, RawGuest) {
    let (device, front) = support::start();
    (device, RawGuest::attach(front))
}

/// Puts a good packet where descriptors of these tests point, so that only the chain is at fault.
fn good_packet(guest: &RawGuest) {
    guest.write(PACKET, &RawGuest::header(Operation::Request, 9, ECHO).encode());
}

/// Offers `head` on the transmit ring and expects it back unused, counted as an error.
fn expect_rejected(device: &Running, guest: &mut RawGuest, head: u16) {
    let before = device.counters();
    guest.offer(TX, head);
    guest.kick(TX);
    assert_eq!(guest.used(TX), (head, 0));
    let after = device.wait_for("an error", |counters| counters.ring_errors > before.ring_errors);
    assert_eq!(after.ring_errors, before.ring_errors + 1);
    assert_eq!(after.packets_received, before.packets_received, "a bad chain carries no packet");
}

#[test]
fn a01_descriptor_cycle_is_rejected() {
    let (device, mut guest) = start();
    good_packet(&guest);
    guest.descriptor(TX.descriptors, 0, PACKET, 44, NEXT, 1);
    guest.descriptor(TX.descriptors, 1, PACKET, 44, NEXT, 0);
    expect_rejected(&device, &mut guest, 0);
    guest.descriptor(TX.descriptors, 2, PACKET, 44, NEXT, 2);
    expect_rejected(&device, &mut guest, 2);
    guest.descriptor(TX.descriptors, 3, PACKET, 44, NEXT, 999);
    expect_rejected(&device, &mut guest, 3);
    guest.prove_alive(70);
}

#[test]
fn a02_bad_indirect_tables_are_rejected() {
    let (device, mut guest) = start();
    good_packet(&guest);
    // A table within a table.
    guest.descriptor(TABLE, 0, TABLE, 16, INDIRECT, 0);
    guest.descriptor(TX.descriptors, 0, TABLE, 16, INDIRECT, 0);
    expect_rejected(&device, &mut guest, 0);
    // Not a whole number of descriptors.
    guest.descriptor(TABLE, 0, PACKET, 44, 0, 0);
    guest.descriptor(TX.descriptors, 1, TABLE, 17, INDIRECT, 0);
    expect_rejected(&device, &mut guest, 1);
    // The largest table there can be, of the largest descriptors.
    for index in 0..100 {
        guest.descriptor(TABLE, index, 0, u32::MAX, NEXT, index + 1);
    }
    guest.descriptor(TX.descriptors, 2, TABLE, 65_535 * 16, INDIRECT, 0);
    expect_rejected(&device, &mut guest, 2);
    // A long but tame one: 200 descriptors of one byte.
    for index in 0..200 {
        guest.descriptor(TABLE, index, PACKET + u64::from(index), 1, NEXT, index + 1);
    }
    guest.descriptor(TX.descriptors, 3, TABLE, 200 * 16, INDIRECT, 0);
    expect_rejected(&device, &mut guest, 3);
    // A table outside memory.
    guest.descriptor(TX.descriptors, 4, MEMORY_BYTES - 8, 16, INDIRECT, 0);
    expect_rejected(&device, &mut guest, 4);
    guest.prove_alive(70);
}

#[test]
fn a02_a_good_indirect_table_is_taken() {
    let (_device, mut guest) = start();
    guest.lend(1, 4096);
    good_packet(&guest);
    // Header and its continuation scattered over three descriptors of a table.
    guest.descriptor(TABLE, 0, PACKET, 10, NEXT, 2);
    guest.descriptor(TABLE, 2, PACKET + 10, 30, NEXT, 1);
    guest.descriptor(TABLE, 1, PACKET + 40, 4, 0, 0);
    guest.descriptor(TX.descriptors, 5, TABLE, 48, INDIRECT, 0);
    guest.offer(TX, 5);
    guest.kick(TX);
    assert_eq!(guest.used(TX), (5, 0));
    guest.expect(Operation::Response, 9);
}

#[test]
fn a03_empty_descriptors_and_tables_are_rejected() {
    let (device, mut guest) = start();
    good_packet(&guest);
    guest.descriptor(TX.descriptors, 0, TABLE, 0, INDIRECT, 0);
    expect_rejected(&device, &mut guest, 0);
    guest.descriptor(TX.descriptors, 1, PACKET, 0, 0, 0);
    expect_rejected(&device, &mut guest, 1);
    guest.descriptor(TX.descriptors, 2, PACKET, 44, NEXT, 3);
    guest.descriptor(TX.descriptors, 3, PACKET, 0, 0, 0);
    expect_rejected(&device, &mut guest, 2);
    guest.descriptor(TX.descriptors, 4, PACKET, 43, 0, 0);
    expect_rejected(&device, &mut guest, 4);
    guest.prove_alive(70);
}

#[test]
fn a04_an_index_ahead_of_the_ring_breaks_it_until_it_is_set_up_anew() {
    let (device, mut guest) = start();
    guest.set_available_index(TX, 17);
    guest.kick(TX);
    device.wait_for("the ring breaks", |counters| counters.ring_errors == 1);
    let before = device.cpu_time();
    for _ in 0..100 {
        guest.kick(TX);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(device.cpu_time() - before < Duration::from_millis(50), "no spinning on a broken ring");
    assert_eq!(device.counters().ring_errors, 1, "not looked at again");
    assert_eq!(guest.used_within(TX, Duration::from_millis(20)), None);
    guest.request(request::GET_VRING_BASE, &words(&[TX.queue, 0]), &[]);
    guest.set_available_index(TX, 0);
    guest.start_ring(TX, 16, 0);
    guest.prove_alive(70);
}

#[test]
fn a05_descriptors_outside_memory_are_rejected() {
    let (device, mut guest) = start();
    for (head, address, len) in [
        (0, MEMORY_BYTES - 10, 44),
        (1, MEMORY_BYTES, 44),
        (2, MEMORY_BYTES * 100, 44),
        (3, u64::MAX - 20, 44),
        (4, u64::MAX, u32::MAX),
        (5, 0x1_0000, u32::MAX),
    ] {
        guest.descriptor(TX.descriptors, head, address, len, 0, 0);
        expect_rejected(&device, &mut guest, head);
    }
    guest.prove_alive(70);
}

#[test]
fn a06_descriptors_of_the_wrong_direction_are_rejected() {
    let (device, mut guest) = start();
    good_packet(&guest);
    guest.descriptor(TX.descriptors, 0, PACKET, 44, WRITE, 0);
    expect_rejected(&device, &mut guest, 0);
    guest.descriptor(TX.descriptors, 1, PACKET, 44, NEXT, 2);
    guest.descriptor(TX.descriptors, 2, PACKET, 44, WRITE, 0);
    expect_rejected(&device, &mut guest, 1);
    // A receive buffer that the device may not write: given back empty, and the next one is used.
    guest.descriptor(RX.descriptors, 0, 0x1a_0000, 4096, 0, 0);
    guest.offer(RX, 0);
    guest.lend(1, 4096);
    guest.send(&RawGuest::header(Operation::Request, 9, ECHO), &[]);
    assert_eq!(guest.used(RX), (0, 0));
    guest.expect(Operation::Response, 9);
    guest.prove_alive(70);
}

#[test]
fn a06_receive_buffers_without_room_for_payload_lose_no_byte() {
    let (device, mut guest) = start();
    guest.open(9, ECHO);
    guest.lend(2, HEADER_BYTES as u32);
    guest.lend(1, 4096);
    let before = device.counters().ring_errors;
    guest.send(&Header { len: 3, ..RawGuest::header(Operation::ReadWrite, 9, ECHO) }, b"abc");
    assert_eq!(guest.used(RX).1, 0);
    assert_eq!(guest.used(RX).1, 0);
    let (_, payload) = guest.expect(Operation::ReadWrite, 9);
    assert_eq!(payload, b"abc");
    device.wait_for("counted", |counters| counters.ring_errors == before + 2);
}

#[test]
fn a07_a_head_beyond_the_ring_breaks_it_and_a_head_in_flight_twice_is_rejected() {
    let (device, mut guest) = start();
    guest.lend(2, 4096);
    good_packet(&guest);
    guest.descriptor(TX.descriptors, 3, PACKET, 44, 0, 0);
    let before = device.counters();
    guest.offer(TX, 3);
    guest.offer(TX, 3);
    guest.kick(TX);
    assert_eq!((guest.used(TX), guest.used(TX)), ((3, 0), (3, 0)));
    // The device may have taken the first before the second was there: then both were in order.
    let after = device.wait_for("both are counted", |counters| {
        counters.packets_received + counters.ring_errors == before.packets_received + before.ring_errors + 2
    });

    guest.offer(TX, 16);
    guest.kick(TX);
    let broken = device.wait_for("the ring breaks", |counters| counters.ring_errors > after.ring_errors);
    assert_eq!(guest.used_within(TX, Duration::from_millis(20)), None);
    assert_eq!(device.counters().ring_errors, broken.ring_errors);
}

#[test]
fn a08_a_packet_changed_after_the_kick_is_one_packet_or_the_other() {
    let (device, mut guest) = start();
    guest.open(9, STALL);
    let stop = Arc::new(AtomicBool::new(false));
    let (memory, stopped) = (Arc::clone(&guest.memory), Arc::clone(&stop));
    // Flips every packet's length and payload while the device reads it.
    let flipper = std::thread::spawn(move || {
        let mut flips = 0u32;
        while !stopped.load(Ordering::Relaxed) {
            for slot in 0..12 {
                let address = packet_address(slot);
                let _ = memory.write_obj((flips % 200).to_le(), GuestAddress(address + 24));
                let _ = memory.write_obj(flips, GuestAddress(address + HEADER_BYTES as u64));
            }
            flips = flips.wrapping_add(1);
        }
    });
    for _ in 0..2_000 {
        let header = Header { len: 100, ..RawGuest::header(Operation::ReadWrite, 9, STALL) };
        guest.send(&header, &[1; 100]);
    }
    stop.store(true, Ordering::Relaxed);
    flipper.join().unwrap();
    let counters = device.counters();
    // Whatever it read: never more than the chain holds, never more than the window.
    assert!(counters.bytes_received <= 256 << 10, "{counters:?}");
    let (_, mut fresh) = start();
    fresh.prove_alive(70);
}

#[test]
fn a09_a_kick_storm_on_empty_rings_costs_little() {
    let (device, guest) = start();
    std::thread::sleep(Duration::from_millis(50));
    let (begin, before) = (Instant::now(), device.cpu_time());
    let mut kicks = 0u64;
    while begin.elapsed() < Duration::from_secs(2) {
        guest.kick(TX);
        kicks += 1;
        if kicks.is_multiple_of(64) {
            std::thread::yield_now();
        }
    }
    let used = device.cpu_time() - before;
    assert!(kicks > 10_000, "a storm, not {kicks} kicks");
    assert!(used < begin.elapsed() / 20, "{used:?} of CPU for {kicks} kicks in {:?}", begin.elapsed());
    let mut guest = guest;
    guest.prove_alive(70);
}

#[test]
fn a10_impossible_ring_sizes_are_refused() {
    let (_device, front) = support::start();
    let mut guest = RawGuest::attach_without_rings(front);
    for size in [0, 3, 2048, 65_536, 65_537, u32::MAX] {
        assert_ne!(
            guest.request(request::SET_VRING_NUM, &words(&[TX.queue, size]), &[]),
            0,
            "{size} entries"
        );
    }
    assert_ne!(guest.request(request::SET_VRING_NUM, &words(&[3, 16]), &[]), 0, "a fourth ring");
    assert_ne!(
        guest.request(request::SET_VRING_BASE, &words(&[TX.queue, 65_536]), &[]),
        0,
        "a base beyond 16 bits"
    );
    guest.start_ring(RX, 16, 0);
    guest.start_ring(TX, 16, 0);
    assert_ne!(guest.request(request::SET_VRING_NUM, &words(&[TX.queue, 8]), &[]), 0, "while it runs");
    assert_ne!(guest.request(request::SET_VRING_BASE, &words(&[TX.queue, 0]), &[]), 0, "while it runs");
    guest.prove_alive(70);
}

#[test]
fn a10_ring_addresses_outside_memory_are_refused() {
    let (_device, front) = support::start();
    let mut guest = RawGuest::attach_without_rings(front);
    assert_eq!(guest.request(request::SET_VRING_NUM, &words(&[1, 16]), &[]), 0);
    let at = |address: u64| USER_BASE + address;
    for [descriptors, used, available] in [
        [at(MEMORY_BYTES), at(0x6000), at(0x5000)],
        [at(0x4000), at(MEMORY_BYTES - 4), at(0x5000)],
        [at(0x4000), at(0x6000), at(MEMORY_BYTES - 2)],
        [0, 0, 0],
        [u64::MAX - 15, u64::MAX - 15, u64::MAX - 15],
    ] {
        let mut body = words(&[1, 0]);
        body.extend_from_slice(&longs(&[descriptors, used, available, 0]));
        let refused = guest.request(request::SET_VRING_ADDR, &body, &[]) != 0;
        let kick = guest.kicks[1].try_clone().unwrap();
        let started =
            guest.request(request::SET_VRING_KICK, &longs(&[1]), &[support::raw::borrowed(&kick)]) == 0;
        assert!(refused && !started, "{descriptors:#x} {used:#x} {available:#x}");
    }
    guest.start_ring(RX, 16, 0);
    guest.start_ring(TX, 16, 0);
    guest.prove_alive(70);
}

#[test]
fn a10_misaligned_rings_end_the_conversation_with_an_error() {
    let (device, front) = support::start();
    let guest = RawGuest::attach_without_rings(front);
    let mut body = words(&[1, 0]);
    body.extend_from_slice(&longs(&[USER_BASE + 0x4001, USER_BASE + 0x6000, USER_BASE + 0x5000, 0]));
    let message = support::raw::message(request::SET_VRING_ADDR, &body);
    support::raw::send_raw(&guest.socket, &message, &[]).unwrap();
    assert!(device.join().is_err());
}

#[test]
fn a11_impossible_memory_tables_are_refused_and_the_old_one_stays() {
    let (_device, mut guest) = start();
    guest.open(9, ECHO);
    let short = support::raw::memfd(MEMORY_BYTES / 2);
    assert_ne!(guest.set_memory(&[(0, MEMORY_BYTES, USER_BASE, 0)], Some(&short)), 0, "a file too short");
    let overlapping = [(0, 0x2000, USER_BASE, 0), (0x1000, 0x2000, USER_BASE + 0x10_0000, 0)];
    assert_ne!(guest.set_memory(&overlapping, None), 0, "overlapping regions");
    guest.prove_alive(70);
}

#[test]
fn a11_memory_replaced_in_mid_stream_goes_on_where_it_was() {
    let (_device, mut guest) = start();
    guest.open(9, ECHO);
    guest.lend(1, 4096);
    assert_eq!(guest.set_memory(&[(0, MEMORY_BYTES, USER_BASE, 0)], None), 0);
    guest.send(&Header { len: 3, ..RawGuest::header(Operation::ReadWrite, 9, ECHO) }, b"abc");
    assert_eq!(guest.expect(Operation::ReadWrite, 9).1, b"abc");
}

#[test]
fn a11_memory_without_the_running_rings_stops_them_and_nothing_else() {
    let (device, mut guest) = start();
    assert_eq!(guest.set_memory(&[(0, 0x1000, USER_BASE, 0)], None), 0);
    guest.descriptor(TX.descriptors, 0, PACKET, 44, 0, 0);
    guest.offer(TX, 0);
    guest.kick(TX);
    assert_eq!(guest.used_within(TX, Duration::from_millis(50)), None, "the ring is not there any more");
    assert_eq!(guest.set_memory(&[(0, MEMORY_BYTES, USER_BASE, 0)], None), 0);
    for ring in [RX, TX] {
        guest.request(request::GET_VRING_BASE, &words(&[ring.queue, 0]), &[]);
        guest.set_available_index(ring, 0);
        guest.start_ring(ring, 16, 0);
    }
    guest.prove_alive(70);
    drop(guest);
    device.join().unwrap();
}

#[test]
fn a11_a_table_of_509_slots_ends_the_conversation_with_an_error() {
    let (device, guest) = start();
    let mut body = words(&[509, 0]);
    for slot in 0..100u64 {
        body.extend_from_slice(&longs(&[slot << 20, 0x1000, slot << 20, 0]));
    }
    support::raw::send_raw(&guest.socket, &support::raw::message(request::SET_MEM_TABLE, &body), &[])
        .unwrap();
    assert!(device.join().is_err());
}

#[test]
fn a13_garbage_used_events_cost_no_wakeup_and_make_no_storm() {
    let (device, mut guest) = start();
    guest.open(9, ECHO);
    while guest.called_within(RX, Duration::from_millis(20)) {}
    let before = device.counters();
    for (round, garbage) in [0u16, 1, 17, 255, 30_000, 32_768, 65_535].into_iter().enumerate() {
        guest.set_used_event(RX, garbage);
        guest.set_used_event(TX, garbage);
        guest.lend(1, 4096);
        guest.send(&Header { len: 1, ..RawGuest::header(Operation::ReadWrite, 9, ECHO) }, &[round as u8]);
        assert_eq!(guest.expect(Operation::ReadWrite, 9).1, [round as u8]);
    }
    let after = device.counters();
    assert!(after.calls_sent - before.calls_sent <= 14, "at most one call a batch: {after:?}");
    // An honest wish is heard again at once.
    while guest.called_within(RX, Duration::from_millis(20)) {}
    let used: u16 = guest.memory.read_obj(GuestAddress(RX.used + 2)).unwrap();
    guest.set_used_event(RX, used);
    guest.lend(1, 4096);
    guest.send(&Header { len: 1, ..RawGuest::header(Operation::ReadWrite, 9, ECHO) }, b"x");
    assert!(guest.called_within(RX, Duration::from_millis(900)), "no lost wake-up");
}
