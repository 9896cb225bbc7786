//! Every limit of a cell, unit and MAX last.

use std::time::Duration;

/// How long an agent may take to say hello after it opened the stream.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// Messages of a front-end kept for the next vamosd; a device has some thirty settings.
pub const KEPT_MESSAGES_MAX: usize = 64;

/// Pause after the next vamosd could not be accepted, for want of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often a cell without a vamosd looks whether its front-end is still there.
pub const ORPHAN_LOOK_EVERY: Duration = Duration::from_secs(60);

/// After so many looks in a row that found neither a vamosd nor a front-end, the cell ends.
pub const ORPHAN_LOOKS_MAX: u32 = 10;

/// Stack of each thread the runtime starts for blocking calls, bytes.
pub const BLOCKING_STACK_BYTES: usize = 512 << 10;

/// Threads for blocking calls of the runtime itself, such as opening a database; SQL has its own.
pub const BLOCKING_THREADS_MAX: usize = 2;

/// How long an unused thread for blocking calls is kept.
pub const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(1);
