//! Every limit of the wire formats in this crate, unit and MAX last.

/// Largest frame body any protocol of the channel may announce, bytes.
pub const FRAME_BODY_BYTES_MAX: usize = 17 << 20;

/// Largest body of a `hello` frame, bytes: a few hundred bindings.
pub const HELLO_BODY_BYTES_MAX: usize = 64 << 10;

/// Largest message on the channel between vamosd and a cell, bytes: a few hundred bindings.
pub const CELL_MESSAGE_BYTES_MAX: usize = 1 << 20;
