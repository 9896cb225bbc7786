//! Every limit of a vsock device, unit and MAX last. None of them can be raised by a peer.

/// Largest payload of one packet, bytes: what Linux never exceeds (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`).
pub const PACKET_PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Most streams one VM may have open, half-closed ones and those not yet read to their end included.
pub const VM_STREAMS_MAX: usize = 1024;

/// Largest receive window offered to a peer for one stream, bytes.
pub const STREAM_RECEIVE_BYTES_MAX: u32 = 256 << 10;

/// Smallest receive window offered to a peer for one stream, bytes: when many streams are open.
pub const STREAM_RECEIVE_BYTES_MIN: u32 = 16 << 10;

/// What all receive windows of one device add up to, bytes, before only the smallest are given out.
pub const DEVICE_RECEIVE_BYTES_MAX: usize = 48 << 20;

/// Most bytes a stream's owner may have written that the peer has not yet taken, bytes.
pub const STREAM_SEND_BYTES_MAX: usize = 256 << 10;

/// The same for all streams of a device together, bytes; past it each stream has
/// [`STREAM_SEND_BYTES_MIN`].
pub const DEVICE_SEND_BYTES_MAX: usize = 48 << 20;

/// What a stream's owner may always have written and not yet delivered, bytes.
pub const STREAM_SEND_BYTES_MIN: usize = 16 << 10;

/// Most replies that belong to no connection (RST) waiting for the peer's buffers. At this many the
/// device stops taking packets until some have left.
pub const STRAY_REPLIES_MAX: usize = 256;

/// A stream's buffer that has been emptied keeps no more capacity than this, bytes.
pub const IDLE_BUFFER_BYTES_MAX: usize = 32 << 10;

const _: () = assert!(STREAM_RECEIVE_BYTES_MIN as usize * VM_STREAMS_MAX <= DEVICE_RECEIVE_BYTES_MAX);
const _: () = assert!(STREAM_SEND_BYTES_MIN * VM_STREAMS_MAX <= DEVICE_SEND_BYTES_MAX);
