//! The driver: moves packets between the rings and the table of connections, whoever calls it.

use std::io;

use bytes::BytesMut;
use vamos_proto::id::GuestCid;
use vamos_vsock::protocol::HEADER_BYTES;
use vamos_vsock::{Header, Mux, MuxConfig, Payload, PayloadError, Transmitted};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::Counters;
use super::front_end::Attachment;
use super::memory::{AccessError, Map, RECEIVE_SLOT_BYTES, access};
use super::ring::{Published, Ring, Writer};
use crate::limits::{RECEIVE_PAYLOAD_BYTES, RECEIVE_RING_SIZE, TRANSMIT_PAYLOAD_BYTES, TRANSMIT_RING_SIZE};

/// Rings, connections and notifications of one attached process guest.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) mux: Mux,
    pub(super) counters: Counters,
    attachment: Attachment,
    memory: GuestMemoryMmap,
    map: Map,
    receive: Ring,
    transmit: Ring,
    /// Transmit slots the device does not have; the last used is the first to be used again, it is in the cache.
    free: Vec<u16>,
    /// Why nothing moves any more.
    failed: Option<io::ErrorKind>,
}

impl Driver {
    /// Takes over an attached device and offers it all receive slots.
    pub(super) fn start(attachment: Attachment, memory: GuestMemoryMmap, map: Map) -> io::Result<Self> {
        let mut receive = Ring::new(map.receive_ring, RECEIVE_RING_SIZE);
        let transmit = Ring::new(map.transmit_ring, TRANSMIT_RING_SIZE);
        for slot in 0..RECEIVE_RING_SIZE {
            let bytes = (HEADER_BYTES + RECEIVE_PAYLOAD_BYTES) as u32;
            receive.describe(&memory, slot, map.receive_slot(slot), bytes, Writer::Device)?;
            receive.offer(&memory, slot)?;
        }
        let mux = Mux::new(MuxConfig::new(attachment.cid, GuestCid::HOST));
        let mut driver = Self {
            mux,
            counters: Counters::default(),
            attachment,
            memory,
            map,
            receive,
            transmit,
            free: (0..TRANSMIT_RING_SIZE).rev().collect(),
            failed: None,
        };
        driver.transmit.disarm(&driver.memory)?;
        driver.pump();
        Ok(driver)
    }

    /// Moves everything that can be moved, notifies the device at most once a ring and round, and
    /// leaves the rings armed. A failure ends every stream.
    pub(super) fn pump(&mut self) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.try_pump() {
            self.lose_device(error.kind());
        }
    }

    /// The device is gone: every stream ends.
    pub(super) fn lose_device(&mut self, kind: io::ErrorKind) {
        self.failed = Some(kind);
        self.mux.lose_peer();
    }

    /// Why streams can no longer be opened, if so.
    pub(super) fn failure(&self) -> Option<io::ErrorKind> {
        self.failed
    }

    fn try_pump(&mut self) -> io::Result<()> {
        loop {
            self.take_packets()?;
            self.send_packets()?;
            self.notify()?;
            let more = self.receive.arm(&self.memory)?;
            // Only a full ring waits for the device: otherwise used slots are collected in passing.
            let room = if self.mux.has_departures() { self.transmit.arm(&self.memory)? } else { false };
            if !more && !room {
                return Ok(());
            }
        }
    }

    fn take_packets(&mut self) -> io::Result<()> {
        while let Some((slot, bytes)) = self.receive.take_used(&self.memory)? {
            let at = self.map.receive_slot(slot);
            let Some(payload) =
                (bytes as usize).checked_sub(HEADER_BYTES).filter(|_| u64::from(bytes) <= RECEIVE_SLOT_BYTES)
            else {
                return Err(AccessError::Packet(bytes).into());
            };
            let mut wire = [0; HEADER_BYTES];
            access(self.memory.read_slice(&mut wire, at))?;
            let start = GuestAddress(at.0 + HEADER_BYTES as u64);
            self.mux.receive(&Header::decode(&wire), InSlot { memory: &self.memory, start, bytes: payload });
            self.receive.offer(&self.memory, slot)?;
        }
        Ok(())
    }

    fn send_packets(&mut self) -> io::Result<()> {
        while let Some((slot, _)) = self.transmit.take_used(&self.memory)? {
            self.free.push(slot);
        }
        while self.mux.has_departures() {
            let Some(slot) = self.free.pop() else { return Ok(()) };
            let at = self.map.transmit_slot(slot);
            let memory = &self.memory;
            let mut outcome = Ok(());
            let sent = self.mux.transmit(TRANSMIT_PAYLOAD_BYTES, |header, payload| {
                outcome = write_packet(memory, at, header, payload);
                outcome.is_ok()
            });
            outcome?;
            let Transmitted::Packet(payload) = sent else {
                self.free.push(slot);
                return Ok(());
            };
            self.transmit.describe(memory, slot, at, (HEADER_BYTES + payload) as u32, Writer::Driver)?;
            self.transmit.offer(memory, slot)?;
        }
        self.transmit.disarm(&self.memory)?;
        Ok(())
    }

    fn notify(&mut self) -> io::Result<()> {
        let rings =
            [(&mut self.receive, &self.attachment.receive), (&mut self.transmit, &self.attachment.transmit)];
        for (ring, events) in rings {
            match ring.publish(&self.memory)? {
                Published::Nothing => {}
                Published::Suppressed => self.counters.kicks_suppressed += 1,
                Published::Notify => {
                    self.counters.kicks_sent += 1;
                    events.kick.write(1)?;
                }
            }
        }
        Ok(())
    }
}

fn write_packet(
    memory: &GuestMemoryMmap,
    at: GuestAddress,
    header: &Header,
    payload: &[u8],
) -> Result<(), AccessError> {
    access(memory.write_slice(&header.encode(), at))?;
    access(memory.write_slice(payload, GuestAddress(at.0 + HEADER_BYTES as u64)))
}

/// A received packet's payload, still in its slot.
struct InSlot<'a> {
    memory: &'a GuestMemoryMmap,
    start: GuestAddress,
    bytes: usize,
}

impl Payload for InSlot<'_> {
    fn append_to(self, out: &mut BytesMut, len: usize) -> Result<(), PayloadError> {
        if len > self.bytes {
            return Err(PayloadError);
        }
        let before = out.len();
        out.resize(before + len, 0);
        self.memory.read_slice(&mut out[before..], self.start).map_err(|_| {
            out.truncate(before);
            PayloadError
        })
    }
}
