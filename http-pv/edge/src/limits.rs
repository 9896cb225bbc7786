//! Every limit of the edge, unit and MAX last.

use std::time::Duration;

/// Longest a request waits for a stream to its guest: the guest's cell may be between two lives.
pub const STREAM_WAIT_MAX: Duration = Duration::from_secs(5);

/// Requests that wait for a stream to one target at once.
pub const WAITING_MAX: usize = 1024;

/// Longest from the first attempt of a request to the last.
pub const ATTEMPTS_FOR_MAX: Duration = Duration::from_secs(10);

/// Attempts of one request.
pub const ATTEMPTS_MAX: u32 = 16;

/// Longest a guest may take to begin its answer.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// Largest body of an idempotent request that is kept until it is answered, bytes: a longer one is sent once.
pub const KEPT_BODY_BYTES_MAX: u64 = 64 << 10;

/// What a guest may send on one stream before it is read, bytes.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// What a guest may send in all before it is read, bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Largest head of a guest's answer, bytes.
pub const ANSWER_HEAD_BYTES_MAX: u32 = 64 << 10;

/// Failures in a row after which a target is passed over.
pub const FAILURES_MAX: u32 = 3;

/// How long it is passed over the first time; doubled each time up to the last.
pub const EJECTION_FIRST: Duration = Duration::from_secs(1);
/// The longest.
pub const EJECTION_MAX: Duration = Duration::from_secs(30);

/// Longest latency that is told from longer ones, microseconds.
pub const LATENCY_US_MAX: u64 = 600_000_000;
