//! The driver's side of one split virtqueue (virtio 1.3, section 2.7), with EVENT_IDX.
//!
//! One descriptor a buffer, each at a fixed place in guest memory: descriptor `n` always points to
//! slot `n`, so that a chain's head is the slot's number and no allocator is needed. Knows nothing
//! of packets.

use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::memory::{AccessError, access};

const DESCRIPTOR_BYTES: u64 = 16;
const USED_ELEMENT_BYTES: u64 = 8;
const RING_HEADER_BYTES: u64 = 4;
/// `VIRTQ_DESC_F_WRITE` (2.7.5): the device writes the buffer.
const DESCRIPTOR_WRITE: u16 = 2;

/// Where a ring's parts lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) descriptors: GuestAddress,
    pub(super) available: GuestAddress,
    pub(super) used: GuestAddress,
}

impl Layout {
    /// The parts of a ring of `size` descriptors, one after the other from `start` (16-aligned).
    pub(super) fn at(start: u64, size: u16) -> Self {
        let size = u64::from(size);
        let available = start + DESCRIPTOR_BYTES * size;
        // flags, idx, ring, used_event
        let used = (available + RING_HEADER_BYTES + 2 * size + 2).next_multiple_of(4);
        Self {
            descriptors: GuestAddress(start),
            available: GuestAddress(available),
            used: GuestAddress(used),
        }
    }

    /// Bytes from the ring's start to its end, for a ring of `size` descriptors.
    pub(super) fn bytes(size: u16) -> u64 {
        let layout = Self::at(0, size);
        // flags, idx, ring, avail_event
        layout.used.0 + RING_HEADER_BYTES + USED_ELEMENT_BYTES * u64::from(size) + 2
    }
}

/// Who writes a ring's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    Driver,
    Device,
}

/// One ring, from the driver's side.
#[derive(Debug)]
pub(super) struct Ring {
    layout: Layout,
    size: u16,
    /// Next index to be made available, not yet published ones included.
    next_available: u16,
    published: u16,
    next_used: u16,
}

impl Ring {
    pub(super) fn new(layout: Layout, size: u16) -> Self {
        Self { layout, size, next_available: 0, published: 0, next_used: 0 }
    }

    /// Points descriptor `slot` to `bytes` bytes at `buffer`.
    pub(super) fn describe(
        &self,
        memory: &GuestMemoryMmap,
        slot: u16,
        buffer: GuestAddress,
        bytes: u32,
        writer: Writer,
    ) -> Result<(), AccessError> {
        let at = GuestAddress(self.layout.descriptors.0 + DESCRIPTOR_BYTES * u64::from(slot));
        let flags = if writer == Writer::Device { DESCRIPTOR_WRITE } else { 0 };
        let mut wire = [0; DESCRIPTOR_BYTES as usize];
        wire[0..8].copy_from_slice(&buffer.0.to_le_bytes());
        wire[8..12].copy_from_slice(&bytes.to_le_bytes());
        wire[12..14].copy_from_slice(&flags.to_le_bytes());
        access(memory.write_slice(&wire, at))
    }

    /// Offers descriptor `slot` to the device; [`publish`](Self::publish) makes it visible.
    pub(super) fn offer(&mut self, memory: &GuestMemoryMmap, slot: u16) -> Result<(), AccessError> {
        let place = u64::from(self.next_available % self.size);
        let at = GuestAddress(self.layout.available.0 + RING_HEADER_BYTES + 2 * place);
        access(memory.store(slot.to_le(), at, Ordering::Relaxed))?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(())
    }

    /// Makes everything offered visible. Whether the device wants a notification for it (2.7.10).
    pub(super) fn publish(&mut self, memory: &GuestMemoryMmap) -> Result<Published, AccessError> {
        if self.published == self.next_available {
            return Ok(Published::Nothing);
        }
        let index = GuestAddress(self.layout.available.0 + 2);
        access(memory.store(self.next_available.to_le(), index, Ordering::Release))?;
        // The index must be visible before the device's wish is read, or both sides may sleep.
        fence(Ordering::SeqCst);
        let wish_at = self.layout.used.0 + RING_HEADER_BYTES + USED_ELEMENT_BYTES * u64::from(self.size);
        let wish = u16::from_le(access(memory.load(GuestAddress(wish_at), Ordering::Relaxed))?);
        let (new, old) = (self.next_available, self.published);
        self.published = new;
        // vring_need_event(): has the index passed the one the device waits for?
        let wanted = new.wrapping_sub(wish).wrapping_sub(1) < new.wrapping_sub(old);
        Ok(if wanted { Published::Notify } else { Published::Suppressed })
    }

    /// The next descriptor the device has used, and how many bytes it wrote.
    pub(super) fn take_used(&mut self, memory: &GuestMemoryMmap) -> Result<Option<(u16, u32)>, AccessError> {
        if !self.has_used(memory)? {
            return Ok(None);
        }
        let place = u64::from(self.next_used % self.size);
        let at = self.layout.used.0 + RING_HEADER_BYTES + USED_ELEMENT_BYTES * place;
        let id = u32::from_le(access(memory.load(GuestAddress(at), Ordering::Relaxed))?);
        let bytes = u32::from_le(access(memory.load(GuestAddress(at + 4), Ordering::Relaxed))?);
        self.next_used = self.next_used.wrapping_add(1);
        match u16::try_from(id) {
            Ok(slot) if slot < self.size => Ok(Some((slot, bytes))),
            _ => Err(AccessError::UnknownDescriptor(id)),
        }
    }

    /// Whether the device has used a descriptor that was not yet taken.
    pub(super) fn has_used(&self, memory: &GuestMemoryMmap) -> Result<bool, AccessError> {
        let index = GuestAddress(self.layout.used.0 + 2);
        Ok(u16::from_le(access(memory.load::<u16>(index, Ordering::Acquire))?) != self.next_used)
    }

    /// Asks for a notification with the next used descriptor. Whether one is there already: then
    /// none may come, and the ring must be looked at again.
    pub(super) fn arm(&self, memory: &GuestMemoryMmap) -> Result<bool, AccessError> {
        self.set_used_event(memory, self.next_used)?;
        fence(Ordering::SeqCst);
        self.has_used(memory)
    }

    /// Asks for no notifications: the event is put just behind, a whole lap away.
    pub(super) fn disarm(&self, memory: &GuestMemoryMmap) -> Result<(), AccessError> {
        self.set_used_event(memory, self.next_used.wrapping_sub(1))
    }

    fn set_used_event(&self, memory: &GuestMemoryMmap, event: u16) -> Result<(), AccessError> {
        let at = self.layout.available.0 + RING_HEADER_BYTES + 2 * u64::from(self.size);
        access(memory.store(event.to_le(), GuestAddress(at), Ordering::Relaxed))
    }
}

/// What came of [`Ring::publish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    /// There was nothing to publish.
    Nothing,
    /// Visible, and the device sleeps until it is notified.
    Notify,
    /// Visible, and the device is looking anyway.
    Suppressed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(size: u16) -> (GuestMemoryMmap, Ring) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 16)]).unwrap();
        (memory, Ring::new(Layout::at(0, size), size))
    }

    fn use_descriptor(memory: &GuestMemoryMmap, ring: &Ring, index: u16, slot: u32) {
        let place = ring.layout.used.0 + 4 + 8 * u64::from(index % ring.size);
        memory.write_obj(slot, GuestAddress(place)).unwrap();
        memory.write_obj(7u32, GuestAddress(place + 4)).unwrap();
        memory.write_obj(index.wrapping_add(1), GuestAddress(ring.layout.used.0 + 2)).unwrap();
    }

    #[test]
    fn the_parts_of_a_ring_do_not_overlap_and_are_aligned() {
        for size in [1, 2, 64, 128, 256] {
            let layout = Layout::at(4096, size);
            assert_eq!(layout.descriptors.0 % 16, 0);
            assert_eq!(layout.available.0 % 2, 0);
            assert_eq!(layout.used.0 % 4, 0);
            assert!(layout.available.0 + 6 + 2 * u64::from(size) <= layout.used.0);
        }
    }

    #[test]
    fn a_device_that_waits_is_notified_once_and_one_that_looks_is_not() {
        let (memory, mut ring) = ring(4);
        assert_eq!(ring.publish(&memory).unwrap(), Published::Nothing);
        ring.offer(&memory, 0).unwrap();
        assert_eq!(ring.publish(&memory).unwrap(), Published::Notify);
        // avail_event is still 0: the device has not asked for the next one.
        ring.offer(&memory, 1).unwrap();
        assert_eq!(ring.publish(&memory).unwrap(), Published::Suppressed);
    }

    #[test]
    fn used_descriptors_come_back_in_order_across_the_wrap() {
        let (memory, mut ring) = ring(4);
        for index in 0..200_000u32 {
            assert_eq!(ring.take_used(&memory).unwrap(), None);
            use_descriptor(&memory, &ring, index as u16, index % 4);
            assert_eq!(ring.take_used(&memory).unwrap(), Some(((index % 4) as u16, 7)));
        }
    }

    #[test]
    fn a_descriptor_that_was_never_offered_is_an_error() {
        let (memory, mut ring) = ring(4);
        use_descriptor(&memory, &ring, 0, 4);
        assert!(matches!(ring.take_used(&memory), Err(AccessError::UnknownDescriptor(4))));
    }

    #[test]
    fn arming_says_when_it_came_too_late() {
        let (memory, ring) = ring(4);
        assert!(!ring.arm(&memory).unwrap());
        use_descriptor(&memory, &ring, 0, 0);
        assert!(ring.arm(&memory).unwrap());
    }
}
