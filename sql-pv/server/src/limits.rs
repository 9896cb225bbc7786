//! Every limit of the server side of paravirtual SQL, unit and MAX last.

use std::time::Duration;

/// Replies waiting for the client to read them, bytes: beyond this nothing more is read from the
/// link and no further block is asked of the engine.
pub const LINK_OUTPUT_BYTES_MAX: usize = 256 << 10;

/// Bytes read from a link before its requests are looked at.
pub const LINK_READ_BYTES: usize = 64 << 10;

/// Requests of one link that wait for their session's turn.
pub const LINK_QUEUED_REQUESTS_MAX: usize = 8_192;

/// Bodies of the requests of one link that wait for their session's turn, bytes.
pub const LINK_QUEUED_BYTES_MAX: usize = 32 << 20;

/// Requests of one link that an engine works on at the same time.
pub const LINK_RUNNING_MAX: usize = 256;

/// Frames of one link handled before other work of the same thread gets a turn.
pub const LINK_FRAMES_PER_TURN_MAX: usize = 256;

/// Blocks asked of the engine at a time, however many the client allows.
pub const PAGE_BLOCKS_MAX: usize = 4;

/// Cursors one session may leave open.
pub const SESSION_CURSORS_MAX: usize = 16;

/// Statements a session's ids may stand for; the one unused for longest is forgotten.
pub const SESSION_STATEMENTS_MAX: usize = 256;

/// Texts of the statements all sessions of a service keep, bytes.
pub const SERVICE_STATEMENT_BYTES_MAX: usize = 32 << 20;

/// Sessions of one service, unless configured lower.
pub const SERVICE_SESSIONS_MAX: usize = 4_096;

/// Reason a client may give for a transaction's failure, bytes.
pub const FAIL_REASON_BYTES_MAX: usize = 1 << 10;

/// From a frame's first byte to its last.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(30);

/// How long a last reply may take to leave before a link is closed for a broken protocol.
pub const LAST_REPLY_DEADLINE: Duration = Duration::from_secs(1);
