//! Two ends of a device over a pipe that loses nothing, against a model that is two byte counters:
//! any interleaving of writes, reads, carried packets and half-closes, with byte counters that wrap.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use vamos_proto::id::{GuestCid, VsockPort};
use vamos_vsock::limits::{
    STRAY_REPLIES_MAX, STREAM_RECEIVE_BYTES_MAX, STREAM_SEND_BYTES_MAX, VM_STREAMS_MAX,
};
use vamos_vsock::protocol::{HEADER_BYTES, TYPE_STREAM};
use vamos_vsock::{
    Header, Mux, MuxConfig, Operation, Received, StreamError, StreamId, Transmitted, Violation,
};

const GUEST: GuestCid = GuestCid(3);
const PORT: VsockPort = VsockPort(1024);

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// The byte at position `at` of a stream that nobody could guess from its neighbour.
fn byte_at(at: u64) -> u8 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// One end: its table, the packets on their way to the other, and what its owner has done so far.
struct End {
    mux: Mux,
    outbound: VecDeque<(Header, Vec<u8>)>,
    stream: Option<StreamId>,
    written: u64,
    read: u64,
    at_end: bool,
    shut: bool,
}

impl End {
    fn new(local: GuestCid, peer: GuestCid, counters_start: u32) -> Self {
        let mux = Mux::new(MuxConfig { counters_start, ..MuxConfig::new(local, peer) });
        Self { mux, outbound: VecDeque::new(), stream: None, written: 0, read: 0, at_end: false, shut: false }
    }

    fn carry(&mut self, other: &mut End, room: usize) {
        if self.mux.has_departures() {
            let outbound = &mut self.outbound;
            self.mux.transmit(room, |header, payload| {
                outbound.push_back((*header, payload.to_vec()));
                true
            });
        }
        let Some((header, payload)) = self.outbound.pop_front() else { return };
        match other.mux.receive(&header, &payload[..]) {
            Received::Taken => {}
            Received::Request(id, port) => {
                assert_eq!(port, PORT);
                other.mux.accept(id);
                other.stream = Some(id);
            }
            Received::Rejected(violation) => panic!("an honest peer was rejected: {violation}"),
        }
    }

    fn write(&mut self, bytes: usize) {
        let (Some(stream), false) = (self.stream, self.shut) else { return };
        let data: Vec<u8> = (0..bytes as u64).map(|at| byte_at(self.written + at)).collect();
        if let Poll::Ready(taken) = self.mux.poll_write(stream, &mut cx(), &data) {
            self.written += taken.expect("write to an open stream") as u64;
        }
        assert!(self.mux.committed_bytes() <= STREAM_SEND_BYTES_MAX + STREAM_RECEIVE_BYTES_MAX as usize);
    }

    fn read(&mut self, bytes: usize) {
        let Some(stream) = self.stream else { return };
        let mut data = vec![0; bytes.max(1)];
        if let Poll::Ready(taken) = self.mux.poll_read(stream, &mut cx(), &mut data) {
            let taken = taken.expect("read from an open stream");
            assert!(!(self.at_end && taken > 0), "bytes after the end");
            self.at_end |= taken == 0;
            for byte in &data[..taken] {
                assert_eq!(*byte, byte_at(self.read), "byte {}", self.read);
                self.read += 1;
            }
        }
    }

    fn shut(&mut self) {
        if let Some(stream) = self.stream {
            self.shut = true;
            let _ = self.mux.poll_shutdown(stream, &mut cx());
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(bool, usize),
    Read(bool, usize),
    Carry(bool, usize),
    Shut(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), 1usize..90_000).prop_map(|(side, bytes)| Step::Write(side, bytes)),
        4 => (any::<bool>(), 1usize..90_000).prop_map(|(side, bytes)| Step::Read(side, bytes)),
        8 => (any::<bool>(), 1usize..70_000).prop_map(|(side, room)| Step::Carry(side, room)),
        1 => any::<bool>().prop_map(Step::Shut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_byte_arrives_once_and_in_order(start in u32::MAX - 400_000..=u32::MAX, steps in proptest::collection::vec(step(), 1..300)) {
        let mut guest = End::new(GUEST, GuestCid::HOST, start);
        let mut host = End::new(GuestCid::HOST, GUEST, start);
        guest.stream = Some(guest.mux.connect(PORT).unwrap());
        for _ in 0..4 {
            guest.carry(&mut host, 1);
            host.carry(&mut guest, 1);
        }
        for step in steps {
            match step {
                Step::Write(true, bytes) => guest.write(bytes),
                Step::Write(false, bytes) => host.write(bytes),
                Step::Read(true, bytes) => guest.read(bytes),
                Step::Read(false, bytes) => host.read(bytes),
                Step::Carry(true, room) => guest.carry(&mut host, room),
                Step::Carry(false, room) => host.carry(&mut guest, room),
                Step::Shut(true) => guest.shut(),
                Step::Shut(false) => host.shut(),
            }
        }
        // Whatever happened: both ends finish, and everything written comes out at the other end.
        guest.shut();
        host.shut();
        for _ in 0..2000 {
            guest.carry(&mut host, 4096);
            host.carry(&mut guest, 4096);
            guest.read(100_000);
            host.read(100_000);
        }
        prop_assert!(guest.at_end && host.at_end);
        prop_assert_eq!((guest.read, host.read), (host.written, guest.written));
        guest.mux.close(guest.stream.unwrap());
        for _ in 0..4 {
            guest.carry(&mut host, 1);
            host.carry(&mut guest, 1);
        }
        host.mux.close(host.stream.unwrap());
        prop_assert_eq!((guest.mux.streams_open(), host.mux.streams_open()), (0, 0));
        prop_assert_eq!((guest.mux.committed_bytes(), host.mux.committed_bytes()), (0, 0));
    }

    /// Anything at all from the peer: no panic, and nothing grows beyond its limit.
    #[test]
    fn a_hostile_peer_gets_nothing(packets in proptest::collection::vec((0u16..10, 0u32..4, 0u32..3, 0u32..200_000, any::<u32>(), any::<u32>(), 0u32..5, 0usize..100), 0..400)) {
        let mut host = Mux::new(MuxConfig::new(GuestCid::HOST, GUEST));
        let mut owned = Vec::new();
        for (op, src_port, dst_port, len, buf_alloc, fwd_cnt, flags, work) in packets {
            let header = Header {
                src_cid: GUEST, dst_cid: GuestCid::HOST, src_port: VsockPort(src_port), dst_port: VsockPort(dst_port),
                len, socket_type: TYPE_STREAM, op, flags, buf_alloc, fwd_cnt,
            };
            if !host.accepts_packets() {
                prop_assert!(host.has_departures());
            } else if let Received::Request(id, _) = host.receive(&header, &vec![0; len as usize / 2 * 2][..]) {
                host.accept(id);
                owned.push(id);
            }
            for id in &owned {
                let _ = host.poll_write(*id, &mut cx(), &[7; 5000]);
                let _ = host.poll_read(*id, &mut cx(), &mut [0; 3000]);
            }
            if work < 30 && host.has_departures() {
                host.transmit(work * 100, |header, payload| {
                    assert_eq!(header.len as usize, payload.len());
                    work % 7 != 0
                });
            }
            if work == 99 && !owned.is_empty() {
                host.close(owned.swap_remove(0));
            }
            prop_assert!(host.streams_open() <= VM_STREAMS_MAX);
            prop_assert!(host.committed_bytes() <= 16 * (STREAM_SEND_BYTES_MAX + STREAM_RECEIVE_BYTES_MAX as usize));
        }
        for id in owned {
            host.close(id);
        }
        host.lose_peer();
        prop_assert!(!host.has_departures());
        prop_assert_eq!((host.committed_bytes(), host.streams_open()), (0, 0));
    }
}

/// A host table and packets written by hand.
struct Raw {
    host: Mux,
}

impl Raw {
    fn new() -> Self {
        Self { host: Mux::new(MuxConfig::new(GuestCid::HOST, GUEST)) }
    }

    fn header(operation: Operation, port: u32) -> Header {
        Header {
            src_cid: GUEST,
            dst_cid: GuestCid::HOST,
            src_port: VsockPort(port),
            dst_port: PORT,
            op: operation as u16,
            socket_type: TYPE_STREAM,
            buf_alloc: 1 << 20,
            ..Header::decode(&[0; HEADER_BYTES])
        }
    }

    fn open(&mut self, port: u32) -> StreamId {
        let Received::Request(id, _) = self.host.receive(&Self::header(Operation::Request, port), &[][..])
        else {
            panic!("not a request")
        };
        self.host.accept(id);
        assert_eq!(self.next(), Some((Operation::Response, 0)));
        id
    }

    fn next(&mut self) -> Option<(Operation, usize)> {
        if !self.host.has_departures() {
            return None;
        }
        let mut seen = None;
        let sent = self.host.transmit(4096, |header, payload| {
            seen = Operation::from_wire(header.op).map(|operation| (operation, payload.len()));
            true
        });
        assert!(matches!(sent, Transmitted::Packet(_)));
        seen
    }
}

#[test]
fn a_stream_the_peer_resets_in_mid_write_errs_and_frees_its_bytes() {
    let mut raw = Raw::new();
    let id = raw.open(9);
    assert_eq!(raw.host.poll_write(id, &mut cx(), &[1; 100]), Poll::Ready(Ok(100)));
    raw.host.receive(&Raw::header(Operation::Reset, 9), &[][..]);
    assert_eq!(raw.host.poll_write(id, &mut cx(), &[1; 100]), Poll::Ready(Err(StreamError::Reset)));
    assert_eq!(raw.host.poll_read(id, &mut cx(), &mut [0; 10]), Poll::Ready(Err(StreamError::Reset)));
    assert_eq!(raw.next(), None);
    raw.host.close(id);
    assert_eq!(raw.host.committed_bytes(), 0);
}

#[test]
fn what_was_written_before_the_owner_left_still_arrives() {
    let mut raw = Raw::new();
    let id = raw.open(9);
    assert_eq!(raw.host.poll_write(id, &mut cx(), &[1; 5000]), Poll::Ready(Ok(5000)));
    raw.host.close(id);
    assert_eq!(raw.next(), Some((Operation::ReadWrite, 4096)));
    assert_eq!(raw.next(), Some((Operation::ReadWrite, 904)));
    assert_eq!(raw.next(), Some((Operation::Shutdown, 0)));
    assert_eq!(raw.next(), None);
    raw.host.receive(&Raw::header(Operation::Reset, 9), &[][..]);
    assert_eq!(raw.host.streams_open(), 0);
}

#[test]
fn a_port_is_free_again_while_the_old_stream_is_still_being_read() {
    let mut raw = Raw::new();
    let old = raw.open(9);
    raw.host.receive(&Header { len: 3, ..Raw::header(Operation::ReadWrite, 9) }, &b"old"[..]);
    raw.host.receive(&Header { flags: 3, ..Raw::header(Operation::Shutdown, 9) }, &[][..]);
    assert_eq!(raw.next(), Some((Operation::Reset, 0)));
    let new = raw.open(9);
    assert_ne!(old, new);
    let mut out = [0; 8];
    assert_eq!(raw.host.poll_read(old, &mut cx(), &mut out), Poll::Ready(Ok(3)));
    assert_eq!(&out[..3], b"old");
    assert_eq!(
        raw.host.poll_read(old, &mut cx(), &mut out),
        Poll::Ready(Ok(0)),
        "an orderly end, not an error"
    );
    assert!(raw.host.poll_read(new, &mut cx(), &mut out).is_pending());
}

#[test]
fn a_full_table_makes_room_by_dropping_streams_that_only_wait_for_their_reset() {
    let mut raw = Raw::new();
    let ids: Vec<_> = (0..VM_STREAMS_MAX as u32).map(|port| raw.open(port)).collect();
    let request = Raw::header(Operation::Request, 70_000);
    assert_eq!(raw.host.receive(&request, &[][..]), Received::Rejected(Violation::TooManyStreams));
    assert_eq!(raw.next(), Some((Operation::Reset, 0)));
    raw.host.close(ids[5]);
    assert_eq!(raw.next(), Some((Operation::Shutdown, 0)));
    assert!(matches!(raw.host.receive(&request, &[][..]), Received::Request(..)));
}

#[test]
fn replies_to_strangers_are_bounded_and_then_push_back() {
    let mut raw = Raw::new();
    for port in 0..STRAY_REPLIES_MAX as u32 {
        assert!(raw.host.accepts_packets());
        let stray = Header { len: 1, ..Raw::header(Operation::ReadWrite, port) };
        assert_eq!(raw.host.receive(&stray, &[0][..]), Received::Rejected(Violation::UnknownConnection));
    }
    assert!(!raw.host.accepts_packets());
    assert_eq!(raw.next(), Some((Operation::Reset, 0)));
    assert!(raw.host.accepts_packets());
}

#[test]
fn a_refused_packet_is_sent_again_whole() {
    let mut raw = Raw::new();
    let id = raw.open(9);
    assert_eq!(raw.host.poll_write(id, &mut cx(), b"once"), Poll::Ready(Ok(4)));
    assert_eq!(raw.host.transmit(100, |_, _| false), Transmitted::Refused);
    assert_eq!(raw.host.transmit(0, |_, _| true), Transmitted::NoRoom);
    assert_eq!(raw.next(), Some((Operation::ReadWrite, 4)));
}
