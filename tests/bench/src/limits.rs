//! Every size and limit of a run, unit and MAX last.

use std::time::Duration;

/// How long vamosd may take to start, and to drain and exit.
pub const PLATFORM_START_MAX: Duration = Duration::from_secs(30);
/// As above.
pub const PLATFORM_EXIT_MAX: Duration = Duration::from_secs(10);

/// How long one request or attachment may take before the run gives up.
pub const REQUEST_MAX: Duration = Duration::from_secs(30);

/// How long PostgreSQL may take to start.
pub const POSTGRES_START_MAX: Duration = Duration::from_secs(30);
