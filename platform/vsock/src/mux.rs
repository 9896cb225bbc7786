//! The table of connections of one device, and the order in which their packets leave.
//!
//! Packets from the peer go in through [`Mux::receive`]; packets for the peer come out of
//! [`Mux::transmit`], one connection after the other, one packet a turn, so that no stream can
//! keep another from the ring. Streams are used by their owners through the `poll_*` functions of
//! `stream.rs`. Nothing here knows where packets travel.
//!
//! Bounded whatever the peer does: the table by [`MuxConfig::streams_max`], buffers by windows that
//! shrink as the table fills, the work list by one entry a connection, replies to strangers by
//! [`STRAY_REPLIES_MAX`] (then [`Mux::accepts_packets`] turns false until some have left).

use std::collections::{HashMap, VecDeque};
use std::task::Waker;

use vamos_proto::id::{GuestCid, VsockPort};

use crate::connection::{Connection, Payload, State, StreamError};
use crate::limits::{
    DEVICE_RECEIVE_BYTES_MAX, STRAY_REPLIES_MAX, STREAM_RECEIVE_BYTES_MAX, STREAM_RECEIVE_BYTES_MIN,
    VM_STREAMS_MAX,
};
use crate::protocol::{Header, Operation, TYPE_STREAM};

/// What a [`Mux`] is the end of.
#[derive(Debug, Clone, Copy)]
pub struct MuxConfig {
    /// This end.
    pub local: GuestCid,
    /// The only other end there is; packets from or to anybody else are forged.
    pub peer: GuestCid,
    /// Most connections in the table, at most [`VM_STREAMS_MAX`].
    pub streams_max: usize,
    /// Where both ends' byte counters begin: 0 on every real device; tests begin just before 2^32.
    pub counters_start: u32,
}

impl MuxConfig {
    /// `local` and `peer`, and the limits of `limits.rs`.
    pub fn new(local: GuestCid, peer: GuestCid) -> Self {
        Self { local, peer, streams_max: VM_STREAMS_MAX, counters_start: 0 }
    }
}

/// How the peer broke the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A CID that is not the peer's, or a destination that is not us. Dropped without an answer.
    #[error("forged source or foreign destination CID")]
    ForgedAddress,
    /// An unknown operation or socket type, flags or lengths that make no sense. Answered with RST.
    #[error("malformed packet")]
    Malformed,
    /// For no connection there is. Answered with RST.
    #[error("packet for an unknown connection")]
    UnknownConnection,
    /// More bytes than the peer had credit for. The connection is reset.
    #[error("payload beyond the advertised credit")]
    CreditExceeded,
    /// A packet that its connection's state does not allow. The connection is reset.
    #[error("packet out of order")]
    OutOfOrder,
    /// A REQUEST when the table is full. Answered with RST.
    #[error("too many streams")]
    TooManyStreams,
}

/// A stream in the table, for as long as its owner has not closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId(usize);

/// What came of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It was taken; owners that wait for it have been woken.
    Taken,
    /// The peer asks for a stream to `port`: [`Mux::accept`] it or [`Mux::close`] it.
    Request(StreamId, VsockPort),
    /// It was not taken.
    Rejected(Violation),
}

/// What came of [`Mux::transmit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transmitted {
    /// One packet was written, with so many bytes of payload.
    Packet(usize),
    /// Nothing fits: there is only payload to send, and no room for any.
    NoRoom,
    /// The writer refused; the packet is still to be sent.
    Refused,
}

/// Totals since the device began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MuxCounters {
    /// Packets from the peer, rejected ones included.
    pub packets_received: u64,
    /// Packets for the peer.
    pub packets_sent: u64,
    /// Payload from the peer, bytes.
    pub bytes_received: u64,
    /// Payload for the peer, bytes.
    pub bytes_sent: u64,
    /// Connections that were established.
    pub streams_opened: u64,
    /// Connections that ended with a RST that no orderly close called for.
    pub streams_reset: u64,
    /// Packets rejected.
    pub violations: u64,
}

/// Local port and peer port; the CIDs are the same for all.
pub(crate) type Ports = (VsockPort, VsockPort);

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) connection: Connection,
    pub(crate) ports: Ports,
    /// In `departing`.
    listed: bool,
    /// Somebody holds the [`StreamId`].
    pub(crate) owned: bool,
    /// In `by_ports`.
    wired: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Mux {
    pub(crate) config: MuxConfig,
    entries: Vec<Option<Entry>>,
    vacant: Vec<usize>,
    by_ports: HashMap<Ports, usize>,
    /// Connections that may have something to send; each at most once.
    departing: VecDeque<usize>,
    strays: VecDeque<Header>,
    /// Sum of all windows given out, bytes.
    windows_bytes: usize,
    /// Sum of all bytes written by owners and not yet sent.
    pub(crate) unsent_bytes: usize,
    pub(crate) next_local_port: u32,
    counters: MuxCounters,
    /// Connections that went on the wire or off it, ever.
    wire_changes: u64,
    /// Who carries packets, to be woken when there is one.
    carrier: Option<Waker>,
}

impl Mux {
    /// An empty table.
    pub fn new(config: MuxConfig) -> Self {
        Self {
            config: MuxConfig { streams_max: config.streams_max.min(VM_STREAMS_MAX), ..config },
            entries: Vec::new(),
            vacant: Vec::new(),
            by_ports: HashMap::new(),
            departing: VecDeque::new(),
            strays: VecDeque::new(),
            windows_bytes: 0,
            unsent_bytes: 0,
            next_local_port: 1 << 16,
            counters: MuxCounters::default(),
            wire_changes: 0,
            carrier: None,
        }
    }

    /// Totals so far.
    pub fn counters(&self) -> MuxCounters {
        self.counters
    }

    /// Connections on the wire.
    pub fn streams_open(&self) -> usize {
        self.by_ports.len()
    }

    /// Grows whenever [`Mux::wire`] changes.
    pub fn wire_changes(&self) -> u64 {
        self.wire_changes
    }

    /// Local and peer port of each connection on the wire, by its place in the table, of which there are at
    /// most [`VM_STREAMS_MAX`]. It is what a successor of this process has to [`Mux::disown`].
    pub fn wire(&self) -> impl Iterator<Item = Option<(VsockPort, VsockPort)>> + '_ {
        self.entries.iter().map(|entry| entry.as_ref().filter(|entry| entry.wired).map(|entry| entry.ports))
    }

    /// Sends RST for connections of a predecessor, which nobody knows any more. No packet is accepted until
    /// most of them have left.
    pub fn disown(&mut self, connections: impl IntoIterator<Item = (VsockPort, VsockPort)>) {
        for ports in connections {
            let reset = self.reset_for(ports);
            self.strays.push_back(reset);
        }
    }

    /// Whether replies that belong to no connection wait for the peer's buffers.
    pub fn has_strays(&self) -> bool {
        !self.strays.is_empty()
    }

    /// Wakes `carrier`, once, as soon as there is a packet to send.
    pub fn wake_when_departing(&mut self, carrier: &Waker) {
        if !self.carrier.as_ref().is_some_and(|known| known.will_wake(carrier)) {
            self.carrier = Some(carrier.clone());
        }
    }

    /// The carrier is at work and looks for packets itself: it need not be woken.
    pub fn carrier_is_at_work(&mut self) {
        self.carrier = None;
    }

    /// Bytes this table may come to hold for the peer: windows given out, and bytes not yet sent.
    pub fn committed_bytes(&self) -> usize {
        self.windows_bytes + self.unsent_bytes
    }

    // --- from the peer ---

    /// Whether [`Mux::receive`] may be called: not while too many replies to strangers wait.
    pub fn accepts_packets(&self) -> bool {
        self.strays.len() < STRAY_REPLIES_MAX
    }

    /// Takes one packet.
    pub fn receive(&mut self, header: &Header, payload: impl Payload) -> Received {
        self.counters.packets_received += 1;
        match self.dispatch(header, payload) {
            Ok(received) => received,
            Err(violation) => {
                self.counters.violations += 1;
                Received::Rejected(violation)
            }
        }
    }

    fn dispatch(&mut self, header: &Header, payload: impl Payload) -> Result<Received, Violation> {
        if header.src_cid != self.config.peer || header.dst_cid != self.config.local {
            return Err(Violation::ForgedAddress);
        }
        let operation = Operation::from_wire(header.op).filter(|_| header.socket_type == TYPE_STREAM);
        let known = self.by_ports.get(&(header.dst_port, header.src_port)).copied();
        match (known, operation) {
            (Some(slot), Some(operation)) => self.deliver(slot, operation, header, payload),
            (Some(slot), None) => {
                self.reset_slot(slot);
                Err(Violation::Malformed)
            }
            (None, Some(Operation::Request)) => self.requested(header),
            // Two ends that have both forgotten must not answer each other for ever.
            (None, Some(Operation::Reset)) => Ok(Received::Taken),
            (None, operation) => {
                self.strays.push_back(self.reply_to(header));
                Err(if operation.is_some() { Violation::UnknownConnection } else { Violation::Malformed })
            }
        }
    }

    fn deliver(
        &mut self,
        slot: usize,
        operation: Operation,
        header: &Header,
        payload: impl Payload,
    ) -> Result<Received, Violation> {
        let Some(entry) = self.entries[slot].as_mut() else { return Err(Violation::UnknownConnection) };
        let before = (entry.connection.state(), entry.connection.unsent_bytes());
        let outcome = entry.connection.receive(operation, header, payload);
        match outcome {
            Ok(()) if operation == Operation::ReadWrite => {
                self.counters.bytes_received += u64::from(header.len)
            }
            Ok(()) => {}
            Err(_) => entry.connection.reset(),
        }
        let state = entry.connection.state();
        self.unsent_bytes = self.unsent_bytes - before.1 + entry.connection.unsent_bytes();
        match (before.0, state) {
            (State::LocalRequested, State::Established) => self.counters.streams_opened += 1,
            (State::Established, State::PeerReset | State::LocalReset) => self.counters.streams_reset += 1,
            _ => {}
        }
        self.list(slot);
        self.settle(slot);
        outcome.map(|()| Received::Taken)
    }

    fn requested(&mut self, header: &Header) -> Result<Received, Violation> {
        if header.len != 0 {
            self.strays.push_back(self.reply_to(header));
            return Err(Violation::Malformed);
        }
        let Some(window) = self.admit() else {
            self.strays.push_back(self.reply_to(header));
            return Err(Violation::TooManyStreams);
        };
        let connection = Connection::from_peer(header, window, self.config.counters_start);
        let slot = self.insert(connection, (header.dst_port, header.src_port));
        Ok(Received::Request(StreamId(slot), header.dst_port))
    }

    fn reply_to(&self, header: &Header) -> Header {
        Header {
            src_cid: self.config.local,
            dst_cid: self.config.peer,
            src_port: header.dst_port,
            dst_port: header.src_port,
            len: 0,
            socket_type: header.socket_type,
            op: Operation::Reset as u16,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }

    // --- to the peer ---

    /// Whether [`Mux::transmit`] has something to send.
    pub fn has_departures(&mut self) -> bool {
        if !self.strays.is_empty() {
            return true;
        }
        while let Some(&slot) = self.departing.front() {
            match self.entries[slot].as_mut() {
                Some(entry) if entry.connection.has_departure() => return true,
                Some(entry) => entry.listed = false,
                None => {}
            }
            self.departing.pop_front();
        }
        false
    }

    /// Hands the next packet to `write`, with at most `room` bytes of payload. The packet counts
    /// as sent when `write` returns true. Call it only if [`Mux::has_departures`].
    pub fn transmit(&mut self, room: usize, write: impl FnOnce(&Header, &[u8]) -> bool) -> Transmitted {
        if let Some(stray) = self.strays.front() {
            if !write(stray, &[]) {
                return Transmitted::Refused;
            }
            self.strays.pop_front();
            self.counters.packets_sent += 1;
            return Transmitted::Packet(0);
        }
        let Some(&slot) = self.departing.front() else { return Transmitted::NoRoom };
        let Some(entry) = self.entries[slot].as_mut() else { return Transmitted::NoRoom };
        let Some(departure) = entry.connection.departure(room) else { return Transmitted::NoRoom };
        let mut header = Header {
            src_cid: self.config.local,
            dst_cid: self.config.peer,
            src_port: entry.ports.0,
            dst_port: entry.ports.1,
            len: departure.bytes as u32,
            socket_type: TYPE_STREAM,
            op: departure.operation as u16,
            flags: departure.flags,
            buf_alloc: 0,
            fwd_cnt: 0,
        };
        entry.connection.stamp(&mut header);
        if !write(&header, entry.connection.payload(&departure)) {
            return Transmitted::Refused;
        }
        entry.connection.departed(&departure);
        self.unsent_bytes -= departure.bytes;
        self.counters.packets_sent += 1;
        self.counters.bytes_sent += departure.bytes as u64;
        // Its turn is over: to the back, or off the list.
        self.departing.pop_front();
        entry.listed = false;
        self.list(slot);
        self.settle(slot);
        Transmitted::Packet(departure.bytes)
    }

    // --- the table ---

    /// Window for one more connection, or `None` if the table is full.
    fn admit(&mut self) -> Option<u32> {
        let live = self.entries.len() - self.vacant.len();
        if live >= self.config.streams_max && !self.evict() {
            return None;
        }
        // An eighth of what is left, so that the first streams get a full window and the last still get one.
        let left = DEVICE_RECEIVE_BYTES_MAX.saturating_sub(self.windows_bytes);
        Some(((left / 8) as u32).clamp(STREAM_RECEIVE_BYTES_MIN, STREAM_RECEIVE_BYTES_MAX))
    }

    /// Makes room by resetting a connection that only waits for its peer's RST.
    fn evict(&mut self) -> bool {
        let waits = |entry: &Option<Entry>| {
            entry
                .as_ref()
                .is_some_and(|entry| entry.wired && !entry.owned && entry.connection.awaits_only_reset())
        };
        let Some(slot) = self.entries.iter().position(waits) else { return false };
        let Some(entry) = self.entries[slot].as_mut() else { return false };
        entry.connection.lose();
        let ports = entry.ports;
        self.settle(slot);
        if self.strays.len() < STRAY_REPLIES_MAX {
            self.strays.push_back(self.reset_for(ports));
        }
        true
    }

    fn reset_for(&self, (local, peer): Ports) -> Header {
        Header {
            src_cid: self.config.local,
            dst_cid: self.config.peer,
            src_port: local,
            dst_port: peer,
            len: 0,
            socket_type: TYPE_STREAM,
            op: Operation::Reset as u16,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }

    pub(crate) fn insert(&mut self, connection: Connection, ports: Ports) -> usize {
        self.windows_bytes += connection.window_bytes() as usize;
        let entry = Entry { connection, ports, listed: false, owned: true, wired: true };
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.entries[slot] = Some(entry);
                slot
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() - 1
            }
        };
        self.by_ports.insert(ports, slot);
        self.wire_changes += 1;
        self.list(slot);
        slot
    }

    /// Puts a connection on the work list, and wakes the carrier if the list was empty.
    pub(crate) fn list(&mut self, slot: usize) {
        let Some(entry) = self.entries[slot].as_mut() else { return };
        if entry.listed || !entry.connection.has_departure() {
            return;
        }
        entry.listed = true;
        self.departing.push_back(slot);
        if let Some(carrier) = self.carrier.take() {
            carrier.wake();
        }
    }

    /// Frees what is no longer needed: the ports once off the wire, the slot once nobody owns it.
    pub(crate) fn settle(&mut self, slot: usize) {
        let Some(entry) = self.entries[slot].as_mut() else { return };
        if !entry.connection.off_the_wire() {
            return;
        }
        if entry.wired {
            entry.wired = false;
            self.by_ports.remove(&entry.ports);
            self.wire_changes += 1;
        }
        if !entry.owned {
            self.windows_bytes -= entry.connection.window_bytes() as usize;
            self.unsent_bytes -= entry.connection.unsent_bytes();
            if entry.listed {
                self.departing.retain(|&listed| listed != slot);
            }
            self.entries[slot] = None;
            self.vacant.push(slot);
        }
    }

    pub(crate) fn entry(&mut self, StreamId(slot): StreamId) -> Result<(usize, &mut Entry), StreamError> {
        let entry = self.entries.get_mut(slot).and_then(Option::as_mut).ok_or(StreamError::Reset)?;
        Ok((slot, entry))
    }

    /// Bytes received on a stream that its owner has not read.
    pub(crate) fn unread_bytes(&self, StreamId(slot): StreamId) -> usize {
        let entry = self.entries.get(slot).and_then(Option::as_ref);
        entry.map_or(0, |entry| entry.connection.unread_bytes())
    }

    fn reset_slot(&mut self, slot: usize) {
        let Some(entry) = self.entries[slot].as_mut() else { return };
        if entry.connection.state() == State::Established {
            self.counters.streams_reset += 1;
        }
        self.unsent_bytes -= entry.connection.unsent_bytes();
        entry.connection.reset();
        self.list(slot);
        self.settle(slot);
    }

    /// Accepts a stream the peer requested; RESPONSE leaves.
    pub fn accept(&mut self, id: StreamId) {
        let Ok((slot, entry)) = self.entry(id) else { return };
        if entry.connection.state() == State::PeerRequested {
            entry.connection.accept();
            self.counters.streams_opened += 1;
            self.list(slot);
        }
    }

    /// The peer is gone, or has forgotten everything: every stream ends, no packet leaves.
    pub fn lose_peer(&mut self) {
        self.strays.clear();
        for slot in 0..self.entries.len() {
            let Some(entry) = self.entries[slot].as_mut() else { continue };
            if entry.connection.state() == State::Established {
                self.counters.streams_reset += 1;
            }
            self.unsent_bytes -= entry.connection.unsent_bytes();
            entry.connection.lose();
            self.settle(slot);
        }
        self.departing.clear();
        for entry in self.entries.iter_mut().flatten() {
            entry.listed = false;
        }
    }

    /// Room for a connection from here, on a local port that is free.
    pub(crate) fn admit_local(&mut self, peer: VsockPort) -> Result<(u32, Ports), StreamError> {
        let window = self.admit().ok_or(StreamError::TooMany)?;
        loop {
            let local = VsockPort(self.next_local_port);
            // Ports below 1024 are for listeners, and the last one is VMADDR_PORT_ANY.
            self.next_local_port = if local.0 >= u32::MAX - 1 { 1 << 16 } else { local.0 + 1 };
            if !self.by_ports.contains_key(&(local, peer)) {
                return Ok((window, (local, peer)));
            }
        }
    }
}

impl StreamId {
    pub(crate) fn of(slot: usize) -> Self {
        Self(slot)
    }
}
