//! Every limit of a connection, unit and MAX last.

use std::time::Duration;

/// Field lines of a head, or of trailers.
pub const FIELDS_MAX: usize = 100;

/// Largest request line, bytes.
pub const REQUEST_LINE_BYTES_MAX: usize = 8 << 10;

/// Largest line that announces a chunk, with its extensions, bytes.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Chunk extensions of one body in all, bytes: they mean nothing to us, and cost us something.
pub const CHUNK_EXTENSIONS_BYTES_MAX: usize = 4 << 10;

/// Largest trailer section, bytes.
pub const TRAILER_BYTES_MAX: usize = 8 << 10;

/// What is read at once, bytes.
pub const READ_BYTES: usize = 16 << 10;

/// A whole body up to this size is copied behind its head, bytes; a larger one goes along.
pub const COPIED_BODY_BYTES_MAX: usize = 2 << 10;

/// Longest a TLS handshake takes.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// What a connection may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest head of a request, bytes.
    pub head_bytes_max: usize,
    /// Longest from the first byte of a head to its last.
    pub head_within: Duration,
    /// Longest without a request.
    pub idle_max: Duration,
    /// Longest without a byte of a body that is being read.
    pub body_pause_max: Duration,
    /// Longest without a byte of an answer being taken.
    pub write_pause_max: Duration,
    /// What is read of a body that nobody wants, to keep the connection, bytes.
    pub drained_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 32 << 10,
            head_within: Duration::from_secs(10),
            idle_max: Duration::from_secs(75),
            body_pause_max: Duration::from_secs(30),
            write_pause_max: Duration::from_secs(30),
            drained_bytes_max: 256 << 10,
        }
    }
}
