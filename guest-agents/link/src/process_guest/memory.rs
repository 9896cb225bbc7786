//! The memory of a process guest: one memfd that holds both rings and their buffers.

use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::ring::Layout;
use crate::limits::{RECEIVE_PAYLOAD_BYTES, RECEIVE_RING_SIZE, TRANSMIT_PAYLOAD_BYTES, TRANSMIT_RING_SIZE};

/// Room for a packet's header in each slot, bytes; more than it needs, so that payloads are aligned.
const SLOT_HEADER_BYTES: u64 = 64;

/// Bytes of one slot of the receive ring.
pub(super) const RECEIVE_SLOT_BYTES: u64 = SLOT_HEADER_BYTES + RECEIVE_PAYLOAD_BYTES as u64;

/// Bytes of one slot of the transmit ring.
pub(super) const TRANSMIT_SLOT_BYTES: u64 = SLOT_HEADER_BYTES + TRANSMIT_PAYLOAD_BYTES as u64;

const PAGE_BYTES: u64 = 4096;

/// The guest's memory cannot be used as laid out; the device wrote what makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccessError {
    #[error("reach guest memory")]
    Memory(#[source] GuestMemoryError),
    #[error("device used descriptor {0}, which does not exist")]
    UnknownDescriptor(u32),
    #[error("device wrote {0} bytes, which is no packet")]
    Packet(u32),
}

impl From<AccessError> for io::Error {
    fn from(error: AccessError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Turns an access's outcome into ours.
pub(super) fn access<T>(outcome: Result<T, GuestMemoryError>) -> Result<T, AccessError> {
    outcome.map_err(AccessError::Memory)
}

/// Where everything lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map {
    pub(super) receive_ring: Layout,
    pub(super) transmit_ring: Layout,
    receive_slots: u64,
    transmit_slots: u64,
    bytes: u64,
}

impl Map {
    pub(super) fn new() -> Self {
        let transmit_ring = Layout::bytes(RECEIVE_RING_SIZE).next_multiple_of(PAGE_BYTES);
        let receive_slots = (transmit_ring + Layout::bytes(TRANSMIT_RING_SIZE)).next_multiple_of(PAGE_BYTES);
        let transmit_slots = receive_slots + RECEIVE_SLOT_BYTES * u64::from(RECEIVE_RING_SIZE);
        let bytes = transmit_slots + TRANSMIT_SLOT_BYTES * u64::from(TRANSMIT_RING_SIZE);
        Self {
            receive_ring: Layout::at(0, RECEIVE_RING_SIZE),
            transmit_ring: Layout::at(transmit_ring, TRANSMIT_RING_SIZE),
            receive_slots,
            transmit_slots,
            bytes: bytes.next_multiple_of(PAGE_BYTES),
        }
    }

    pub(super) fn receive_slot(&self, slot: u16) -> GuestAddress {
        GuestAddress(self.receive_slots + RECEIVE_SLOT_BYTES * u64::from(slot))
    }

    pub(super) fn transmit_slot(&self, slot: u16) -> GuestAddress {
        GuestAddress(self.transmit_slots + TRANSMIT_SLOT_BYTES * u64::from(slot))
    }

    /// Memory of the map's size, sealed so that nobody can truncate it under the cell.
    pub(super) fn allocate(&self) -> io::Result<GuestMemoryMmap> {
        let memfd =
            rustix::fs::memfd_create("vamos-process-guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&memfd, self.bytes)?;
        rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let range = (GuestAddress(0), self.bytes as usize, Some(FileOffset::new(File::from(memfd), 0)));
        GuestMemoryMmap::from_ranges_with_files([range]).map_err(io::Error::other)
    }
}
