//! Every limit of a cell, unit and MAX last.

use std::time::Duration;

/// How long an agent may take to say hello after it opened the stream.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// Stack of each thread the runtime starts for blocking calls, bytes.
pub const BLOCKING_STACK_BYTES: usize = 512 << 10;

/// Threads for blocking calls of the runtime itself, such as opening a database; SQL has its own.
pub const BLOCKING_THREADS_MAX: usize = 2;

/// How long an unused thread for blocking calls is kept.
pub const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(1);
