//! Every limit of the connector, unit and MAX last.

use std::time::Duration;

/// Requests of one stream under way at once.
pub const REQUESTS_MAX: u32 = 1024;

/// Largest head of a request, bytes; the edge's own limit is lower.
pub const HEAD_BYTES_MAX: u32 = 64 << 10;

/// What the edge may send of one request before it is read, bytes.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// What the edge may send in all before it is read, bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// What is kept of an answer before it is sent, bytes.
pub const SEND_BUFFER_BYTES_MAX: usize = 256 << 10;

/// Connections to the server at once; a request beyond waits for one.
pub const CONNECTIONS_MAX: usize = 256;

/// Longest a connection to the server is kept without a request.
pub const KEPT_IDLE_MAX: Duration = Duration::from_secs(30);

/// Longest it takes to connect to the server.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Largest answer that is sent as a whole, in one go, bytes.
pub const GATHERED_BYTES_MAX: u64 = 64 << 10;

/// Longest the rest of such an answer is waited for.
pub const GATHERED_WITHIN: Duration = Duration::from_millis(10);

/// Largest head that the server may answer with, bytes.
pub const ANSWER_HEAD_BYTES_MAX: usize = 128 << 10;

/// Fields that the server may answer with.
pub const ANSWER_FIELDS_MAX: usize = 256;

/// What is read from the server at once, bytes.
pub const READ_BYTES_MAX: usize = 256 << 10;

/// What is read from a FastCGI server before it is passed on, records.
pub const FASTCGI_RECORDS_MAX: usize = 16;

/// What goes in one FastCGI record, bytes.
pub const FASTCGI_RECORD_BYTES: usize = 32 << 10;

/// What is copied between an upgraded stream and the server at once, bytes.
pub const COPY_BYTES: usize = 16 << 10;

/// Largest piece that is put together for one write to the host, bytes.
pub const WRITE_BYTES_MAX: usize = 128 << 10;
