//! Every limit of a process guest, unit and MAX last.

/// Entries of the transmit and of the receive ring: packets in flight one way.
pub const RING_ENTRIES: u16 = 128;

/// Largest payload of one packet, bytes: a row block of 64 KiB travels in four.
pub const PACKET_PAYLOAD_BYTES_MAX: usize = 16 << 10;

/// Most packets taken from the ring before the tasks they are for get the thread.
pub const BATCH_PACKETS_MAX: usize = RING_ENTRIES as usize;
