//! virtio-vsock on the wire: virtio 1.3, section 5.10 "Socket Device". No meaning is given to a
//! field here beyond its place and its names.

use vamos_proto::id::{GuestCid, VsockPort};

/// Bytes of `struct virtio_vsock_hdr` (5.10.6); packed, little-endian.
pub const HEADER_BYTES: usize = 44;

/// `VIRTIO_VSOCK_TYPE_STREAM` (5.10.6): the only socket type offered.
pub const TYPE_STREAM: u16 = 1;

/// `VIRTIO_VSOCK_TYPE_SEQPACKET` (5.10.6): needs a feature that is never offered.
pub const TYPE_SEQPACKET: u16 = 2;

/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE` (5.10.6.5): the sender will not receive any more.
pub const SHUTDOWN_RECEIVE: u32 = 1;

/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND` (5.10.6.5): the sender will not send any more.
pub const SHUTDOWN_SEND: u32 = 2;

/// Virtqueue numbers (5.10.2), named from the driver's side.
pub const QUEUE_RX: usize = 0;
/// See [`QUEUE_RX`].
pub const QUEUE_TX: usize = 1;
/// See [`QUEUE_RX`].
pub const QUEUE_EVENT: usize = 2;
/// How many virtqueues the device has.
pub const QUEUES: usize = 3;

/// Bytes of `struct virtio_vsock_config` (5.10.4): the guest's CID, `le64`.
pub const CONFIG_BYTES: usize = 8;

/// What a packet does (5.10.6): `enum virtio_vsock_op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    /// Connect.
    Request = 1,
    /// Accepted.
    Response = 2,
    /// Refused, or gone.
    Reset = 3,
    /// No more in one direction, or both.
    Shutdown = 4,
    /// Payload.
    ReadWrite = 5,
    /// `buf_alloc` and `fwd_cnt`, and nothing else.
    CreditUpdate = 6,
    /// Asks for a [`Operation::CreditUpdate`].
    CreditRequest = 7,
}

impl Operation {
    /// The operation a number stands for; 0 (`VIRTIO_VSOCK_OP_INVALID`) and 8 and above are none.
    pub fn from_wire(op: u16) -> Option<Self> {
        Some(match op {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::ReadWrite,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// A packet's header, owned: what it says cannot change after it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Who sent it.
    pub src_cid: GuestCid,
    /// For whom.
    pub dst_cid: GuestCid,
    /// The sender's port.
    pub src_port: VsockPort,
    /// The receiver's port.
    pub dst_port: VsockPort,
    /// Payload, bytes.
    pub len: u32,
    /// Socket type, `type` on the wire: [`TYPE_STREAM`] or something unknown.
    pub socket_type: u16,
    /// See [`Operation`]; kept as a number because a peer may send any.
    pub op: u16,
    /// For SHUTDOWN: [`SHUTDOWN_RECEIVE`] and [`SHUTDOWN_SEND`].
    pub flags: u32,
    /// Bytes the sender keeps for receiving on this connection.
    pub buf_alloc: u32,
    /// Bytes the sender's owner has consumed on this connection so far, wrapping.
    pub fwd_cnt: u32,
}

impl Header {
    /// The header as it travels.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut wire = [0; HEADER_BYTES];
        wire[0..8].copy_from_slice(&self.src_cid.0.to_le_bytes());
        wire[8..16].copy_from_slice(&self.dst_cid.0.to_le_bytes());
        wire[16..20].copy_from_slice(&self.src_port.0.to_le_bytes());
        wire[20..24].copy_from_slice(&self.dst_port.0.to_le_bytes());
        wire[24..28].copy_from_slice(&self.len.to_le_bytes());
        wire[28..30].copy_from_slice(&self.socket_type.to_le_bytes());
        wire[30..32].copy_from_slice(&self.op.to_le_bytes());
        wire[32..36].copy_from_slice(&self.flags.to_le_bytes());
        wire[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        wire[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        wire
    }

    /// Reads a header; every bit pattern is one.
    pub fn decode(wire: &[u8; HEADER_BYTES]) -> Self {
        let half = |at: usize| u16::from_le_bytes([wire[at], wire[at + 1]]);
        let word = |at: usize| u32::from_le_bytes([wire[at], wire[at + 1], wire[at + 2], wire[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            src_cid: GuestCid(long(0)),
            dst_cid: GuestCid(long(8)),
            src_port: VsockPort(word(16)),
            dst_port: VsockPort(word(20)),
            len: word(24),
            socket_type: half(28),
            op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        }
    }
}

const _: () = assert!(8 + 8 + 4 + 4 + 4 + 2 + 2 + 4 + 4 + 4 == HEADER_BYTES);
const _: () = assert!(CONFIG_BYTES == size_of::<GuestCid>());

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_bit_pattern_survives(wire in proptest::array::uniform32(any::<u8>()), rest in proptest::array::uniform12(any::<u8>())) {
            let mut whole = [0; HEADER_BYTES];
            whole[..32].copy_from_slice(&wire);
            whole[32..].copy_from_slice(&rest);
            prop_assert_eq!(Header::decode(&whole).encode(), whole);
        }
    }

    #[test]
    fn fields_are_where_the_specification_puts_them() {
        let header = Header {
            src_cid: GuestCid(0x0102_0304_0506_0708),
            dst_cid: GuestCid::HOST,
            src_port: VsockPort(0x1112_1314),
            dst_port: VsockPort(1),
            len: 0x2122_2324,
            socket_type: TYPE_STREAM,
            op: Operation::ReadWrite as u16,
            flags: 0x3132_3334,
            buf_alloc: 0x4142_4344,
            fwd_cnt: 0x5152_5354,
        };
        let wire = header.encode();
        assert_eq!(wire[0..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(wire[16..20], [0x14, 0x13, 0x12, 0x11]);
        assert_eq!(wire[24..32], [0x24, 0x23, 0x22, 0x21, 1, 0, 5, 0]);
        assert_eq!(wire[32..44], [0x34, 0x33, 0x32, 0x31, 0x44, 0x43, 0x42, 0x41, 0x54, 0x53, 0x52, 0x51]);
    }

    #[test]
    fn only_the_seven_operations_are_operations() {
        for op in 0..=u16::MAX {
            assert_eq!(
                Operation::from_wire(op).map(|known| known as u16),
                (1..=7).contains(&op).then_some(op)
            );
        }
    }
}
