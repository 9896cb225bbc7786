//! Every limit of paravirtual SQL's wire format, unit and MAX last.

/// Largest frame body, bytes: one value of the largest size and its surroundings.
pub const SQL_FRAME_BYTES_MAX: usize = 17 << 20;

/// Largest text or blob, and largest row, bytes.
pub const SQL_VALUE_BYTES_MAX: usize = 16 << 20;

/// A row block is closed when it has reached this many bytes; a longer row has a block of its own.
pub const SQL_BLOCK_BYTES: usize = 64 << 10;

/// Largest statement text, bytes.
pub const SQL_TEXT_BYTES_MAX: usize = 1 << 20;

/// Most columns of a row, most parameters of a statement.
pub const SQL_COLUMNS_MAX: usize = 32_766;

/// Most sessions open on one link.
pub const SQL_LINK_SESSIONS_MAX: usize = 4_096;

const _: () = assert!(SQL_VALUE_BYTES_MAX + SQL_TEXT_BYTES_MAX <= SQL_FRAME_BYTES_MAX);
