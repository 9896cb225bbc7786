//! A seat: a thread and a connection that one session holds while it has a transaction, temporary
//! objects or an open cursor.
//!
//! ```text
//!            BEGIN, CREATE TEMP, a cursor stays open
//!   (pool) ───────────────────────────────────────────▶ SERVING ──┐ request
//!     ▲                                                   │  ▲ ▲  │
//!     │  nothing is left that needs it                    │  │ └──┘
//!     ├───────────────────────────────────────────────────┘  │ it writes and has no turn of the lane:
//!     │                                                      │ the request goes back, and comes again
//!     │  the session is gone: roll back                      │ with the turn
//!     ├───────────────────────────────────────────────────── ┤
//!     │  left alone for too long: roll back, and say so      │
//!     └──────────────────────────────────────────────────────┘
//! ```

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use vamos_seam::Point;
use vamos_sql_protocol::message::Transaction;
use vamos_sql_server::SqlError;
use vamos_sql_server::engine::{BatchOutcome, Completed, Description, Page, PageLimit};

use crate::connection::{Conn, Settings};
use crate::cursor::Cursor;
use crate::engine::Database;
use crate::facts::{Analysis, Facts};
use crate::guard::{History, Mode, seen};
use crate::lane::Turn;
use crate::pool;
use crate::record::{self, Entry};
use crate::run::{self, Acting, Before, Prepared};
use crate::seam;
use crate::sqlstate;
use crate::tenure::Tenure;
use crate::text::Kind;
use crate::ticket::Ticket;

/// Savepoint of the engine's own; guests cannot use the name.
const SAVEPOINT: &str = "SAVEPOINT _vamos_statement";
const RELEASE: &str = "RELEASE _vamos_statement";
const UNDO: &str = "ROLLBACK TO _vamos_statement";

/// What a session keeps of its seat. Dropping it rolls back.
pub(crate) struct Seat {
    jobs: Sender<Job>,
    expired: Arc<AtomicBool>,
    refusal: Arc<OnceLock<SqlError>>,
}

/// What a thread needs to become the seat.
pub(crate) struct SeatTask {
    jobs: Receiver<Job>,
    expired: Arc<AtomicBool>,
    refusal: Arc<OnceLock<SqlError>>,
    _place: OwnedSemaphorePermit,
    _tenure: Arc<Tenure>,
}

/// A request to a seat.
pub(crate) struct Job {
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) request: Request,
    pub(crate) settings: Settings,
    pub(crate) history: History,
    /// The turn to write, once it is known to be needed.
    pub(crate) turn: Option<Turn>,
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// What a session asks of its seat.
#[derive(Clone)]
pub(crate) enum Request {
    Execute {
        facts: Arc<Facts>,
        cursor: u64,
        parameters: Bytes,
        limit: PageLimit,
        /// Under what it is recorded if it ends a transaction that wrote.
        entry: Option<Entry>,
    },
    Batch {
        facts: Arc<Facts>,
        parameters: Bytes,
        atomic: bool,
    },
    Fetch {
        cursor: u64,
        limit: PageLimit,
    },
    CloseCursor {
        cursor: u64,
    },
    Describe {
        facts: Arc<Facts>,
    },
    /// Roll back and leave.
    Leave,
}

/// What a seat answers.
pub(crate) struct Reply {
    pub(crate) outcome: Result<Outcome, SqlError>,
    pub(crate) standing: Standing,
    pub(crate) history: History,
}

/// A request's outcome.
pub(crate) enum Outcome {
    Page(Page),
    Batch(BatchOutcome),
    Described(Description),
    Done,
    /// Nothing has been done: come again with a turn of the lane.
    NeedsTurn,
}

/// Where the session stands after a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) transaction: Transaction,
    pub(crate) has_temp: bool,
    /// SQLite rolled the transaction back by itself.
    pub(crate) lost: bool,
    /// The seat is free again.
    pub(crate) left: bool,
}

/// What a thread keeps when its time as a seat is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Itself and the connection.
    Connection,
    /// Itself; the connection has things on it that nobody else may see.
    Thread,
    /// Not even itself.
    Nothing,
}

/// A cursor that is open at a seat.
pub(crate) struct Open<'c> {
    pub(crate) name: u64,
    pub(crate) cursor: Cursor<'c>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) analysis: Arc<Analysis>,
    /// The connection's counters before the statement.
    pub(crate) before: Before,
}

/// A seat to be given to a session and to a thread.
pub(crate) fn new(place: OwnedSemaphorePermit, tenure: Arc<Tenure>) -> (Seat, SeatTask) {
    let (sender, jobs) = channel();
    let (expired, refusal) = (Arc::new(AtomicBool::new(false)), Arc::new(OnceLock::new()));
    let seat = Seat { jobs: sender, expired: expired.clone(), refusal: refusal.clone() };
    (seat, SeatTask { jobs, expired, refusal, _place: place, _tenure: tenure })
}

impl SeatTask {
    /// There is no connection for it: its session learns why from the seat that closes.
    pub(crate) fn refuse(self, error: SqlError) {
        drop(self.refusal.set(error));
    }
}

impl Seat {
    /// Sends a request; the reply's channel closes unanswered if the seat has been left.
    pub(crate) fn send(&self, job: Job) {
        drop(self.jobs.send(job));
    }

    /// Whether the seat rolled the transaction back because nothing happened in it; asked once.
    pub(crate) fn take_expired(&self) -> bool {
        self.expired.swap(false, SeqCst)
    }

    /// Why nobody ever sat on it.
    pub(crate) fn refusal(&self) -> Option<SqlError> {
        self.refusal.get().cloned()
    }
}

/// Serves one session until it needs no connection of its own any more.
pub(crate) fn serve<'c>(database: &Database, conn: &'c Conn, task: SeatTask, open: Vec<Open<'c>>) -> Keep {
    let mut serving = Serving {
        database,
        conn,
        cursors: open,
        turn: None,
        is_fresh: false,
        schema_changed: false,
        temp_changed: false,
    };
    let idle_max = database.config.idle_in_transaction_max;
    loop {
        let may_idle = conn.db.is_autocommit() && serving.cursors.is_empty();
        let job = match task.jobs.recv_timeout(if may_idle { Duration::MAX } else { idle_max }) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                task.expired.store(!conn.db.is_autocommit(), SeqCst);
                if !serving.roll_back() || !conn.has_temp.get() {
                    break;
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if serving.answer(job) {
            break;
        }
    }
    let is_clean = serving.roll_back();
    if is_clean && !conn.has_temp.get() { Keep::Connection } else { Keep::Thread }
}

struct Serving<'s, 'c> {
    database: &'s Database,
    conn: &'c Conn,
    cursors: Vec<Open<'c>>,
    turn: Option<Turn>,
    /// The open transaction has had no statement since its BEGIN.
    is_fresh: bool,
    /// The open transaction has changed the schema.
    schema_changed: bool,
    /// The open transaction has made or dropped temporary objects, which its end may undo.
    temp_changed: bool,
}

impl<'c> Serving<'_, 'c> {
    /// Handles one request; true if the seat is free afterwards.
    fn answer(&mut self, job: Job) -> bool {
        let Job { ticket, request, settings, mut history, turn, reply } = job;
        if !ticket.begin() {
            return false;
        }
        self.turn = self.turn.take().or(turn);
        let was_open = !self.conn.db.is_autocommit();
        let leave = matches!(request, Request::Leave) || self.database.is_distrusted();
        let ends = matches!(&request, Request::Execute { facts, .. } if ends_transaction(&facts.kind));
        let commits = match &request {
            Request::Execute { facts, .. } if matches!(facts.kind, Kind::Commit | Kind::Release) => true,
            _ => !was_open && self.turn.is_some(),
        };
        let outcome = match self.conn.apply(settings) {
            Ok(()) if self.database.is_distrusted() => Err(sqlstate::shutting_down()),
            // A statement may commit at its end, and what it tells may be another's to change by then.
            Ok(()) => self
                .database
                .hold()
                .and_then(|()| self.handle(request, &ticket, &mut history))
                .and_then(|outcome| self.database.hold().map(|()| outcome)),
            Err(error) => Err(sqlstate::from_sqlite(&error, &self.conn.guard)),
        };
        if let Err(error) = &outcome {
            self.database.distrust(error, commits);
        }
        let is_open = !self.conn.db.is_autocommit();
        if was_open && !is_open {
            self.transaction_ended();
        }
        if !self.conn.is_writing() {
            self.turn = None;
        }
        if matches!(outcome, Ok(Outcome::NeedsTurn)) {
            ticket.put_back();
        }
        let standing = Standing {
            transaction: if is_open { Transaction::Open } else { Transaction::None },
            has_temp: self.conn.has_temp.get(),
            lost: was_open && !is_open && !ends && outcome.is_err(),
            left: leave
                || !(is_open
                    || self.conn.has_temp.get()
                    || !self.cursors.is_empty()
                    || outcome_returns(&outcome)),
        };
        let heard = reply.send(Reply { outcome, standing, history }).is_ok();
        standing.left || !heard
    }

    fn handle(
        &mut self,
        request: Request,
        ticket: &Arc<Ticket>,
        history: &mut History,
    ) -> Result<Outcome, SqlError> {
        match request {
            Request::Execute { facts, cursor, parameters, limit, entry } => {
                let entry = entry.filter(|_| self.conn.is_writing());
                if let Some(entry) = &entry {
                    self.record(entry, &facts, *history)?;
                    self.pass(Point::Commit)?;
                }
                let mut outcome = self.execute(&facts, (cursor, &parameters, limit), ticket, history);
                if entry.is_some() && outcome.is_ok() {
                    outcome = self.pass(Point::Committed).and(outcome);
                }
                if let Some(entry) = entry
                    && outcome.is_err()
                    && !self.conn.db.is_autocommit()
                {
                    let failed = |error| sqlstate::from_sqlite(&error, &self.conn.guard);
                    entry.unwrite(self.conn).map_err(failed)?;
                }
                outcome
            }
            Request::Batch { facts, parameters, atomic } => {
                self.batch(&facts, (&parameters, atomic), ticket, history)
            }
            Request::Fetch { cursor, limit } => self.fetch(cursor, limit, ticket, history),
            Request::CloseCursor { cursor } => {
                self.cursors.retain(|open| open.name != cursor);
                Ok(Outcome::Done)
            }
            Request::Describe { facts } => {
                pool::describe(self.database, self.conn, &facts, ticket).map(Outcome::Described)
            }
            Request::Leave => {
                self.roll_back();
                Ok(Outcome::Done)
            }
        }
    }

    fn pass(&self, point: Point) -> Result<(), SqlError> {
        seam::pass(point).map_err(|error| sqlstate::from_sqlite(&error, &self.conn.guard))
    }

    /// Records the end of a transaction in it, just before it ends.
    fn record(&self, entry: &Entry, facts: &Facts, history: History) -> Result<(), SqlError> {
        // The session may have forbidden itself to write since it did.
        let failed = |error| sqlstate::from_sqlite(&error, &self.conn.guard);
        self.conn.apply(Settings::default()).map_err(failed)?;
        entry.write(self.conn, &self.database.clock, &record::of_end(facts.command, history))
    }

    fn execute(
        &mut self,
        facts: &Arc<Facts>,
        (name, parameters, limit): (u64, &Bytes, PageLimit),
        ticket: &Arc<Ticket>,
        history: &mut History,
    ) -> Result<Outcome, SqlError> {
        if ends_transaction(&facts.kind) {
            // A statement that is still under way would keep the transaction from ending.
            self.cursors.clear();
        }
        let conn = self.conn;
        // A BEGIN within a transaction begins nothing.
        let begins = matches!(facts.kind, Kind::Begin { .. }) && self.conn.db.is_autocommit();
        let was_fresh = std::mem::replace(&mut self.is_fresh, begins);
        let acting = Acting::begin((self.database, &conn.guard), Mode::Seated, ticket, i64::MAX, *history);
        let Prepared { statement, analysis } = run::prepare(conn, facts, self.database.schema())?;
        if analysis.saw(seen::WRITES) && !analysis.read_only && self.turn.is_none() {
            drop(statement);
            return self.needs_turn(was_fresh);
        }
        let before = Before::of(conn);
        let mut cursor = run::begin(conn, facts, statement, parameters)?;
        let set = cursor.fill(limit, &conn.guard).inspect_err(|_| {
            before.note(conn, facts, &analysis, history);
        })?;
        drop(acting);
        if analysis.saw(seen::SCHEMA) {
            self.schema_changed = true;
            self.database.schema_changed();
        }
        if analysis.saw(seen::WRITES) {
            self.pass(Point::Effect)?;
        }
        let end = if set.done {
            cursor.end();
            Some(self.completed(facts, &analysis, before, history)?)
        } else {
            let (facts, analysis) = (facts.clone(), analysis.clone());
            self.cursors.push(Open { name, cursor, facts, analysis, before });
            None
        };
        Ok(Outcome::Page(run::page(set, &analysis, end)))
    }

    fn completed(
        &mut self,
        facts: &Facts,
        analysis: &Analysis,
        before: Before,
        history: &mut History,
    ) -> Result<Completed, SqlError> {
        let end = run::completed(self.conn, facts, analysis, before, history);
        self.temp_changed |= analysis.saw(seen::TEMP) && !self.conn.db.is_autocommit();
        let touches_temp = analysis.saw(seen::TEMP)
            || (self.knows_temp() && matches!(facts.kind, Kind::Rollback | Kind::RollbackTo));
        if touches_temp {
            self.conn.look_for_temp().map_err(|error| sqlstate::from_sqlite(&error, &self.conn.guard))?;
        }
        if self.schema_changed && self.conn.db.is_autocommit() {
            self.schema_changed = false;
            self.database.schema_changed();
        }
        Ok(end)
    }

    fn fetch(
        &mut self,
        name: u64,
        limit: PageLimit,
        ticket: &Arc<Ticket>,
        history: &mut History,
    ) -> Result<Outcome, SqlError> {
        let Some(at) = self.cursors.iter().position(|open| open.name == name) else {
            return Err(sqlstate::no_cursor(name));
        };
        let mut open = self.cursors.swap_remove(at);
        let acting =
            Acting::begin((self.database, &self.conn.guard), Mode::Seated, ticket, i64::MAX, *history);
        let set = open.cursor.fill(limit, &self.conn.guard)?;
        drop(acting);
        let analysis = open.analysis.clone();
        let end = if set.done {
            open.cursor.end();
            Some(self.completed(&open.facts, &analysis, open.before, history)?)
        } else {
            self.cursors.push(open);
            None
        };
        Ok(Outcome::Page(run::page(set, &analysis, end)))
    }

    fn batch(
        &mut self,
        facts: &Facts,
        batch: (&[u8], bool),
        ticket: &Arc<Ticket>,
        history: &mut History,
    ) -> Result<Outcome, SqlError> {
        let conn = self.conn;
        let failed = |error: rusqlite::Error| sqlstate::from_sqlite(&error, &conn.guard);
        let was_fresh = std::mem::take(&mut self.is_fresh);
        let acting = Acting::begin((self.database, &conn.guard), Mode::Seated, ticket, i64::MAX, *history);
        let prepared = run::prepare(conn, facts, self.database.schema())?;
        let analysis = prepared.analysis.clone();
        if analysis.saw(seen::WRITES) && !analysis.read_only && self.turn.is_none() {
            drop(prepared);
            return self.needs_turn(was_fresh);
        }
        let own = conn.db.is_autocommit();
        conn.engine(if own { "BEGIN" } else { SAVEPOINT }).map_err(failed)?;
        let run = run::batch(conn, facts, prepared, batch, history);
        drop(acting);
        let undo = run.as_ref().map_or(true, |run| run.undo);
        if !conn.db.is_autocommit() {
            let end: &[&str] = match (own, undo) {
                (true, true) => &["ROLLBACK"],
                (true, false) => &["COMMIT"],
                (false, true) => &[UNDO, RELEASE],
                (false, false) => &[RELEASE],
            };
            for statement in end {
                if let Err(error) = conn.engine(statement) {
                    // A part of the batch may be there, and the client may not be left to commit it.
                    conn.roll_back().map_err(failed)?;
                    return Err(failed(error));
                }
            }
        }
        run.map(|run| Outcome::Batch(run.outcome))
    }

    /// Has the statement come again. A transaction that has shown its client nothing begins anew: a look
    /// at the schema may have tied it to a state that others will have changed by its turn.
    fn needs_turn(&mut self, is_fresh: bool) -> Result<Outcome, SqlError> {
        if is_fresh {
            let restarted = self.conn.engine("ROLLBACK").and_then(|()| self.conn.engine("BEGIN"));
            restarted.map_err(|error| sqlstate::from_sqlite(&error, &self.conn.guard))?;
        }
        self.is_fresh = is_fresh;
        Ok(Outcome::NeedsTurn)
    }

    fn transaction_ended(&mut self) {
        self.cursors.clear();
        if std::mem::take(&mut self.temp_changed)
            && let Err(error) = self.conn.look_for_temp()
        {
            tracing::warn!(%error, "look for temporary objects after a transaction");
        }
        if self.schema_changed {
            self.schema_changed = false;
            self.database.schema_changed();
        }
        self.database.writer.look_at_log(self.database, self.conn);
    }

    /// Whether there are temporary objects, or could be again once the transaction is undone.
    fn knows_temp(&self) -> bool {
        self.conn.has_temp.get() || self.temp_changed
    }

    /// Gives up cursors and transaction; false if the connection is good for nothing now.
    fn roll_back(&mut self) -> bool {
        self.cursors.clear();
        let outcome = self
            .conn
            .roll_back()
            .and_then(|()| if self.knows_temp() { self.conn.look_for_temp().map(drop) } else { Ok(()) });
        self.temp_changed = false;
        self.turn = None;
        if self.schema_changed {
            self.schema_changed = false;
            self.database.schema_changed();
        }
        if let Err(error) = &outcome {
            tracing::warn!(%error, "roll back a session's transaction");
        }
        outcome.is_ok()
    }
}

/// Whether the session comes back for certain.
fn outcome_returns(outcome: &Result<Outcome, SqlError>) -> bool {
    matches!(outcome, Ok(Outcome::NeedsTurn))
}

fn ends_transaction(kind: &Kind) -> bool {
    matches!(kind, Kind::Commit | Kind::Rollback)
}
