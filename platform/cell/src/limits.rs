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

/// Stack of a thread for work that would hold up the device, such as opening a database; SQL has its own threads.
pub const APART_STACK_BYTES: usize = 512 << 10;
