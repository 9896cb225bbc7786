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

/// Largest body of a request of a route that does not say, bytes.
pub const REQUEST_BYTES_MAX: u64 = 1 << 30;

/// Lines of the access log that are collected before they are written, bytes.
pub const LOG_BUFFER_BYTES_MAX: usize = 64 << 10;

/// Longest they are collected.
pub const LOG_FLUSH_EVERY: Duration = Duration::from_millis(200);

/// What is read of an object at once, bytes.
pub const OBJECT_READ_BYTES: usize = 256 << 10;

/// Longest a cell may take to open an object.
pub const OBJECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Objects that are wanted of one VM at once.
pub const OBJECTS_WANTED_MAX: usize = 1024;

/// What is copied of a switched stream at once, bytes.
pub const SWITCHED_BYTES: usize = 16 << 10;

/// Clients that are connected at once.
pub const CONNECTIONS_MAX: usize = 100_000;

/// Of them, those of one client: it may be a proxy of many.
pub const CONNECTIONS_OF_CLIENT_MAX: usize = 25_000;

/// How long a listener rests that cannot accept.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Streams of guests that wait for their thread.
pub const STREAMS_WAITING_MAX: usize = 256;

/// How often an edge without a vamosd looks whether there is anybody left to serve.
pub const ORPHAN_LOOK_EVERY: Duration = Duration::from_secs(30);

/// Threads that serve.
pub const WORKERS_MAX: usize = 64;
