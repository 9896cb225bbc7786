//! `ring_and_packet`: what a guest's kernel can do to the device.
//!
//! An input's first byte chooses. Even: the rest writes rings and packets into guest memory (an address of
//! two bytes, a length, so many bytes, and again), and the device's own code serves it. Odd: the rest is a
//! play of packets and of what the streams' owners do, on the table of
//! connections alone, against a model. What must hold there: the table and its buffers stay within their
//! limits; an owner reads exactly the bytes that were taken from the peer, in order; no packet carries
//! more than the peer has credit for; every packet leaves with our address and a length that is true.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll, Waker};

use vamos_device::fuzz::MEMORY_BYTES;
use vamos_proto::id::{GuestCid, VsockPort};
use vamos_vsock::limits::{DEVICE_RECEIVE_BYTES_MAX, DEVICE_SEND_BYTES_MAX, STREAM_SEND_BYTES_MAX};
use vamos_vsock::protocol::{HEADER_BYTES, TYPE_STREAM};
use vamos_vsock::{Header, Mux, MuxConfig, Operation, Received, StreamId, Transmitted};

/// Streams of the play's table: few, so that the table fills.
const STREAMS: usize = 4;

/// Serves `input` as guest memory or plays it as packets.
pub fn run(input: &[u8]) {
    match input.split_first() {
        Some((choice, memory)) if choice % 2 == 0 => vamos_device::fuzz::rings(&written(memory)),
        Some((_, script)) => Play::new().run(script),
        None => {}
    }
}

/// Guest memory after these writes.
fn written(mut writes: &[u8]) -> Vec<u8> {
    let mut memory = vec![0; MEMORY_BYTES];
    while let Some((&[low, high, length], rest)) = writes.split_first_chunk::<3>() {
        let (bytes, rest) = rest.split_at(usize::from(length).min(rest.len()));
        let at = usize::from(u16::from_le_bytes([low, high]));
        let end = (at + bytes.len()).min(MEMORY_BYTES);
        memory[at..end].copy_from_slice(&bytes[..end - at]);
        writes = rest;
    }
    memory
}

/// What the model knows of the peer's side of a connection.
#[derive(Debug, Default)]
struct Peer {
    /// The stream at this end, until its owner lets go of it.
    stream: Option<StreamId>,
    buf_alloc: u32,
    fwd_cnt: u32,
    sent_to_it: u32,
}

/// The table, and the model of what it should do.
struct Play {
    mux: Mux,
    /// Streams an owner holds, with the bytes it has yet to read.
    owned: Vec<(StreamId, VecDeque<u8>)>,
    peers: HashMap<(VsockPort, VsockPort), Peer>,
    next_byte: u8,
}

impl Play {
    fn new() -> Self {
        let mut config = MuxConfig::new(GuestCid::HOST, GuestCid::FIRST);
        config.streams_max = STREAMS;
        Self { mux: Mux::new(config), owned: Vec::new(), peers: HashMap::new(), next_byte: 0 }
    }

    /// Steps of four bytes: what, which, and two for an amount; packets bring more.
    fn run(&mut self, mut script: &[u8]) {
        while let Some((&[what, which, low, high], rest)) = script.split_first_chunk::<4>() {
            script = rest;
            let amount = usize::from(u16::from_le_bytes([low, high]));
            match what % 8 {
                0 | 1 => {
                    let Some((fields, rest)) = script.split_first_chunk::<10>() else { return };
                    script = rest;
                    self.receive(&packet(which, amount as u32, fields));
                }
                2 => {
                    let Some((wire, rest)) = script.split_first_chunk::<HEADER_BYTES>() else { return };
                    script = rest;
                    let header = Header::decode(wire);
                    assert_eq!(&header.encode(), wire, "every header survives being written");
                    self.receive(&header);
                }
                3 => self.read(which, amount),
                4 => self.write(which, amount),
                5 => self.let_go(which, amount % 2 == 0),
                _ => self.transmit(usize::from(which % 16), amount),
            }
            assert!(self.mux.streams_open() <= STREAMS);
            let bound = DEVICE_RECEIVE_BYTES_MAX + DEVICE_SEND_BYTES_MAX + STREAMS * STREAM_SEND_BYTES_MAX;
            assert!(self.mux.committed_bytes() <= bound);
        }
    }

    fn receive(&mut self, header: &Header) {
        if !self.mux.accepts_packets() {
            self.transmit(usize::MAX, 0);
        }
        let payload: Vec<u8> =
            (0..header.len.min(1 << 17)).map(|at| self.next_byte.wrapping_add(at as u8)).collect();
        let ports = (header.dst_port, header.src_port);
        let received = self.mux.receive(header, payload.as_slice());
        match received {
            Received::Request(id, port) => {
                assert_eq!(port, header.dst_port);
                self.peers.insert(ports, Peer { stream: Some(id), ..Peer::default() });
                // A slot that is given again belongs to nobody any more.
                assert!(self.owned.iter().all(|(owned, _)| *owned != id), "a stream has one owner");
                self.owned.push((id, VecDeque::new()));
                if header.src_port.0 % 5 != 4 {
                    self.mux.accept(id);
                }
            }
            Received::Taken if header.op == Operation::ReadWrite as u16 => {
                assert_eq!(payload.len(), header.len as usize, "what was not there cannot be taken");
                self.next_byte = self.next_byte.wrapping_add(payload.len() as u8);
                let stream = self.peers.get(&ports).and_then(|peer| peer.stream);
                if let Some((_, unread)) = self.owned.iter_mut().find(|(owned, _)| Some(*owned) == stream) {
                    unread.extend(payload);
                }
            }
            Received::Taken | Received::Rejected(_) => {}
        }
        if header.src_cid == GuestCid::FIRST
            && let Some(peer) = self.peers.get_mut(&ports)
        {
            (peer.buf_alloc, peer.fwd_cnt) = (header.buf_alloc, header.fwd_cnt);
        }
    }

    fn read(&mut self, which: u8, amount: usize) {
        let Some(at) = usize::from(which).checked_rem(self.owned.len()) else { return };
        let (id, unread) = &mut self.owned[at];
        let mut out = vec![0; amount.max(1)];
        match self.mux.poll_read(*id, &mut Context::from_waker(Waker::noop()), &mut out) {
            Poll::Ready(Ok(0)) => assert!(unread.is_empty(), "the end came before {} bytes", unread.len()),
            Poll::Ready(Ok(count)) => {
                let expected: Vec<u8> = unread.drain(..count.min(unread.len())).collect();
                assert_eq!(&out[..count], &expected, "the owner reads what the peer sent");
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => assert!(unread.is_empty(), "{} bytes wait and cannot be read", unread.len()),
        }
    }

    fn write(&mut self, which: u8, amount: usize) {
        let Some(at) = usize::from(which).checked_rem(self.owned.len()) else { return };
        let bytes = vec![which; amount.max(1)];
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(taken)) = self.mux.poll_write(self.owned[at].0, &mut cx, &bytes) {
            assert!((1..=bytes.len()).contains(&taken));
        }
    }

    fn let_go(&mut self, which: u8, close: bool) {
        let Some(at) = usize::from(which).checked_rem(self.owned.len()) else { return };
        if close {
            let (id, _) = self.owned.swap_remove(at);
            self.peers
                .values_mut()
                .filter(|peer| peer.stream == Some(id))
                .for_each(|peer| peer.stream = None);
            self.mux.close(id);
        } else {
            let _ = self.mux.poll_shutdown(self.owned[at].0, &mut Context::from_waker(Waker::noop()));
        }
    }

    fn transmit(&mut self, packets: usize, room: usize) {
        let mut sent = 0;
        while sent < packets && self.mux.has_departures() {
            let peers = &mut self.peers;
            let transmitted = self.mux.transmit(room, |header, payload| {
                assert_eq!((header.src_cid, header.dst_cid), (GuestCid::HOST, GuestCid::FIRST));
                assert!(Operation::from_wire(header.op).is_some());
                assert!(payload.len() == header.len as usize && payload.len() <= room);
                if !payload.is_empty() {
                    let peer =
                        peers.get_mut(&(header.src_port, header.dst_port)).expect("payload for a known peer");
                    let credit = peer.buf_alloc.saturating_sub(peer.sent_to_it.wrapping_sub(peer.fwd_cnt));
                    assert!(header.len <= credit, "{} bytes for a credit of {credit}", header.len);
                    peer.sent_to_it = peer.sent_to_it.wrapping_add(header.len);
                }
                true
            });
            if transmitted == Transmitted::NoRoom {
                return;
            }
            sent += 1;
        }
    }
}

/// A packet of a peer that keeps to the form: few ports, so that packets meet.
fn packet(which: u8, len: u32, fields: &[u8; 10]) -> Header {
    let word = |at: usize| u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
    let op = u16::from(fields[0] % 9);
    Header {
        src_cid: GuestCid::FIRST,
        dst_cid: GuestCid::HOST,
        src_port: VsockPort(u32::from(which % 8)),
        dst_port: VsockPort(1024),
        len: if op == Operation::ReadWrite as u16 { len } else { 0 },
        socket_type: TYPE_STREAM,
        op,
        flags: u32::from(fields[1] % 4),
        buf_alloc: word(2),
        fwd_cnt: word(6),
    }
}
