//! Every limit of the client, unit and MAX last.

/// Bytes of requests queued on a link before senders wait.
pub const LINK_QUEUE_BYTES_MAX: usize = 1 << 20;

/// Bytes of unanswered requests kept for a link before senders wait; one larger request may exceed it.
pub const LINK_UNANSWERED_BYTES_MAX: usize = 8 << 20;

/// Unanswered requests of one session before its senders wait.
pub const SESSION_REQUESTS_MAX: usize = 1_024;

/// Blocks of rows a statement without a cursor may have under way before the client asks for more.
pub const OUTCOME_WINDOW_BLOCKS_MAX: u32 = 64;

/// Bytes read from the stream at a time.
pub const LINK_READ_BYTES: usize = 64 << 10;
