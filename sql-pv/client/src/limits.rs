//! Every limit of the client, unit and MAX last.

use std::time::Duration;

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

/// Requests of one transaction that are kept to be replayed; a longer one cannot be.
pub const REPLAY_REQUESTS_MAX: usize = 4_096;

/// Same, bytes.
pub const REPLAY_BYTES_MAX: usize = 1 << 20;

/// How long a lost link looks for another stream.
pub const RECONNECT_MAX: Duration = Duration::from_secs(60);

/// How long a host that is there may refuse the service: then it has none.
pub const REFUSED_MAX: Duration = Duration::from_secs(2);

/// How long one attempt may take: a device without a host does not always answer.
pub const DIAL_MAX: Duration = Duration::from_secs(1);

/// First pause between two attempts; each is twice as long as the one before.
pub const DIAL_PAUSE: Duration = Duration::from_millis(2);

/// Longest such pause.
pub const DIAL_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Pause before a session that the service cannot take yet is resumed again.
pub const RESUME_PAUSE: Duration = Duration::from_millis(20);

/// How often that is tried.
pub const RESUME_ATTEMPTS_MAX: u32 = 1_500;
