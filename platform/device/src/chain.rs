//! One descriptor chain, validated as a whole before a byte of it is used, and read or written once.
//!
//! This and `ring.rs` are the only places that touch guest memory. What leaves here is owned.

use bytes::BytesMut;
use vamos_vsock::protocol::HEADER_BYTES;
use vamos_vsock::{Header, Payload, PayloadError};
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

use crate::limits::CHAIN_DESCRIPTORS_MAX;
use crate::memory::Memory;

/// Who writes the buffers of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The driver has filled them (TX).
    FromGuest,
    /// We fill them (RX).
    ToGuest,
}

/// What is wrong with a chain (virtio 1.3, 2.7.5 and 2.7.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A cycle, an index beyond the table, a bad indirect table, or a chain over 4 GiB.
    #[error("chain ends before its last descriptor")]
    Truncated,
    /// More descriptors than any driver uses.
    #[error("too many descriptors")]
    TooLong,
    /// A descriptor of zero bytes.
    #[error("empty descriptor")]
    Empty,
    /// A device-writable descriptor among the driver's, or the other way round.
    #[error("descriptor of the wrong direction")]
    WrongDirection,
    /// Not, or not wholly, in guest memory.
    #[error("descriptor outside guest memory")]
    OutOfBounds,
    /// No room for a packet's header.
    #[error("chain shorter than a packet header")]
    NoHeader,
}

/// The buffers of one chain.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) head: u16,
    segments: Vec<(GuestAddress, u32)>,
    bytes: usize,
}

impl Chain {
    /// Reads the descriptors of `chain`, once, and checks every rule that can be checked.
    pub(crate) fn load(
        &mut self,
        memory: &Memory,
        mut chain: DescriptorChain<&Memory>,
        direction: Direction,
    ) -> Result<(), ChainError> {
        self.head = chain.head_index();
        self.segments.clear();
        self.bytes = 0;
        // The iterator ends the same way after a good last descriptor and after a fault: only a
        // last descriptor without a successor tells them apart.
        let mut complete = false;
        for descriptor in chain.by_ref() {
            if self.segments.len() == CHAIN_DESCRIPTORS_MAX {
                return Err(ChainError::TooLong);
            }
            if descriptor.is_write_only() != (direction == Direction::ToGuest) {
                return Err(ChainError::WrongDirection);
            }
            if descriptor.len() == 0 {
                return Err(ChainError::Empty);
            }
            let access = if direction == Direction::ToGuest { Permissions::Write } else { Permissions::Read };
            if !GuestMemory::check_range(memory, descriptor.addr(), descriptor.len() as usize, access) {
                return Err(ChainError::OutOfBounds);
            }
            self.segments.push((descriptor.addr(), descriptor.len()));
            self.bytes += descriptor.len() as usize;
            complete = !descriptor.has_next();
        }
        if !complete {
            return Err(ChainError::Truncated);
        }
        if self.bytes < HEADER_BYTES { Err(ChainError::NoHeader) } else { Ok(()) }
    }

    /// Bytes of payload that fit.
    pub(crate) fn room(&self) -> usize {
        self.bytes.saturating_sub(HEADER_BYTES)
    }

    /// Copies the packet's header out of guest memory.
    pub(crate) fn read_header(&self, memory: &Memory) -> Result<Header, PayloadError> {
        let mut wire = [0; HEADER_BYTES];
        self.for_each_piece(0, HEADER_BYTES, |address, range| {
            memory.read_slice(&mut wire[range], address).map_err(|_| PayloadError)
        })?;
        Ok(Header::decode(&wire))
    }

    /// The packet's payload, still in guest memory.
    pub(crate) fn payload<'a>(&'a self, memory: &'a Memory) -> ChainPayload<'a> {
        ChainPayload { chain: self, memory }
    }

    /// Writes a packet; the caller has kept to [`Chain::room`].
    pub(crate) fn write(&self, memory: &Memory, header: &Header, payload: &[u8]) -> Result<(), PayloadError> {
        let wire = header.encode();
        self.for_each_piece(0, HEADER_BYTES, |address, range| {
            memory.write_slice(&wire[range], address).map_err(|_| PayloadError)
        })?;
        self.for_each_piece(HEADER_BYTES, payload.len(), |address, range| {
            memory.write_slice(&payload[range], address).map_err(|_| PayloadError)
        })
    }

    /// Calls `act` for every contiguous piece of the `len` bytes from `skip` on, with where it is in
    /// guest memory and which part of the `len` bytes it is.
    fn for_each_piece(
        &self,
        skip: usize,
        len: usize,
        mut act: impl FnMut(GuestAddress, std::ops::Range<usize>) -> Result<(), PayloadError>,
    ) -> Result<(), PayloadError> {
        let (mut skip, mut done) = (skip, 0);
        for &(address, size) in &self.segments {
            if done == len {
                break;
            }
            let size = size as usize;
            if skip >= size {
                skip -= size;
                continue;
            }
            let piece = (size - skip).min(len - done);
            // Within a descriptor that was checked to be in guest memory: cannot overflow.
            act(GuestAddress(address.0 + skip as u64), done..done + piece)?;
            done += piece;
            skip = 0;
        }
        if done == len { Ok(()) } else { Err(PayloadError) }
    }
}

/// See [`Chain::payload`].
pub(crate) struct ChainPayload<'a> {
    chain: &'a Chain,
    memory: &'a Memory,
}

impl Payload for ChainPayload<'_> {
    fn append_to(self, out: &mut BytesMut, len: usize) -> Result<(), PayloadError> {
        if len > self.chain.room() {
            return Err(PayloadError);
        }
        let start = out.len();
        out.resize(start + len, 0);
        let copied = self.chain.for_each_piece(HEADER_BYTES, len, |address, range| {
            let into = &mut out[start + range.start..start + range.end];
            self.memory.read_slice(into, address).map_err(|_| PayloadError)
        });
        if copied.is_err() {
            out.truncate(start);
        }
        copied
    }
}
