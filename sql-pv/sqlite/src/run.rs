//! One statement on one connection: prepared under the guest's rights, bound, begun, packed. The same
//! for the writer, the pool, seats and inline.

use std::sync::Arc;

use rusqlite::{CachedStatement, Statement};
use vamos_sql_protocol::Rows;
use vamos_sql_protocol::message::Column;
use vamos_sql_server::SqlError;
use vamos_sql_server::engine::{BatchOutcome, Completed, Page};

use crate::authorizer;
use crate::bind;
use crate::connection::Conn;
use crate::cursor::{Cursor, Rowset};
use crate::engine::Database;
use crate::facts::{Analysis, Facts};
use crate::guard::{Guard, History, Mode, seen};
use crate::limits::{BATCH_FAILURES_MAX, BATCH_ROWS_PER_LOOK, PREPARED_TEXT_BYTES_MAX};
use crate::sqlstate;
use crate::ticket::Ticket;

/// The time during which a connection acts for a guest; afterwards it is the engine's again.
pub(crate) struct Acting<'g>(&'g Guard);

impl<'g> Acting<'g> {
    /// Acts in `mode` for the request of `ticket`, at most `looks` looks long.
    pub(crate) fn begin(
        (database, guard): (&Database, &'g Guard),
        mode: Mode,
        ticket: &Arc<Ticket>,
        looks: i64,
        history: History,
    ) -> Self {
        guard.enter(mode);
        guard.begin(ticket.clone(), looks);
        guard.recall(history);
        // Not before there is something to see.
        database.watchdog.look_out();
        Self(guard)
    }
}

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        self.0.enter(Mode::Engine);
        self.0.end();
    }
}

/// A statement ready to be bound, and what it is.
pub(crate) struct Prepared<'c> {
    pub(crate) statement: CachedStatement<'c>,
    pub(crate) analysis: Arc<Analysis>,
}

/// Prepares a text at that version of the schema.
pub(crate) fn prepare<'c>(conn: &'c Conn, facts: &Facts, schema: u64) -> Result<Prepared<'c>, SqlError> {
    conn.guard.refuse_damaged()?;
    if let Some(what) = authorizer::refuses_text(facts.command, &facts.text) {
        return Err(sqlstate::not_authorized(format!("not authorized: {what}")));
    }
    let failed = |error: rusqlite::Error| sqlstate::from_sqlite(&error, &conn.guard);
    conn.look_at_schema(schema).map_err(failed)?;
    conn.guard.take_seen();
    let statement = conn.db.prepare_cached(&facts.text).map_err(failed)?;
    let known = if conn.has_temp.get() { None } else { facts.analysis(schema) };
    if let Some(analysis) = known {
        return Ok(Prepared { statement, analysis });
    }
    let mut bits = conn.guard.take_seen();
    if bits & seen::PREPARED == 0 {
        // It was still prepared from before: only a new preparation asks the authorizer again.
        drop(conn.db.prepare(&facts.text).map_err(failed)?);
        bits = conn.guard.take_seen();
    }
    let analysis = Arc::new(Analysis {
        schema,
        columns: columns(&statement),
        parameters: statement.parameter_count(),
        read_only: statement.readonly(),
        seen: bits,
    });
    if !conn.has_temp.get() {
        facts.learn(analysis.clone());
    }
    Ok(Prepared { statement, analysis })
}

fn columns(statement: &Statement<'_>) -> Arc<[Column]> {
    let declared = statement.columns();
    let origins = statement.columns_with_metadata();
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let column = |(declared, origin): (rusqlite::Column<'_>, rusqlite::ColumnMetadata<'_>)| Column {
        name: declared.name().to_owned(),
        declared: text(declared.decl_type()),
        table: text(origin.table_name()),
        origin: text(origin.origin_name()),
    };
    declared.zip(origins).map(column).collect()
}

/// Binds a statement's parameters and begins it; nothing has been stepped yet.
pub(crate) fn begin<'c>(
    conn: &'c Conn,
    facts: &Facts,
    mut statement: CachedStatement<'c>,
    parameters: &[u8],
) -> Result<Cursor<'c>, SqlError> {
    bind::single(&mut statement, parameters, &conn.guard)?;
    Ok(Cursor::begin(statement, facts.text.len(), !conn.has_temp.get()))
}

/// A page out of some rows.
pub(crate) fn page(set: Rowset, analysis: &Analysis, end: Option<Completed>) -> Page {
    Page { columns: analysis.columns.clone(), blocks: set.blocks, rows: set.rows, end }
}

/// A connection's counters before a statement, from which follows what the statement did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    total_changes: u64,
    last_insert_rowid: i64,
}

impl Before {
    pub(crate) fn of(conn: &Conn) -> Self {
        Self { total_changes: conn.db.total_changes(), last_insert_rowid: conn.db.last_insert_rowid() }
    }

    /// Notes what `changes()` and its like are to tell the session from now on; also after a statement
    /// that failed, which may have kept a part (OR FAIL). Gives the rows that were changed.
    pub(crate) fn note(self, conn: &Conn, facts: &Facts, analysis: &Analysis, history: &mut History) -> u64 {
        let counts = matches!(facts.command, "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "WITH");
        if !counts || analysis.read_only {
            return 0;
        }
        let (changes, rowid) = (conn.db.changes(), conn.db.last_insert_rowid());
        history.changes = changes as i64;
        history.total_changes += (conn.db.total_changes() - self.total_changes) as i64;
        if analysis.saw(seen::INSERTS) && (changes > 0 || rowid != self.last_insert_rowid) {
            history.last_insert_rowid = rowid;
        }
        changes
    }
}

/// What a statement that has ended did.
pub(crate) fn completed(
    conn: &Conn,
    facts: &Facts,
    analysis: &Analysis,
    before: Before,
    history: &mut History,
) -> Completed {
    Completed {
        changes: before.note(conn, facts, analysis, history),
        last_insert_rowid: history.last_insert_rowid,
        command: command(facts, analysis),
        returns_rows: !analysis.columns.is_empty(),
    }
}

/// The statement's first keyword; for WITH, what it introduces.
pub(crate) fn command(facts: &Facts, analysis: &Analysis) -> &'static str {
    match facts.command {
        "WITH" if analysis.read_only => "SELECT",
        "WITH" if analysis.saw(seen::INSERTS) => "INSERT",
        "WITH" => "UPDATE",
        command => command,
    }
}

/// A batch that has run, and whether the caller must undo it.
pub(crate) struct BatchRun {
    pub(crate) outcome: BatchOutcome,
    pub(crate) undo: bool,
}

/// Runs a prepared statement once per row. The caller has opened a savepoint or transaction.
///
/// # Errors
/// What ends the batch as a whole; the caller undoes it if the transaction is still there.
pub(crate) fn batch(
    conn: &Conn,
    facts: &Facts,
    prepared: Prepared<'_>,
    (parameters, atomic): (&[u8], bool),
    history: &mut History,
) -> Result<BatchRun, SqlError> {
    let Prepared { mut statement, analysis } = prepared;
    let mut rows = Rows::new(parameters).map_err(bind::broken)?;
    let wanted = statement.parameter_count();
    if rows.rows() > 0 && rows.columns() != wanted {
        return Err(sqlstate::parameters(rows.columns(), wanted));
    }
    let total = conn.db.total_changes();
    let mut run = BatchRun {
        outcome: BatchOutcome {
            changes: 0,
            executed: 0,
            failures: Vec::new(),
            last_insert_rowid: 0,
            command: command(facts, &analysis),
        },
        undo: false,
    };
    for at in 0..u64::from(rows.rows()) {
        if at % BATCH_ROWS_PER_LOOK == 0
            && let Some(stop) = conn.guard.stop()
        {
            return Err(stop);
        }
        bind::row(&mut statement, &mut rows, &conn.guard)?;
        match step_through(conn, &mut statement) {
            Ok(changes) => {
                run.outcome.changes += changes;
                run.outcome.executed += 1;
            }
            Err(error) if conn.db.is_autocommit() || is_of_the_host(&error) => return Err(error),
            Err(error) => {
                run.outcome.failures.push((at, error));
                if atomic {
                    (run.outcome.changes, run.outcome.executed, run.undo) = (0, 0, true);
                    return Ok(run);
                }
                if run.outcome.failures.len() > BATCH_FAILURES_MAX {
                    let message =
                        format!("more than {BATCH_FAILURES_MAX} rows of the batch failed; it was undone");
                    return Err(sqlstate::limit(message, "See whether the statement fits the rows."));
                }
            }
        }
    }
    rows.end().map_err(bind::broken)?;
    if run.outcome.changes > 0 && analysis.saw(seen::INSERTS) {
        history.last_insert_rowid = conn.db.last_insert_rowid();
    }
    history.changes = run.outcome.changes as i64;
    history.total_changes += (conn.db.total_changes() - total) as i64;
    run.outcome.last_insert_rowid = history.last_insert_rowid;
    if facts.text.len() > PREPARED_TEXT_BYTES_MAX || conn.has_temp.get() {
        statement.discard();
    }
    Ok(run)
}

fn step_through(conn: &Conn, statement: &mut CachedStatement<'_>) -> Result<u64, SqlError> {
    let failed = |error: rusqlite::Error| sqlstate::from_sqlite(&error, &conn.guard);
    if statement.column_count() == 0 {
        return statement.raw_execute().map(|changes| changes as u64).map_err(failed);
    }
    let mut rows = statement.raw_query();
    while rows.next().map_err(failed)?.is_some() {}
    drop(rows);
    Ok(if statement.readonly() { 0 } else { conn.db.changes() })
}

/// Errors that are not one row's: resources, I/O, a stop.
fn is_of_the_host(error: &SqlError) -> bool {
    ["53", "57", "58", "XX"].iter().any(|class| error.sqlstate.starts_with(class))
}
