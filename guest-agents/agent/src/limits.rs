//! Every limit of the agent, unit and MAX last.

use std::time::Duration;

/// Start-up packet of a PostgreSQL client, bytes; PostgreSQL's own limit.
pub const POSTGRES_STARTUP_BYTES_MAX: usize = 10_000;

/// From a client's connection to its complete start-up.
pub const POSTGRES_HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Any other message of a PostgreSQL client, bytes: the largest blob as hexadecimal text, and its
/// surroundings. A longer one is discarded as it comes and answered with an error.
pub const POSTGRES_MESSAGE_BYTES_MAX: usize = 34 << 20;

/// What PostgreSQL calls a message: more than this is not one, and the connection is lost, bytes.
pub const POSTGRES_LENGTH_MAX: usize = i32::MAX as usize;

/// Connections a PostgreSQL door serves at a time.
pub const POSTGRES_CONNECTIONS_MAX: usize = 1_000;

/// Named prepared statements, and named portals, of one connection.
pub const POSTGRES_STATEMENTS_MAX: usize = 1_024;

/// Texts whose preparation a connection remembers, for clients that prepare the same text again and again.
pub const POSTGRES_TEXTS_MAX: usize = 64;

/// Reply bytes collected before they are written to the client.
pub const POSTGRES_OUTPUT_BYTES: usize = 32 << 10;

/// Bytes read from a client at a time.
pub const POSTGRES_READ_BYTES: usize = 16 << 10;

/// Blocks of rows a portal has under way at a time.
pub const PORTAL_WINDOW_BLOCKS: u32 = 8;

/// Batches of a COPY under way at a time.
pub const COPY_WINDOW_BATCHES: usize = 4;

/// One row of a COPY, bytes of text.
pub const COPY_ROW_BYTES_MAX: usize = 32 << 20;

/// Pause between attempts to reach the host when the device itself refuses at once.
pub const HOST_RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long the host may take to answer `hello`.
pub const HELLO_REPLY_MAX: Duration = Duration::from_secs(10);

/// Streams that are kept open for one published site, unless its binding says otherwise: one for the edge to use, one
/// while the other is opened anew.
pub const HTTP_STREAMS: usize = 2;

/// Streams that a binding can ask for.
pub const HTTP_STREAMS_MAX: usize = 16;

/// Longest pause between attempts to open such a stream.
pub const HTTP_RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Longest that requests under way are waited for when the agent ends.
pub const HTTP_DRAIN_MAX: Duration = Duration::from_secs(10);
