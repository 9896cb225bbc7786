//! Group commit: autocommit writes of all sessions, one transaction, one fsync.
//!
//! One thread takes what is queued, opens a transaction, runs each write in a savepoint of its own and
//! commits once. No reply leaves before that commit has returned. While it waits for the disk the next
//! group gathers by itself, so groups are as large as the load and a lone write waits for nobody.
//!
//! A statement can undo the whole transaction (OR ROLLBACK, RAISE(ROLLBACK), an interrupt, a full
//! disk), and a deferred foreign key fails only the COMMIT. Nobody has been answered by then: the
//! others' writes are run again, each in a transaction of its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use rusqlite::hooks::Wal;
use rusqlite::limits::Limit;
use tokio::sync::oneshot;
use vamos_seam::{Bug, Point, errs};
use vamos_sql_server::SqlError;
use vamos_sql_server::engine::{Completed, Page, PageLimit};

use crate::connection::{Conn, Role, Settings};
use crate::cursor::Rowset;
use crate::engine::Database;
use crate::facts::Facts;
use crate::guard::{History, Mode, seen};
use crate::limits::{
    CHECKPOINT_PAGES, GROUP_STATEMENTS_MAX, GROUP_TIME, IDLE_THREAD, RETURNING_BYTES_MAX, VACUUM_BYTES_MAX,
};
use crate::record::{self, Entry, Outcome};
use crate::run::{self, Acting, Before};
use crate::seam;
use crate::sqlstate;
use crate::text::Kind;
use crate::ticket::Ticket;

/// A write that is on its way.
pub(crate) struct Write {
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) what: What,
    pub(crate) settings: Settings,
    pub(crate) history: History,
    /// Under what its outcome is recorded.
    pub(crate) entry: Entry,
    pub(crate) reply: oneshot::Sender<WriteReply>,
}

/// What to do with the statement.
#[derive(Clone)]
pub(crate) enum What {
    /// Run it; its blocks hold at most so many rows (0: any number).
    Execute {
        parameters: Bytes,
        rows: u64,
    },
    Batch {
        parameters: Bytes,
        atomic: bool,
    },
}

/// What became of a write.
pub(crate) enum WriteReply {
    Done(Result<Outcome, SqlError>, History),
    /// It needs a connection of its own; nothing has been done.
    NeedsSeat,
}

/// The queue and its thread.
#[derive(Default)]
pub(crate) struct Writer {
    state: Mutex<State>,
    wake: Condvar,
    threads: AtomicUsize,
    /// Pages in the write-ahead log, when last heard of.
    log_pages: Arc<AtomicI64>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Write>,
    running: bool,
    closed: bool,
}

impl Writer {
    /// Threads alive.
    pub(crate) fn threads(&self) -> usize {
        self.threads.load(Relaxed)
    }

    /// Queues a write. Dropped when the engine is going away.
    pub(crate) fn submit(&self, database: &Arc<Database>, write: Write) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.queue.push_back(write);
        if state.running {
            self.wake.notify_one();
            return;
        }
        let own = database.clone();
        self.threads.fetch_add(1, Relaxed);
        match thread::Builder::new().name("sqlite-writer".to_owned()).spawn(move || work(&own)) {
            Ok(_) => state.running = true,
            Err(error) => {
                tracing::warn!(%error, "start the writer thread");
                self.threads.fetch_sub(1, Relaxed);
                for write in state.queue.drain(..) {
                    let refused = WriteReply::Done(Err(sqlstate::no_thread()), write.history);
                    drop(write.reply.send(refused));
                }
            }
        }
    }

    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.queue.clear();
        self.wake.notify_all();
    }

    /// Copies the write-ahead log back if it has grown long. Never waits for readers.
    pub(crate) fn look_at_log(&self, database: &Database, conn: &Conn) {
        // One that began without the lease would write what nobody may read; a later look does it.
        if self.log_pages.load(Relaxed) < CHECKPOINT_PAGES || !database.config.fence.holds() {
            return;
        }
        self.log_pages.store(0, Relaxed);
        let checkpoint = || {
            seam::pass(Point::Checkpoint)?;
            conn.engine("PRAGMA wal_checkpoint(PASSIVE)")?;
            seam::pass(Point::Checkpointed)
        };
        if let Err(error) = checkpoint() {
            tracing::warn!(%error, "checkpoint");
            database.distrust(&sqlstate::from_sqlite(&error, &conn.guard), false);
        }
    }

    /// A counter for [`look_at_log`](Self::look_at_log) that a connection's commits keep.
    pub(crate) fn log_counter(&self) -> impl FnMut(&mut Wal, i32) -> rusqlite::Result<()> + Send + 'static {
        let log_pages = self.log_pages.clone();
        move |_: &mut Wal, pages: i32| {
            log_pages.store(i64::from(pages), Relaxed);
            Ok(())
        }
    }

    /// The first write of a group, or `None` when the thread should end.
    fn first(&self) -> Option<Write> {
        let mut state = self.lock();
        let until = Instant::now() + IDLE_THREAD;
        loop {
            if let Some(write) = state.queue.pop_front() {
                return Some(write);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                state.running = false;
                return None;
            }
            state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A further write for a group under those settings.
    fn further(&self, settings: Settings) -> Option<Write> {
        let mut state = self.lock();
        let fits =
            |write: &Write| write.settings == settings && !is_alone(&write.facts) && !write.facts.is_slow();
        if state.queue.front().is_some_and(fits) { state.queue.pop_front() } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a statement may not share a transaction.
fn is_alone(facts: &Facts) -> bool {
    facts.is_alone() || facts.kind == Kind::Vacuum
}

/// The life of the writer's thread.
fn work(database: &Arc<Database>) {
    let mut conn = None;
    while let Some(first) = database.writer.first() {
        let opened = match conn.take() {
            Some(conn) => Ok(conn),
            None => database.connect(Role::Writer),
        };
        let open = match opened {
            Ok(open) => open,
            Err(error) => {
                let error = sqlstate::from_sqlite(&error, &database.guard());
                drop(first.reply.send(WriteReply::Done(Err(error), first.history)));
                continue;
            }
        };
        // The lane is closed only when the engine goes away.
        let Some(turn) = database.lane.block() else { continue };
        let sound = group(database, &open, first);
        drop(turn);
        database.writer.look_at_log(database, &open);
        conn = sound.then_some(open);
    }
    drop(conn);
    database.writer.threads.fetch_sub(1, Relaxed);
}

/// A write that has been run and not been answered.
struct Ran {
    write: Write,
    outcome: Result<Outcome, SqlError>,
    history: History,
    /// Its savepoint could not be ended: nothing of the transaction may be committed.
    spoilt: bool,
}

impl Ran {
    /// Whether it took the transaction with it.
    fn is_undone(&self, conn: &Conn) -> bool {
        self.spoilt || conn.db.is_autocommit()
    }

    fn answer(self) {
        drop(self.write.reply.send(WriteReply::Done(self.outcome, self.history)));
    }
}

/// Runs a group that begins with `first`; false if the connection is good for nothing now.
fn group(database: &Database, conn: &Conn, first: Write) -> bool {
    let alone = is_alone(&first.facts) || first.facts.is_slow();
    if first.facts.kind == Kind::Vacuum {
        return vacuum(database, conn, first);
    }
    let settings = first.settings;
    if let Err(error) = begin(conn, settings) {
        let error = sqlstate::from_sqlite(&error, &conn.guard);
        drop(first.reply.send(WriteReply::Done(Err(error), first.history)));
        return conn.roll_back().is_ok();
    }
    let started = Instant::now();
    let mut ran = Vec::new();
    let mut next = Some(first);
    while let Some(write) = next.take() {
        if let Some(write) = run_one(database, conn, write) {
            if write.is_undone(conn) {
                write.write.facts.keep_alone();
                write.answer();
                return again(database, conn, ran);
            }
            ran.push(write);
        }
        if !alone && ran.len() < GROUP_STATEMENTS_MAX && started.elapsed() < GROUP_TIME {
            next = database.writer.further(settings);
        }
    }
    finish(database, conn, ran)
}

fn begin(conn: &Conn, settings: Settings) -> rusqlite::Result<()> {
    conn.apply(settings)?;
    seam::pass(Point::Begin)?;
    conn.engine("BEGIN IMMEDIATE")
}

fn commit(conn: &Conn) -> rusqlite::Result<()> {
    seam::pass(Point::Commit)?;
    conn.engine("COMMIT")?;
    seam::pass(Point::Committed)
}

fn answer(ran: Vec<Ran>) {
    for ran in ran {
        ran.answer();
        // There is no failing any more.
        let _ = seam::pass(Point::Told);
    }
}

/// Commits, and only then answers.
fn finish(database: &Database, conn: &Conn, mut ran: Vec<Ran>) -> bool {
    if errs(Bug::AcknowledgesUncommitted) {
        answer(std::mem::take(&mut ran));
    }
    if let Err(error) = database.hold() {
        return unanswerable(conn, ran, &error);
    }
    match commit(conn) {
        Ok(()) => {
            if errs(Bug::RecordApart) {
                ran.iter().for_each(|ran| keep_apart(database, conn, ran));
            }
            // It is durable, but whether it counts is for whoever has the lease now to say.
            if let Err(error) = database.hold() {
                return unanswerable(conn, ran, &error);
            }
            database.grouped_writes.fetch_add(ran.len() as u64, Relaxed);
            if ran.iter().any(|ran| matches!(ran.write.facts.command, "CREATE" | "DROP" | "ALTER")) {
                database.schema_changed();
            }
            answer(ran);
            true
        }
        Err(error) => {
            // Otherwise it was not even begun.
            let begun = conn.db.is_autocommit();
            let sound = conn.roll_back().is_ok();
            if sqlstate::is_constraint(&error) && ran.len() > 1 {
                return again(database, conn, ran);
            }
            let error = sqlstate::from_sqlite(&error, &conn.guard);
            database.distrust(&error, begun);
            for mut ran in ran {
                ran.outcome = ran.outcome.and_then(|_| Err(error.clone()));
                ran.history = ran.write.history;
                ran.answer();
            }
            sound && !error.sqlstate.starts_with("58")
        }
    }
}

/// The volume is another's: the process is being given up, and whether these count is not known here.
fn unanswerable(conn: &Conn, ran: Vec<Ran>, error: &SqlError) -> bool {
    for mut ran in ran {
        (ran.outcome, ran.history) = (Err(error.clone()), ran.write.history);
        ran.answer();
    }
    // Nobody is to write with this connection any more, however that ends.
    drop(conn.roll_back());
    false
}

/// Runs writes whose transaction was undone through no fault of theirs, each in one of its own.
fn again(database: &Database, conn: &Conn, undone: Vec<Ran>) -> bool {
    let mut sound = conn.roll_back().is_ok();
    for Ran { write, .. } in undone {
        if !sound {
            let error = sqlstate::shutting_down();
            drop(write.reply.send(WriteReply::Done(Err(error), write.history)));
            continue;
        }
        write.ticket.put_back();
        if let Err(error) = conn.engine("BEGIN IMMEDIATE") {
            let error = sqlstate::from_sqlite(&error, &conn.guard);
            drop(write.reply.send(WriteReply::Done(Err(error), write.history)));
            continue;
        }
        let ran = run_one(database, conn, write);
        sound = match ran {
            Some(ran) if ran.is_undone(conn) => {
                ran.answer();
                conn.roll_back().is_ok()
            }
            ran => finish(database, conn, ran.into_iter().collect()),
        };
    }
    sound
}

/// Runs one write in a savepoint of its own. `None` if it was withdrawn or has to run elsewhere.
fn run_one(database: &Database, conn: &Conn, write: Write) -> Option<Ran> {
    if !write.ticket.begin() {
        return None;
    }
    let started = Instant::now();
    let mut history = write.history;
    let (outcome, spoilt) = match in_savepoint(database, conn, &write, &mut history) {
        Ok(outcome) => (outcome, false),
        Err(error) => {
            history = write.history;
            (Err(error), true)
        }
    };
    if started.elapsed() > GROUP_TIME {
        write.facts.measured(false);
    }
    match outcome {
        Ok(Some(outcome)) => Some(Ran { write, outcome: Ok(outcome), history, spoilt }),
        Ok(None) => {
            write.ticket.put_back();
            drop(write.reply.send(WriteReply::NeedsSeat));
            None
        }
        Err(error) => {
            database.distrust(&error, false);
            Some(Ran { write, outcome: Err(error), history, spoilt })
        }
    }
}

/// # Errors
/// The savepoint could not be made or ended, so that what was done is not undone, or not alone.
fn in_savepoint(
    database: &Database,
    conn: &Conn,
    write: &Write,
    history: &mut History,
) -> Result<Result<Option<Outcome>, SqlError>, SqlError> {
    let failed = |error: rusqlite::Error| sqlstate::from_sqlite(&error, &conn.guard);
    conn.engine("SAVEPOINT _vamos_statement").map_err(failed)?;
    let acting = Acting::begin((database, &conn.guard), Mode::Guest, &write.ticket, i64::MAX, *history);
    let changes = conn.db.total_changes();
    let (mut outcome, mut undo) = match run_what(database, conn, write, history) {
        Ok((outcome, undo)) => (Ok(outcome), undo),
        // A statement that violates a constraint undid itself, but for what OR FAIL keeps on purpose.
        Err(error) => {
            let is_settled = matches!(write.what, What::Execute { .. }) && sqlstate::is_violation(&error);
            (Err(error), !is_settled)
        }
    };
    drop(acting);
    let did_something = conn.db.total_changes() != changes
        || matches!(write.facts.command, "CREATE" | "DROP" | "ALTER" | "PRAGMA");
    if !undo
        && did_something
        && !conn.db.is_autocommit()
        && let Err(error) = keep(database, conn, write, outcome.as_ref().map(Option::as_ref), *history)
    {
        (outcome, undo) = (Err(error), true);
        *history = write.history;
    }
    // Each of these may have ended the transaction.
    if !conn.db.is_autocommit() {
        if undo {
            conn.engine("ROLLBACK TO _vamos_statement").map_err(failed)?;
        }
        conn.engine("RELEASE _vamos_statement").map_err(failed)?;
    }
    Ok(outcome)
}

/// Records the outcome beside the effect.
fn keep(
    database: &Database,
    conn: &Conn,
    write: &Write,
    outcome: Result<Option<&Outcome>, &SqlError>,
    history: History,
) -> Result<(), SqlError> {
    seam::pass(Point::Effect).map_err(|error| sqlstate::from_sqlite(&error, &conn.guard))?;
    if errs(Bug::RecordApart) && !conn.db.is_autocommit() {
        return Ok(());
    }
    let recorded = match outcome {
        Ok(Some(Outcome::Page(page))) => record::of_page(page, history),
        Ok(Some(Outcome::Batch(batch))) if batch.executed > 0 => record::of_batch(batch, history),
        Ok(_) => return Ok(()),
        Err(error) => record::of_error(error, history),
    };
    write.entry.write(conn, &database.clock, &recorded)
}

/// Records the outcome when the data has been committed: what must not be done.
fn keep_apart(database: &Database, conn: &Conn, ran: &Ran) {
    if let Err(error) = keep(database, conn, &ran.write, ran.outcome.as_ref().map(Some), ran.history) {
        tracing::error!(%error, "record an outcome");
    }
}

/// Runs the statement; also says whether what it did has to be undone.
fn run_what(
    database: &Database,
    conn: &Conn,
    write: &Write,
    history: &mut History,
) -> Result<(Option<Outcome>, bool), SqlError> {
    let facts = &write.facts;
    let prepared = run::prepare(conn, facts, database.schema())?;
    let analysis = prepared.analysis.clone();
    if analysis.saw(seen::TEMP) {
        return Ok((None, false));
    }
    match &write.what {
        What::Batch { parameters, atomic } => {
            let run = run::batch(conn, facts, prepared, (parameters, *atomic), history)?;
            Ok((Some(Outcome::Batch(run.outcome)), run.undo))
        }
        What::Execute { parameters, rows } => {
            let before = Before::of(conn);
            let mut cursor = run::begin(conn, facts, prepared.statement, parameters)?;
            let mut set = Rowset { blocks: Vec::new(), rows: 0, done: false };
            while !set.done {
                let more = cursor.fill(PageLimit { rows: *rows, blocks: 1 }, &conn.guard);
                let more = more.inspect_err(|_| {
                    before.note(conn, facts, &analysis, history);
                })?;
                set.blocks.extend(more.blocks);
                set.rows += more.rows;
                set.done = more.done;
                if set.blocks.iter().map(Bytes::len).sum::<usize>() > RETURNING_BYTES_MAX {
                    let message = format!("the statement returns more than {RETURNING_BYTES_MAX} bytes");
                    return Err(sqlstate::limit(
                        message,
                        "Run it in a transaction, where the rows are fetched in parts.",
                    ));
                }
            }
            cursor.end();
            if analysis.saw(seen::SCHEMA) {
                database.schema_changed();
            }
            let end = run::completed(conn, facts, &analysis, before, history);
            Ok((Some(Outcome::Page(run::page(set, &analysis, Some(end)))), false))
        }
    }
}

/// VACUUM: no transaction, and a memory of its own size.
fn vacuum(database: &Database, conn: &Conn, write: Write) -> bool {
    if !write.ticket.begin() {
        return true;
    }
    let outcome = database
        .hold()
        .and_then(|()| try_vacuum(database, conn, &write))
        .and_then(|outcome| database.hold().map(|()| outcome))
        .inspect_err(|error| database.distrust(error, false));
    let sound = conn.roll_back().is_ok();
    drop(write.reply.send(WriteReply::Done(outcome, write.history)));
    sound
}

fn try_vacuum(database: &Database, conn: &Conn, write: &Write) -> Result<Outcome, SqlError> {
    let failed = |error: rusqlite::Error| sqlstate::from_sqlite(&error, &conn.guard);
    // SQLite itself lets VACUUM pass where it refuses every other write.
    if write.settings.read_only || write.settings.query_only {
        return Err(sqlstate::read_only());
    }
    let size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let bytes: i64 = conn.db.query_row(size, [], |row| row.get(0)).map_err(failed)?;
    if bytes.unsigned_abs() > VACUUM_BYTES_MAX {
        let message = format!("VACUUM of {bytes} bytes, the limit is {VACUUM_BYTES_MAX}");
        return Err(sqlstate::limit(message, "Free pages are used again without it."));
    }
    // It attaches a nameless database for the time being.
    conn.db.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 1).map_err(failed)?;
    let acting = Acting::begin((database, &conn.guard), Mode::Vacuum, &write.ticket, i64::MAX, write.history);
    let outcome = conn.db.execute_batch(&write.facts.text).map_err(failed);
    drop(acting);
    conn.db.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0).map_err(failed)?;
    outcome?;
    let end = Completed {
        changes: 0,
        last_insert_rowid: write.history.last_insert_rowid,
        command: write.facts.command,
        returns_rows: false,
    };
    Ok(Outcome::Page(Page { columns: Arc::new([]), blocks: Vec::new(), rows: 0, end: Some(end) }))
}
