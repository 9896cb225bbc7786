//! SQLite's errors as SQLSTATEs: the only place where that is decided.

use std::os::fd::AsFd;

use libsqlite3_sys as ffi;
use rusqlite::Error;
use vamos_sql_server::{SqlError, sqlstate};

use crate::guard::Guard;
use crate::limits::CONNECTION_FILES;
use crate::ticket::Ticket;

const NOT_NULL_VIOLATION: &str = "23502";
const FOREIGN_KEY_VIOLATION: &str = "23503";
const UNIQUE_VIOLATION: &str = "23505";
const CHECK_VIOLATION: &str = "23514";
const CONSTRAINT_VIOLATION: &str = "23000";
const TRIGGER_EXCEPTION: &str = "P0001";
const DATATYPE_MISMATCH: &str = "42804";
const INVALID_TEXT: &str = "22P02";
const NUMERIC_OUT_OF_RANGE: &str = "22003";
const STRING_TOO_LONG: &str = "22001";
const SYNTAX_ERROR: &str = "42601";
const UNDEFINED_TABLE: &str = "42P01";
const DUPLICATE_TABLE: &str = "42P07";
const UNDEFINED_COLUMN: &str = "42703";
const DUPLICATE_COLUMN: &str = "42701";
const AMBIGUOUS_COLUMN: &str = "42702";
const UNDEFINED_FUNCTION: &str = "42883";
const UNDEFINED_OBJECT: &str = "42704";
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const SERIALIZATION_FAILURE: &str = "40001";
const LOCK_NOT_AVAILABLE: &str = "55P03";
const DISK_FULL: &str = "53100";
const OUT_OF_MEMORY: &str = "53200";
const IO_ERROR: &str = "58030";
const INSUFFICIENT_RESOURCES: &str = "53000";
pub(crate) const DATA_CORRUPTED: &str = "XX001";
const INTERNAL_ERROR: &str = "XX000";
const READ_ONLY: &str = "25006";
const ACTIVE_TRANSACTION: &str = "25001";
const NO_ACTIVE_TRANSACTION: &str = "25P01";
const IDLE_TIMEOUT: &str = "25P03";
const FAILED_TRANSACTION: &str = "25P02";
const INVALID_SAVEPOINT: &str = "3B001";
const WRONG_PARAMETERS: &str = "07001";

/// What SQLite's error is to a client; `guard` knows why a statement was stopped or refused.
pub(crate) fn from_sqlite(error: &Error, guard: &Guard) -> SqlError {
    match error {
        Error::SqlInputError { error, msg, offset, .. } => {
            let mut mapped = failure(error.extended_code, msg, guard);
            mapped.position = u32::try_from(*offset).ok();
            mapped
        }
        Error::SqliteFailure(error, message) => {
            let described = ffi::code_to_str(error.extended_code);
            failure(error.extended_code, message.as_deref().unwrap_or(described), guard)
        }
        Error::MultipleStatement => SqlError::new(SYNTAX_ERROR, "more than one statement in a text")
            .hint("Send the statements one by one."),
        Error::NulError(_) => SqlError::new(SYNTAX_ERROR, "a statement's text has a NUL in it"),
        other => SqlError::new(INTERNAL_ERROR, other.to_string()),
    }
}

fn failure(code: i32, message: &str, guard: &Guard) -> SqlError {
    let of = |sqlstate, hint: &str| SqlError { code, ..SqlError::new(sqlstate, message).hint(hint) };
    match code & 0xff {
        ffi::SQLITE_CONSTRAINT => SqlError { code, ..constraint(code, message) },
        ffi::SQLITE_ERROR => SqlError { code, ..plain(message) },
        ffi::SQLITE_AUTH | ffi::SQLITE_PERM => refused(code, message, guard),
        ffi::SQLITE_INTERRUPT => {
            let stopped = guard.stop().unwrap_or_else(SqlError::cancelled);
            SqlError { code, ..stopped }
        }
        ffi::SQLITE_FULL => of(DISK_FULL, "Delete rows, or ask the operator for a larger quota."),
        ffi::SQLITE_NOMEM => of(OUT_OF_MEMORY, "Make the statement handle less at a time."),
        ffi::SQLITE_TOOBIG => {
            of(sqlstate::PROGRAM_LIMIT_EXCEEDED, "A value or a text is larger than this host takes.")
        }
        ffi::SQLITE_CANTOPEN if lacks_descriptors() => of(
            INSUFFICIENT_RESOURCES,
            "Use fewer sessions at once, or ask the operator for more descriptors.",
        ),
        ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN if code != ffi::SQLITE_IOERR_DATA => {
            of(IO_ERROR, "See the host's log.")
        }
        ffi::SQLITE_IOERR | ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB | ffi::SQLITE_FORMAT => {
            let named = guard.damaged(code).map(|error| SqlError { code, ..error });
            named.unwrap_or_else(|| of(DATA_CORRUPTED, "The database file is damaged; restore it."))
        }
        ffi::SQLITE_BUSY if code == ffi::SQLITE_BUSY_SNAPSHOT => SqlError {
            message: "another transaction has written since this one read".to_owned(),
            ..of(
                SERIALIZATION_FAILURE,
                "Roll back and repeat the transaction, or begin it with BEGIN IMMEDIATE.",
            )
        },
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => of(LOCK_NOT_AVAILABLE, "Try again."),
        ffi::SQLITE_MISMATCH => of(DATATYPE_MISMATCH, ""),
        ffi::SQLITE_RANGE => of(WRONG_PARAMETERS, ""),
        ffi::SQLITE_READONLY => of(READ_ONLY, ""),
        ffi::SQLITE_ABORT => {
            of(FAILED_TRANSACTION, "The transaction the statement belonged to was rolled back.")
        }
        ffi::SQLITE_SCHEMA => of(SERIALIZATION_FAILURE, "The schema keeps changing; try again."),
        _ => of(INTERNAL_ERROR, ""),
    }
}

fn constraint(code: i32, message: &str) -> SqlError {
    let sqlstate = match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            UNIQUE_VIOLATION
        }
        ffi::SQLITE_CONSTRAINT_NOTNULL => NOT_NULL_VIOLATION,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => FOREIGN_KEY_VIOLATION,
        ffi::SQLITE_CONSTRAINT_CHECK => CHECK_VIOLATION,
        ffi::SQLITE_CONSTRAINT_TRIGGER => TRIGGER_EXCEPTION,
        ffi::SQLITE_CONSTRAINT_DATATYPE => DATATYPE_MISMATCH,
        _ => CONSTRAINT_VIOLATION,
    };
    SqlError::new(sqlstate, message)
}

/// SQLITE_ERROR says what it means only in words; these are those of SQLite's own source.
fn plain(message: &str) -> SqlError {
    const BY_START: [(&str, &str); 14] = [
        ("no such table", UNDEFINED_TABLE),
        ("no such view", UNDEFINED_TABLE),
        ("no such column", UNDEFINED_COLUMN),
        ("no such function", UNDEFINED_FUNCTION),
        ("wrong number of arguments to function", UNDEFINED_FUNCTION),
        ("no such savepoint", INVALID_SAVEPOINT),
        ("no such", UNDEFINED_OBJECT),
        ("unknown", UNDEFINED_OBJECT),
        ("ambiguous column name", AMBIGUOUS_COLUMN),
        ("duplicate column name", DUPLICATE_COLUMN),
        ("integer overflow", NUMERIC_OUT_OF_RANGE),
        ("malformed JSON", INVALID_TEXT),
        ("string or blob too big", STRING_TOO_LONG),
        ("not authorized", INSUFFICIENT_PRIVILEGE),
    ];
    const BY_PART: [(&str, &str); 13] = [
        ("has no column named", UNDEFINED_COLUMN),
        ("already exists", DUPLICATE_TABLE),
        ("already another table or index", DUPLICATE_TABLE),
        ("syntax error", SYNTAX_ERROR),
        ("incomplete input", SYNTAX_ERROR),
        ("unrecognized token", SYNTAX_ERROR),
        ("unsafe use of", INSUFFICIENT_PRIVILEGE),
        ("prohibited", INSUFFICIENT_PRIVILEGE),
        ("may not be", INSUFFICIENT_PRIVILEGE),
        ("no transaction is active", NO_ACTIVE_TRANSACTION),
        ("within a transaction", ACTIVE_TRANSACTION),
        ("too many", sqlstate::PROGRAM_LIMIT_EXCEEDED),
        ("too large", sqlstate::PROGRAM_LIMIT_EXCEEDED),
    ];
    let by_start = BY_START.iter().find(|(start, _)| message.starts_with(start));
    let by_part = || BY_PART.iter().find(|(part, _)| message.contains(part));
    let sqlstate = by_start.or_else(by_part).map_or(SYNTAX_ERROR, |(_, sqlstate)| sqlstate);
    SqlError::new(sqlstate, message)
}

fn refused(code: i32, message: &str, guard: &Guard) -> SqlError {
    let message =
        guard.take_refusal().map_or_else(|| message.to_owned(), |what| format!("not authorized: {what}"));
    SqlError { code, ..not_authorized(message) }
}

/// Something this host does not let a guest do.
pub(crate) fn not_authorized(message: impl Into<String>) -> SqlError {
    SqlError::new(INSUFFICIENT_PRIVILEGE, message)
}

/// A statement with too few or too many parameters.
pub(crate) fn parameters(given: usize, wanted: usize) -> SqlError {
    SqlError::new(WRONG_PARAMETERS, format!("{given} parameters given, the statement takes {wanted}"))
}

/// A result, row or list beyond a limit of the engine's own.
pub(crate) fn limit(message: impl Into<String>, hint: &str) -> SqlError {
    SqlError::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, message).hint(hint)
}

/// Something the engine does not do.
pub(crate) fn unsupported(message: impl Into<String>) -> SqlError {
    SqlError::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}

/// COMMIT, ROLLBACK or RELEASE without a transaction.
pub(crate) fn no_transaction(command: &str) -> SqlError {
    SqlError::new(NO_ACTIVE_TRANSACTION, format!("{command}: no transaction is open"))
}

/// A transaction was left alone for too long.
pub(crate) fn idle_transaction() -> SqlError {
    SqlError::new(IDLE_TIMEOUT, "the transaction was left idle for too long and has been rolled back")
        .hint("Say ROLLBACK, then repeat the transaction.")
}

/// The engine itself rolled the transaction back.
pub(crate) fn lost_transaction() -> SqlError {
    SqlError::new(FAILED_TRANSACTION, "the transaction was rolled back by an earlier error in it")
        .hint("Say ROLLBACK, then repeat the transaction.")
}

/// A write where none is allowed.
pub(crate) fn read_only() -> SqlError {
    SqlError::new(READ_ONLY, "attempt to write a readonly database")
}

/// A cursor that is gone.
pub(crate) fn no_cursor(cursor: u64) -> SqlError {
    let message =
        format!("cursor {cursor} is closed: its transaction ended, or it was left idle for too long");
    SqlError::new(sqlstate::INVALID_CURSOR_NAME, message)
}

/// The wait for the lane was longer than the request may last.
pub(crate) fn lane_not_available(ticket: &Ticket) -> SqlError {
    match ticket.stop() {
        Some(error) if error == SqlError::cancelled() => error,
        _ => SqlError::new(LOCK_NOT_AVAILABLE, "another session's transaction kept writing for too long")
            .hint("Try again; end transactions that write soon."),
    }
}

/// The columns changed between the preparation of a statement and its first row.
pub(crate) fn schema_changed() -> SqlError {
    SqlError::new(SERIALIZATION_FAILURE, "the schema changed while the statement was begun")
        .hint("Try again.")
}

/// All transactions, temporary objects and cursors that may be open are.
pub(crate) fn no_seat(seats: usize) -> SqlError {
    SqlError::new(
        INSUFFICIENT_RESOURCES,
        format!("all {seats} places for transactions and open cursors are taken"),
    )
    .hint("End transactions and cursors that are not needed.")
}

/// The cell has as many threads as it may, and all of them are some session's.
pub(crate) fn no_thread() -> SqlError {
    SqlError::new(INSUFFICIENT_RESOURCES, "no thread is left for the statement")
        .hint("End transactions and cursors that are not needed, or ask the operator for more threads.")
}

/// Whether this process cannot open the files of another connection.
fn lacks_descriptors() -> bool {
    let spare: Vec<_> =
        (0..CONNECTION_FILES).map(|_| std::io::stderr().as_fd().try_clone_to_owned()).collect();
    spare.iter().any(Result::is_err)
}

/// What the session has under way elsewhere does not end.
pub(crate) fn session_busy() -> SqlError {
    SqlError::new(LOCK_NOT_AVAILABLE, "the session still has a request under way on its former link")
        .hint("Try again.")
}

/// A request that was answered long ago is sent again: its client has been rolled back.
pub(crate) fn fenced(number: u64, acknowledged: u64) -> SqlError {
    let message = format!(
        "FENCED: request {number} is sent again, but the session has acknowledged all up to {acknowledged}; nothing was executed"
    );
    SqlError::new(sqlstate::CONNECTION_DOES_NOT_EXIST, message)
        .hint("The guest was rolled back without its volume; open a new session.")
}

/// A new request has the number of one that has been executed: its client has been rolled back.
pub(crate) fn rolled_back(number: u64, used: u64) -> SqlError {
    let message = format!(
        "FENCED: the session asks anew for request {number}, but number {used} has been executed; nothing was executed now"
    );
    SqlError::new(sqlstate::CONNECTION_DOES_NOT_EXIST, message)
        .hint("The guest was rolled back without its volume; open a new session.")
}

/// A record that was there is not, or is no record.
pub(crate) fn record_gone(number: u64) -> SqlError {
    SqlError::new(DATA_CORRUPTED, format!("the record of request {number} cannot be read"))
        .hint("The request has been executed; look for its effect.")
}

/// A session with temporary objects cannot go on elsewhere.
pub(crate) fn temporary_objects_lost() -> SqlError {
    SqlError::new("57P02", "the session had temporary objects, which went with the process that served it")
        .hint("Connect again and make them anew.")
}

/// The engine is going away.
pub(crate) fn shutting_down() -> SqlError {
    SqlError::new("57P01", "the service is being stopped").hint("Connect again.")
}

/// Whether a failed COMMIT is one statement's own doing (a deferred foreign key).
pub(crate) fn is_constraint(error: &Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code & 0xff == ffi::SQLITE_CONSTRAINT)
}

/// Whether an error leaves open what is on the disk: a failed sync does, and so does a commit that failed
/// otherwise than for want of space, by a constraint or over a page that was damaged: it is read before any is written.
pub(crate) fn leaves_open(error: &SqlError, committing: bool) -> bool {
    let is_sync = matches!(error.code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC);
    is_sync
        || (committing
            && error.code != ffi::SQLITE_IOERR_DATA
            && matches!(error.code & 0xff, ffi::SQLITE_IOERR | ffi::SQLITE_NOMEM))
}

/// Whether an error is a constraint's, with which a statement ends as the constraint says.
pub(crate) fn is_violation(error: &SqlError) -> bool {
    error.sqlstate.starts_with("23") || error.sqlstate == TRIGGER_EXCEPTION
}
