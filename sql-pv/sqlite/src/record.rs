//! Completion records: the outcome of a write, in the transaction of its data, so that a request that is
//! sent again is answered and not run again.
//!
//! One row a write, by session and number. A session's next write removes what has been acknowledged, so
//! that there is about one row for each session that ever wrote. Rows of sessions that never came back go
//! when `RECORDS_MAX` newer ones have been written: nothing that can still be asked for is that old.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use bytes::Bytes;
use prost::Message;
use rusqlite::{OptionalExtension, params};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;
use vamos_seam::{Bug, Point, errs};
use vamos_sql_protocol::message::{self, Recorded, Transaction};
use vamos_sql_server::SqlError;
use vamos_sql_server::engine::{BatchOutcome, Completed, Numbering, Page};

use crate::connection::{Conn, Settings};
use crate::facts::Facts;
use crate::guard::History;
use crate::limits::{RECORDS_MAX, RECORDS_PER_COLLECTION};
use crate::seam;
use crate::sqlstate;
use crate::tenure::Tenure;
use crate::text;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS main._vamos_record (session INTEGER, number INTEGER, \
    acknowledged INTEGER, clock INTEGER, digest BLOB, outcome BLOB, PRIMARY KEY (session, number)) WITHOUT ROWID";
const INSERT: &str = "INSERT INTO main._vamos_record VALUES (?, ?, ?, ?, ?, ?)";
const DELETE: &str = "DELETE FROM main._vamos_record WHERE session = ? AND number = ?";
const ACKNOWLEDGED: &str = "DELETE FROM main._vamos_record WHERE session = ? AND number <= ?";
const COLLECT: &str = "DELETE FROM main._vamos_record WHERE clock <= ?";
const LATEST: &str = "SELECT max(clock) FROM main._vamos_record";
const KNOWN: &str = "SELECT number, acknowledged FROM main._vamos_record WHERE session = ? ORDER BY number";
const READ: &str = "SELECT digest, outcome FROM main._vamos_record WHERE session = ? AND number = ?";

/// What tells requests under the same number apart.
pub(crate) type Digest = [u8; 16];

/// The order in which records are written, across restarts. Starts with the first.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicI64);

/// Under what a write is to be recorded.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    tenure: Arc<Tenure>,
    numbering: Numbering,
    digest: Digest,
}

/// What a session's records say when it goes on.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The client had the outcomes up to this number.
    acknowledged: u64,
    /// Numbers that are recorded, in order.
    pub(crate) recorded: Vec<u64>,
}

/// A recorded outcome.
pub(crate) struct Recall {
    pub(crate) outcome: Result<Outcome, SqlError>,
    pub(crate) history: History,
}

/// An outcome of either kind.
pub(crate) enum Outcome {
    Page(Page),
    Batch(BatchOutcome),
}

/// A request's digest: of what it says, however it was encoded.
pub(crate) fn digest(facts: &Facts, parameters: &[u8], atomic: Option<bool>) -> Digest {
    let mut hasher = SipHasher24::new();
    hasher.write_usize(facts.text.len());
    hasher.write(facts.text.as_bytes());
    hasher.write_u8(atomic.map_or(2, u8::from));
    hasher.write(parameters);
    hasher.finish128().as_bytes()
}

impl Entry {
    pub(crate) fn new(tenure: &Arc<Tenure>, numbering: Numbering, digest: Digest) -> Self {
        Self { tenure: tenure.clone(), numbering, digest }
    }

    /// Writes the record into the transaction that is open.
    pub(crate) fn write(&self, conn: &Conn, clock: &Clock, outcome: &Recorded) -> Result<(), SqlError> {
        self.insert(conn, clock, outcome).map_err(|error| match sqlstate::is_constraint(&error) {
            true => sqlstate::rolled_back(self.numbering.number, self.numbering.number),
            false => sqlstate::from_sqlite(&error, &conn.guard),
        })
    }

    fn insert(&self, conn: &Conn, clock: &Clock, outcome: &Recorded) -> rusqlite::Result<()> {
        if errs(Bug::RecordsNothing) {
            return Ok(());
        }
        conn.aside(|db| {
            if self.numbering.acknowledged > 0 {
                match db.prepare_cached(ACKNOWLEDGED) {
                    Ok(mut statement) => {
                        statement.execute(params![self.key(), stored(self.numbering.acknowledged)])?;
                        seam::pass(Point::Collected)?;
                    }
                    // Nothing has been recorded yet.
                    Err(_) => db.execute_batch(TABLE)?,
                }
            }
            let mut statement = match db.prepare_cached(INSERT) {
                Ok(statement) => statement,
                Err(_) => {
                    db.execute_batch(TABLE)?;
                    db.prepare_cached(INSERT)?
                }
            };
            let now = clock.next(db)?;
            let (number, acknowledged) = (stored(self.numbering.number), stored(self.numbering.acknowledged));
            let digest = self.digest.as_slice();
            statement.execute(params![
                self.key(),
                number,
                acknowledged,
                now,
                digest,
                outcome.encode_to_vec()
            ])?;
            if now % RECORDS_PER_COLLECTION == 0 {
                db.prepare_cached(COLLECT)?.execute([now - RECORDS_MAX])?;
            }
            if errs(Bug::CollectsEarly) {
                db.prepare_cached(COLLECT)?.execute([now - 1])?;
            }
            seam::pass(Point::Recorded)
        })
    }

    /// Takes the record back: what it was for did not come about.
    pub(crate) fn unwrite(&self, conn: &Conn) -> rusqlite::Result<()> {
        conn.aside(|db| {
            db.prepare_cached(DELETE)?.execute(params![self.key(), stored(self.numbering.number)]).map(drop)
        })
    }

    /// The request's number.
    pub(crate) fn number(&self) -> u64 {
        self.numbering.number
    }

    fn key(&self) -> i64 {
        self.tenure.key().cast_signed()
    }
}

impl Clock {
    fn next(&self, db: &rusqlite::Connection) -> rusqlite::Result<i64> {
        // Only whoever writes the database comes here, one at a time.
        let mut now = self.0.load(Relaxed);
        if now == 0 {
            now = db.query_row(LATEST, [], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0);
        }
        self.0.store(now + 1, Relaxed);
        Ok(now + 1)
    }
}

impl Ledger {
    /// What is recorded of a session.
    pub(crate) fn read(conn: &Conn, key: u64, acknowledged: u64) -> Result<Self, SqlError> {
        let rows = conn.aside(|db| {
            let Some(mut statement) = recorded(db, KNOWN)? else { return Ok(Vec::new()) };
            let rows = statement.query_map([key.cast_signed()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<(i64, i64)>>>()
        });
        let rows = rows.map_err(|error| sqlstate::from_sqlite(&error, &conn.guard))?;
        let seen = rows.iter().map(|(_, acknowledged)| acknowledged.unsigned_abs()).max();
        let recorded = rows.iter().map(|(number, _)| number.unsigned_abs());
        Ok(Self {
            acknowledged: acknowledged.max(seen.unwrap_or(0)),
            recorded: recorded.filter(|number| *number > acknowledged).collect(),
        })
    }

    /// Whether the session can go on with a request of that number: all that is recorded must be older.
    pub(crate) fn check(&self, sequence: u64) -> Result<(), SqlError> {
        match self.recorded.last() {
            Some(last) if *last >= sequence => Err(sqlstate::rolled_back(sequence, *last)),
            _ => Ok(()),
        }
    }

    /// What to do with a request that is sent again.
    pub(crate) fn judge(&self, numbering: Numbering) -> Result<Verdict, SqlError> {
        if self.recorded.binary_search(&numbering.number).is_ok() {
            return Ok(Verdict::Recall);
        }
        if numbering.number <= self.acknowledged && !errs(Bug::AcknowledgedRunsAgain) {
            return Err(sqlstate::fenced(numbering.number, self.acknowledged));
        }
        Ok(Verdict::Run)
    }
}

/// What to do with a request that is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has no effect yet.
    Run,
    /// Its outcome is recorded.
    Recall,
}

/// Reads a recorded outcome, if the request is the one that was recorded.
pub(crate) fn recall(conn: &Conn, entry: &Entry) -> Result<Recall, SqlError> {
    let row = conn.aside(|db| {
        let Some(mut statement) = recorded(db, READ)? else { return Ok(None) };
        let key = params![entry.key(), stored(entry.numbering.number)];
        statement.query_row(key, |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))).optional()
    });
    let row = row.map_err(|error| sqlstate::from_sqlite(&error, &conn.guard))?;
    let number = entry.numbering.number;
    let Some((digest, outcome)) = row else { return Err(sqlstate::record_gone(number)) };
    if digest != entry.digest && !errs(Bug::DigestUnchecked) {
        return Err(SqlError::protocol(format!(
            "DIGEST_MISMATCH: request {number} was recorded as another request; nothing was executed"
        )));
    }
    let recorded = Recorded::decode(Bytes::from(outcome)).map_err(|_| sqlstate::record_gone(number))?;
    Ok(unpack(recorded))
}

/// A statement on the records, or `None` if nothing was ever recorded.
fn recorded<'c>(
    db: &'c rusqlite::Connection,
    text: &str,
) -> rusqlite::Result<Option<rusqlite::CachedStatement<'c>>> {
    let exists = "SELECT 1 FROM main.sqlite_schema WHERE name = '_vamos_record'";
    if db.prepare_cached(exists)?.exists([])? { db.prepare_cached(text).map(Some) } else { Ok(None) }
}

/// A number of 48 bits.
fn stored(number: u64) -> i64 {
    number.cast_signed()
}

/// The record of a page, all of which is there.
pub(crate) fn of_page(page: &Page, history: History) -> Recorded {
    let end = page.end.as_ref();
    Recorded {
        columns: page.columns.to_vec(),
        blocks: page.blocks.clone(),
        changes: end.map_or(0, |end| end.changes),
        command: end.map_or_else(String::new, |end| end.command.to_owned()),
        returns_rows: end.is_some_and(|end| end.returns_rows),
        ..of_history(history)
    }
}

/// The record of a batch.
pub(crate) fn of_batch(outcome: &BatchOutcome, history: History) -> Recorded {
    let failure = |(row, error): &(u64, SqlError)| message::BatchFailure {
        row: *row,
        error: Some(error.to_message(Transaction::None)),
    };
    Recorded {
        changes: outcome.changes,
        executed: outcome.executed,
        failures: outcome.failures.iter().map(failure).collect(),
        command: outcome.command.to_owned(),
        ..of_history(history)
    }
}

/// The record of a statement that failed and kept a part of what it did.
pub(crate) fn of_error(error: &SqlError, history: History) -> Recorded {
    Recorded { error: Some(error.to_message(Transaction::None)), ..of_history(history) }
}

/// The record of a transaction's end.
pub(crate) fn of_end(command: &str, history: History) -> Recorded {
    Recorded { command: command.to_owned(), ..of_history(history) }
}

fn of_history(history: History) -> Recorded {
    Recorded {
        last_insert_rowid: history.last_insert_rowid,
        last_changes: history.changes,
        total_changes: history.total_changes,
        ..Recorded::default()
    }
}

fn unpack(recorded: Recorded) -> Recall {
    let history = History {
        last_insert_rowid: recorded.last_insert_rowid,
        changes: recorded.last_changes,
        total_changes: recorded.total_changes,
    };
    let command = text::keyword(&recorded.command);
    let last_insert_rowid = recorded.last_insert_rowid;
    let outcome = if let Some(error) = recorded.error {
        Err(SqlError::from_message(error))
    } else if recorded.executed > 0 || !recorded.failures.is_empty() {
        let failures = recorded.failures.into_iter();
        Ok(Outcome::Batch(BatchOutcome {
            changes: recorded.changes,
            executed: recorded.executed,
            failures: failures
                .map(|failure| (failure.row, SqlError::from_message(failure.error.unwrap_or_default())))
                .collect(),
            last_insert_rowid,
            command,
        }))
    } else {
        let rows =
            |block: &Bytes| vamos_sql_protocol::Rows::new(block).map_or(0, |rows| u64::from(rows.rows()));
        let end = Completed {
            changes: recorded.changes,
            last_insert_rowid,
            command,
            returns_rows: recorded.returns_rows,
        };
        Ok(Outcome::Page(Page {
            columns: recorded.columns.into(),
            rows: recorded.blocks.iter().map(rows).sum(),
            blocks: recorded.blocks,
            end: Some(end),
        }))
    };
    Recall { outcome, history }
}

const STATE_BYTES: usize = 25;
const FOREIGN_KEYS: u8 = 1;
const RECURSIVE_TRIGGERS: u8 = 1 << 1;
const QUERY_ONLY: u8 = 1 << 2;
const HAS_TEMP: u8 = 1 << 3;

/// A session's settings and history, packed for the client to give back.
pub(crate) fn pack_state(settings: Settings, history: History, has_temp: bool) -> Bytes {
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    let mut packed = Vec::with_capacity(STATE_BYTES);
    packed.push(
        flag(settings.foreign_keys, FOREIGN_KEYS)
            | flag(settings.recursive_triggers, RECURSIVE_TRIGGERS)
            | flag(settings.query_only, QUERY_ONLY)
            | flag(has_temp, HAS_TEMP),
    );
    for number in [history.last_insert_rowid, history.changes, history.total_changes] {
        packed.extend_from_slice(&number.to_le_bytes());
    }
    packed.into()
}

/// What was packed: settings (the operator's stay the operator's), history, whether there were temporary
/// objects. Anything is possible but a length.
pub(crate) fn unpack_state(packed: &[u8], read_only: bool) -> Option<(Settings, History, bool)> {
    let packed: &[u8; STATE_BYTES] = packed.try_into().ok()?;
    let is = |bit: u8| packed[0] & bit != 0;
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&packed[at..at + 8]);
        i64::from_le_bytes(bytes)
    };
    let settings = Settings {
        foreign_keys: is(FOREIGN_KEYS),
        recursive_triggers: is(RECURSIVE_TRIGGERS),
        query_only: is(QUERY_ONLY),
        read_only,
    };
    let history = History { last_insert_rowid: number(1), changes: number(9), total_changes: number(17) };
    Some((settings, history, is(HAS_TEMP)))
}
