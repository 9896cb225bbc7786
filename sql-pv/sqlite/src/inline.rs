//! Quick reads on the caller's thread: no hand-over. A budget in virtual machine instructions and a low
//! limit on values bound what a statement can take; one that takes more is run again elsewhere, which
//! is safe because it only reads, and is not tried here again.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use bytes::Bytes;
use vamos_sql_server::SqlError;
use vamos_sql_server::engine::{Page, PageLimit};

use crate::connection::Conn;
use crate::engine::Database;
use crate::facts::{Analysis, Facts};
use crate::guard::{History, Mode};
use crate::limits::INLINE_LOOKS_MAX;
use crate::run::{self, Acting};
use crate::ticket::Ticket;

/// The connection of the callers' thread. It is opened by a worker, never by the caller.
#[derive(Default)]
pub(crate) struct Inline {
    conn: Mutex<Option<Conn>>,
}

impl Inline {
    /// Whether a connection is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(self.conn.try_lock(), Ok(conn) if conn.is_none())
    }

    /// Takes a connection in; one too many is dropped.
    pub(crate) fn offer(&self, conn: Conn) {
        self.conn.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(conn);
    }

    /// The whole result, if it is small and was quickly had.
    pub(crate) fn run(
        &self,
        database: &Database,
        facts: &Facts,
        (parameters, rows): (&Bytes, u64),
        ticket: &Arc<Ticket>,
        history: History,
    ) -> Option<Page> {
        if !facts.is_quick() {
            return None;
        }
        let analysis = facts.analysis(database.schema())?;
        if !analysis.read_only {
            return None;
        }
        let guarded = match self.conn.try_lock() {
            Ok(guarded) => guarded,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let conn = guarded.as_ref()?;
        // A session's own settings concern writes alone: none is put on here.
        let acting = Acting::begin((database, &conn.guard), Mode::Guest, ticket, INLINE_LOOKS_MAX, history);
        let attempt = attempt(conn, facts, &analysis, parameters, rows, history);
        drop(acting);
        if !database.config.fence.holds() {
            // Its threads may wait, the caller's may not.
            return None;
        }
        match attempt {
            Ok(Some(page)) => return Some(page),
            Ok(None) => facts.measured(false),
            Err(error) if error.sqlstate.starts_with("57") || error.sqlstate.starts_with("54") => {
                facts.measured(false)
            }
            // Whoever runs the statement next will say what is wrong with it.
            Err(_) => {}
        }
        None
    }
}

/// `None`: the result is too long.
fn attempt(
    conn: &Conn,
    facts: &Facts,
    analysis: &Analysis,
    parameters: &Bytes,
    rows: u64,
    mut history: History,
) -> Result<Option<Page>, SqlError> {
    let statement = run::prepare(conn, facts, analysis.schema)?.statement;
    let mut cursor = run::begin(conn, facts, statement, parameters)?;
    let set = cursor.fill(PageLimit { rows, blocks: 1 }, &conn.guard)?;
    if !set.done {
        return Ok(None);
    }
    cursor.end();
    let end = run::completed(conn, facts, analysis, run::Before::of(conn), &mut history);
    Ok(Some(run::page(set, analysis, Some(end))))
}
