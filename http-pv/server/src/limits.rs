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

/// Requests under way on one HTTP/2 connection.
pub const STREAMS_MAX: u32 = 128;

/// What may come of one HTTP/2 request's body before somebody reads it, bytes.
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// The same of all requests of a connection, bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// What is written of an HTTP/2 answer and not sent yet, bytes.
pub const STREAM_SEND_BYTES_MAX: usize = 256 << 10;

/// Small pieces of an HTTP/2 answer are sent together up to this size, bytes.
pub const GATHERED_BYTES_MAX: usize = 16 << 10;

/// Frames of a client that bring nothing, in a row: pings, window updates, empty data, ...
pub const OVERHEAD_FRAMES_MAX: u32 = 2000;

/// How many more it may send in each second.
pub const OVERHEAD_FRAMES_PER_SECOND: u32 = 100;

/// How many more for each frame of an answer: window updates of stream and connection, a ping.
pub const OVERHEAD_FRAMES_PER_ANSWER: u32 = 4;

/// A frame of settings counts as so many: every stream may have to be looked at.
pub const SETTINGS_COST: u32 = 20;

/// Requests that a client takes back, in a row.
pub const RESETS_MAX: u32 = 500;

/// How many more it may take back in each second.
pub const RESETS_PER_SECOND: u32 = 33;

/// Requests that a client takes back before they were looked at.
pub const UNSEEN_RESETS_MAX: usize = 100;

/// Requests of one HTTP/2 connection, in all its life, that were none.
pub const MALFORMED_STREAMS_MAX: usize = 256;

/// How long a client has to go once it was asked to.
pub const LEAVE_WITHIN_MAX: Duration = Duration::from_secs(2);

/// Longest that nothing is accepted after the process could not take a connection.
pub const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a connection may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest head of a request, bytes.
    pub head_bytes_max: usize,
    /// Longest from the first byte of a head to its last; longest that TLS, or HTTP/2, takes to begin.
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

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// In all.
    pub open_max: usize,
    /// Of one client: an IPv4 address, or the first 64 bits of an IPv6 one.
    pub of_client_max: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { open_max: 16 << 10, of_client_max: 1 << 10 }
    }
}
