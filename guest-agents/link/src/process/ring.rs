//! The driver's side of a split virtqueue (virtio 1.3, section 2.7), with EVENT_IDX.
//!
//! Slot `n` has one descriptor and one packet buffer, for ever; so a head is a slot, and chains are
//! one descriptor long.

use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_DESC_F_WRITE;

use super::memory::SharedMemory;
use crate::limits::{PACKET_PAYLOAD_BYTES_MAX, RING_ENTRIES};
use vamos_vsock::protocol::HEADER_BYTES;

const ENTRIES: usize = RING_ENTRIES as usize;
const DESCRIPTOR_BYTES: usize = 16;

/// Bytes of one packet buffer: a cache line's multiple.
pub(crate) const BUFFER_BYTES: usize = (HEADER_BYTES + PACKET_PAYLOAD_BYTES_MAX).next_multiple_of(64);

/// The guest address at which the memory begins: not 0, which means "none" to many a device.
pub(crate) const GUEST_BASE: u64 = 0x10_0000;

/// Where the parts of a ring are, offsets into the guest's memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Descriptor table.
    pub(crate) descriptors: usize,
    /// Available ring: flags, index, entries, used_event.
    pub(crate) available: usize,
    /// Used ring: flags, index, entries of 8 bytes, avail_event.
    pub(crate) used: usize,
    buffers: usize,
}

impl Layout {
    /// Bytes of the ring's own parts, without the buffers.
    const CONTROL_BYTES: usize = ENTRIES * DESCRIPTOR_BYTES
        + (6 + 2 * ENTRIES).next_multiple_of(64)
        + (6 + 8 * ENTRIES).next_multiple_of(64);

    /// Bytes of guest memory that `rings` rings and their buffers need.
    pub(crate) const fn total(rings: usize) -> usize {
        (rings * (Self::CONTROL_BYTES.next_multiple_of(64) + ENTRIES * BUFFER_BYTES)).next_multiple_of(4096)
    }

    /// Ring number `index` of `rings`. All control parts come first, together in a few pages.
    pub(crate) fn of(index: usize, rings: usize) -> Self {
        let control = Self::CONTROL_BYTES.next_multiple_of(64);
        let descriptors = index * control;
        let available = descriptors + ENTRIES * DESCRIPTOR_BYTES;
        let used = available + (6 + 2 * ENTRIES).next_multiple_of(64);
        Self { descriptors, available, used, buffers: rings * control + index * ENTRIES * BUFFER_BYTES }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct DriverRing {
    layout: Layout,
    /// The device writes the buffers.
    receive: bool,
    free: Vec<u16>,
    /// Slots the device has, a bit each.
    lent: [u64; ENTRIES.div_ceil(64)],
    /// Our available index; what the device sees is what was last exposed.
    next_available: u16,
    /// The available index when it was last decided whether to kick.
    told: u16,
    last_used: u16,
}

/// The device returned a slot it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadUsed;

impl DriverRing {
    pub(crate) fn new(layout: Layout, receive: bool) -> Self {
        Self {
            layout,
            receive,
            // The lowest slot is used first and again: it stays in the cache.
            free: (0..RING_ENTRIES).rev().collect(),
            lent: [0; ENTRIES.div_ceil(64)],
            next_available: 0,
            told: 0,
            last_used: 0,
        }
    }

    /// Offset of a slot's buffer.
    pub(crate) fn buffer(&self, slot: u16) -> usize {
        self.layout.buffers + usize::from(slot) * BUFFER_BYTES
    }

    /// A slot that the device does not have.
    pub(crate) fn take_slot(&mut self) -> Option<u16> {
        self.free.pop()
    }

    /// Puts an unused slot back.
    pub(crate) fn put_back(&mut self, slot: u16) {
        self.free.push(slot);
    }

    /// Makes `slot` available with `bytes` of its buffer. The device sees it after [`DriverRing::expose`].
    pub(crate) fn offer(&mut self, memory: &SharedMemory, slot: u16, bytes: usize) {
        let flags = if self.receive { VRING_DESC_F_WRITE as u16 } else { 0 };
        let mut descriptor = [0; DESCRIPTOR_BYTES];
        descriptor[0..8].copy_from_slice(&(GUEST_BASE + self.buffer(slot) as u64).to_le_bytes());
        descriptor[8..12].copy_from_slice(&(bytes as u32).to_le_bytes());
        descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
        memory.write(self.layout.descriptors + usize::from(slot) * DESCRIPTOR_BYTES, &descriptor);
        let entry = self.layout.available + 4 + 2 * (usize::from(self.next_available) % ENTRIES);
        memory.store(entry, slot, Ordering::Relaxed);
        self.lent[usize::from(slot / 64)] |= 1 << (slot % 64);
        self.next_available = self.next_available.wrapping_add(1);
    }

    /// Shows the device everything offered so far.
    pub(crate) fn expose(&self, memory: &SharedMemory) {
        memory.store(self.layout.available + 2, self.next_available, Ordering::Release);
    }

    /// Whether the device wants a kick for what has been exposed since the last call; `None` if
    /// nothing has.
    pub(crate) fn wants_kick(&mut self, memory: &SharedMemory) -> Option<bool> {
        if self.told == self.next_available {
            return None;
        }
        // What was exposed must be visible before the device's wish is read (2.7.13.4.1).
        fence(Ordering::SeqCst);
        let event = memory.load(self.layout.used + 4 + 8 * ENTRIES, Ordering::Relaxed);
        let wanted = self.next_available.wrapping_sub(event).wrapping_sub(1)
            < self.next_available.wrapping_sub(self.told);
        self.told = self.next_available;
        Some(wanted)
    }

    /// Whether the device has returned something.
    pub(crate) fn has_used(&self, memory: &SharedMemory) -> bool {
        memory.load(self.layout.used + 2, Ordering::Acquire) != self.last_used
    }

    /// The next slot the device has returned, and how many bytes it wrote.
    pub(crate) fn pop_used(&mut self, memory: &SharedMemory) -> Result<Option<(u16, usize)>, BadUsed> {
        if !self.has_used(memory) {
            return Ok(None);
        }
        let entry = self.layout.used + 4 + 8 * (usize::from(self.last_used) % ENTRIES);
        let element = memory.read::<8>(entry);
        let id = u32::from_le_bytes([element[0], element[1], element[2], element[3]]);
        let bytes = u32::from_le_bytes([element[4], element[5], element[6], element[7]]) as usize;
        let slot = u16::try_from(id).ok().filter(|slot| *slot < RING_ENTRIES).ok_or(BadUsed)?;
        let (word, bit) = (usize::from(slot / 64), 1u64 << (slot % 64));
        if self.lent[word] & bit == 0 || bytes > BUFFER_BYTES {
            return Err(BadUsed);
        }
        self.lent[word] &= !bit;
        self.last_used = self.last_used.wrapping_add(1);
        Ok(Some((slot, bytes)))
    }

    /// Takes back every slot the device has returned.
    pub(crate) fn reclaim(&mut self, memory: &SharedMemory) -> Result<(), BadUsed> {
        while let Some((slot, _)) = self.pop_used(memory)? {
            self.free.push(slot);
        }
        Ok(())
    }

    /// Asks for an interrupt once `more` further slots are returned; true if they already are.
    pub(crate) fn ask_for_call(&self, memory: &SharedMemory, more: u16) -> bool {
        let event = self.last_used.wrapping_add(more).wrapping_sub(1);
        memory.store(self.layout.available + 4 + 2 * ENTRIES, event, Ordering::Relaxed);
        // The wish must be visible before the index is read (2.7.7.1).
        fence(Ordering::SeqCst);
        let returned = memory.load(self.layout.used + 2, Ordering::Acquire).wrapping_sub(self.last_used);
        returned >= more
    }

    /// Asks for no interrupt: for one half the index space away, further than can be in flight.
    /// (One just behind would lie within a batch that the device has not told of yet.)
    pub(crate) fn ask_for_no_call(&self, memory: &SharedMemory) {
        let event = self.last_used.wrapping_add(1 << 15);
        memory.store(self.layout.available + 4 + 2 * ENTRIES, event, Ordering::Relaxed);
    }

    /// Slots the device has.
    pub(crate) fn lent_slots(&self) -> u16 {
        RING_ENTRIES - self.free.len() as u16
    }
}
