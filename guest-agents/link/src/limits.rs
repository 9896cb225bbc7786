//! Every limit of the guest's end of a channel, unit and MAX last.

/// Descriptors of a process guest's receive ring: as many packets as the device can have on the way.
pub const RECEIVE_RING_SIZE: u16 = 128;

/// Descriptors of a process guest's transmit ring.
pub const TRANSMIT_RING_SIZE: u16 = 64;

/// Largest payload a process guest takes in one packet, bytes.
pub const RECEIVE_PAYLOAD_BYTES: usize = 16 << 10;

/// Largest payload a process guest sends in one packet, bytes.
pub const TRANSMIT_PAYLOAD_BYTES: usize = 64 << 10;
