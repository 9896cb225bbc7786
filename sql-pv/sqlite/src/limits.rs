//! Every limit of the embedded engine, unit and MAX last.

use std::time::Duration;

use rusqlite::limits::Limit;
use vamos_sql_protocol::limits::{SQL_TEXT_BYTES_MAX, SQL_VALUE_BYTES_MAX};

/// Size of a database file unless configured, bytes.
pub const DATABASE_BYTES_MAX: u64 = 16 << 30;

/// Bytes of a database page; only new databases take it.
pub const PAGE_BYTES: u64 = 4_096;

/// A statement's time, waiting included.
pub const STATEMENT_DEADLINE: Duration = Duration::from_secs(30);

/// How long a transaction or a cursor may be left alone.
pub const IDLE_IN_TRANSACTION_MAX: Duration = Duration::from_secs(60);

/// How long a statement may ignore its deadline before the process is given up.
pub const WATCHDOG_GRACE: Duration = Duration::from_secs(3);

/// Threads for autocommit reads.
pub const READERS_MAX: usize = 3;

/// Transactions, sessions with temporary objects and open cursors, together.
pub const SEATS_MAX: usize = 128;

/// How often a thread that waits for a lapsed lease looks whether it may still wait.
pub const FENCE_LOOK_EVERY: Duration = Duration::from_millis(50);

/// Longest the opening of a database waits for a lapsed lease.
pub const FENCE_OPEN_MAX: Duration = Duration::from_secs(5);

/// A thread without work ends after this long.
pub const IDLE_THREAD: Duration = Duration::from_secs(5);

/// Autocommit writes that share a commit.
pub const GROUP_STATEMENTS_MAX: usize = 512;

/// After this long a group takes in no further write.
pub const GROUP_TIME: Duration = Duration::from_millis(10);

/// Result of an autocommit write (RETURNING), bytes.
pub const RETURNING_BYTES_MAX: usize = 8 << 20;

/// Failed rows a batch reports; one more undoes it.
pub const BATCH_FAILURES_MAX: usize = 1_000;

/// A batch looks at its deadline after this many rows.
pub const BATCH_ROWS_PER_LOOK: u64 = 256;

/// Statements each connection keeps prepared.
pub const PREPARED_MAX: usize = 64;

/// A longer text is not kept prepared, bytes.
pub const PREPARED_TEXT_BYTES_MAX: usize = 16 << 10;

/// Texts the engine remembers what it learned about.
pub const FACTS_MAX: usize = 4_096;

/// Same, bytes of text.
pub const FACTS_TEXT_BYTES_MAX: usize = 8 << 20;

/// A read that took no longer is worth running inline.
pub const INLINE_TIME: Duration = Duration::from_micros(300);

/// Completion records that are kept, whoever they belong to.
pub const RECORDS_MAX: i64 = 65_536;

/// Records written between two collections of the oldest.
pub const RECORDS_PER_COLLECTION: i64 = 8_192;

/// Virtual machine instructions between two looks at deadlines and budgets: few, because one of them
/// may be a function over a value of 16 MiB.
pub const PROGRESS_INSTRUCTIONS: i32 = 250;

/// Looks an inline statement may live through.
pub const INLINE_LOOKS_MAX: i64 = 80;

/// Largest value an inline statement may make, bytes: bounds what one function call can cost.
pub const INLINE_VALUE_BYTES_MAX: i32 = 256 << 10;

/// Write-ahead log after which the writer checkpoints, pages.
pub const CHECKPOINT_PAGES: i64 = 1_000;

/// Database that VACUUM may copy (it does so in memory), bytes.
pub const VACUUM_BYTES_MAX: u64 = 256 << 20;

/// Memory SQLite may have in the whole process, bytes.
pub const HEAP_BYTES_MAX: i64 = 512 << 20;

/// Page cache of a reading connection, KiB.
pub const READER_CACHE_KIB: i64 = 1_024;

/// Page cache of the writer, KiB.
pub const WRITER_CACHE_KIB: i64 = 4_096;

/// Page cache of the inline connection, KiB.
pub const INLINE_CACHE_KIB: i64 = 1_024;

/// SQLite's own limits (<https://sqlite.org/c3ref/limit.html>), on every connection.
pub const SQLITE_LIMITS: [(Limit, i32); 11] = [
    (Limit::SQLITE_LIMIT_LENGTH, SQL_VALUE_BYTES_MAX as i32),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_TEXT_BYTES_MAX as i32),
    (Limit::SQLITE_LIMIT_COLUMN, 2_000),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 500),
    (Limit::SQLITE_LIMIT_VDBE_OP, 1_000_000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 127),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 32_766),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 100),
];

/// Instants at which a snapshot of several databases is tried before it is given up.
pub const SNAPSHOT_ATTEMPTS_MAX: u32 = 2_000;

/// Between two of them.
pub const SNAPSHOT_PAUSE: Duration = Duration::from_micros(500);

/// Longest a statement that comes upon damage waits for where it is.
pub const DAMAGE_LOOK_MAX: Duration = Duration::from_millis(250);

/// Longest a damaged database is examined for where it is.
pub const DAMAGE_EXAMINATION_MAX: Duration = Duration::from_secs(60);

/// Files that a connection opens: the database, its log, and that log's index or directory.
pub const CONNECTION_FILES: usize = 3;

/// Attempts to clone the logs of all databases while nothing is committed, before they are copied instead.
pub const REFLINK_ATTEMPTS_MAX: usize = 200;
