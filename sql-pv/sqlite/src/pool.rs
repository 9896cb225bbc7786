//! Threads with a connection each, for autocommit reads and for seats. They are started by need, end
//! when idle, and one that becomes a seat is made up for by another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use vamos_sql_server::SqlError;
use vamos_sql_server::engine::{Description, Page, PageLimit};

use crate::connection::{Conn, Role, Settings};
use crate::cursor::Cursor;
use crate::engine::Database;
use crate::facts::{Analysis, Facts};
use crate::guard::{History, Mode, seen};
use crate::limits::{IDLE_THREAD, INLINE_TIME};
use crate::run::{self, Acting};
use crate::seat::{self, Keep, Seat, SeatTask};
use crate::sqlstate;
use crate::tenure::Tenure;
use crate::ticket::Ticket;

/// An autocommit read.
pub(crate) struct Read {
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) what: What,
    pub(crate) settings: Settings,
    pub(crate) history: History,
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) reply: oneshot::Sender<ReadReply>,
}

/// What to do with the statement.
pub(crate) enum What {
    Execute { cursor: u64, parameters: Bytes, limit: PageLimit },
    Describe,
}

/// What became of a read.
pub(crate) enum ReadReply {
    Page(Result<Page, SqlError>),
    /// The first page; the rest is at a seat.
    Suspended(Page, Seat),
    Described(Result<Description, SqlError>),
    /// It writes: not for here.
    Writes,
    /// It needs a connection of its own.
    NeedsSeat,
}

/// What the engine itself does with a connection, or without one.
type Own = dyn FnOnce(Result<&Conn, SqlError>) + Send;

/// Work for a thread of the pool.
pub(crate) enum Task {
    Read(Read),
    /// Serve one session until it needs no connection of its own any more.
    Seat(SeatTask),
    /// Look something up for the engine itself, or hear why that cannot be.
    Own(Box<Own>),
}

/// The threads and their queue.
pub(crate) struct Pool {
    state: Mutex<State>,
    wake: Condvar,
    readers_max: usize,
    threads: AtomicUsize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Task>,
    idle: usize,
    /// Threads that are not seats.
    readers: usize,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(readers_max: usize) -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), readers_max, threads: AtomicUsize::new(0) }
    }

    /// Threads alive.
    pub(crate) fn threads(&self) -> usize {
        self.threads.load(Relaxed)
    }

    /// Queues a task; somebody will take it up. Dropped when the engine is going away.
    pub(crate) fn submit(&self, database: &Arc<Database>, task: Task) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let is_seat = matches!(task, Task::Seat(_));
        // A session that waits for its own connection does not wait behind reads.
        if is_seat {
            state.queue.push_front(task)
        } else {
            state.queue.push_back(task)
        }
        if state.idle >= state.queue.len() {
            self.wake.notify_one();
        } else if is_seat || state.readers < self.readers_max {
            self.start(&mut state, database);
        }
    }

    /// The calling thread becomes a seat; another takes its place if there is work.
    fn leave(&self, database: &Arc<Database>) {
        let mut state = self.lock();
        state.readers -= 1;
        if !state.queue.is_empty() && state.idle == 0 && state.readers < self.readers_max {
            self.start(&mut state, database);
        }
    }

    /// A seat becomes one of the pool's threads again, unless there are enough.
    fn rejoin(&self) -> bool {
        let mut state = self.lock();
        let is_wanted = state.readers < self.readers_max && !state.closed;
        if is_wanted {
            state.readers += 1;
        }
        is_wanted
    }

    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.queue.clear();
        self.wake.notify_all();
    }

    fn start(&self, state: &mut State, database: &Arc<Database>) {
        state.readers += 1;
        self.threads.fetch_add(1, Relaxed);
        let own = database.clone();
        let started = thread::Builder::new().name("sqlite-worker".to_owned()).spawn(move || {
            work(&own);
            own.pool.threads.fetch_sub(1, Relaxed);
        });
        if let Err(error) = started {
            tracing::warn!(%error, "start a worker thread");
            state.readers -= 1;
            self.threads.fetch_sub(1, Relaxed);
            // Whoever is still there will come to the task. A seat will not: it is one session's for as long as that
            // likes.
            if state.readers == 0 {
                state.queue.drain(..).for_each(|task| refuse(task, sqlstate::no_thread()));
            }
        }
    }

    /// The next task, or `None` when the thread should end; it does not count as a reader then.
    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        let until = Instant::now() + IDLE_THREAD;
        loop {
            if let Some(task) = state.queue.pop_front() {
                return Some(task);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                state.readers -= 1;
                return None;
            }
            state.idle += 1;
            state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The life of a thread: as many connections as it takes, one at a time.
fn work(database: &Arc<Database>) {
    let mut conn = None;
    while let Some(task) = database.pool.next() {
        let opened = match conn.take() {
            Some(conn) => Ok(conn),
            None => database.connect(Role::Reader),
        };
        let open = match opened {
            Ok(open) => open,
            Err(error) => {
                refuse(task, sqlstate::from_sqlite(&error, &database.guard()));
                continue;
            }
        };
        let keep = match task {
            Task::Read(read) => serve(database, &open, read),
            Task::Own(own) => {
                own(Ok(&open));
                Keep::Connection
            }
            Task::Seat(task) => {
                database.pool.leave(database);
                let keep = seat::serve(database, &open, task, Vec::new());
                rejoin(database, keep)
            }
        };
        match keep {
            Keep::Connection => conn = Some(open),
            Keep::Thread => {}
            Keep::Nothing => return,
        }
    }
}

/// What a thread that was a seat keeps.
fn rejoin(database: &Database, keep: Keep) -> Keep {
    if database.pool.rejoin() { keep } else { Keep::Nothing }
}

fn refuse(task: Task, error: SqlError) {
    match task {
        Task::Read(read) => drop(read.reply.send(ReadReply::Page(Err(error)))),
        Task::Seat(task) => task.refuse(error),
        Task::Own(own) => own(Err(error)),
    }
}

/// Runs one read, and goes on as a seat if its cursor stays open.
fn serve(database: &Arc<Database>, conn: &Conn, read: Read) -> Keep {
    let Read { ticket, facts, what, settings, history, tenure, reply } = read;
    if !ticket.begin() {
        return Keep::Connection;
    }
    let (cursor, parameters, limit) = match what {
        What::Execute { cursor, parameters, limit } => (cursor, parameters, limit),
        What::Describe => {
            drop(reply.send(ReadReply::Described(describe(database, conn, &facts, &ticket))));
            return Keep::Connection;
        }
    };
    let acting = Acting::begin((database, &conn.guard), Mode::Guest, &ticket, i64::MAX, history);
    let schema = database.schema();
    let prepared = match conn.apply(settings) {
        Ok(()) => run::prepare(conn, &facts, schema),
        Err(error) => Err(sqlstate::from_sqlite(&error, &conn.guard)),
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            drop(acting);
            drop(reply.send(ReadReply::Page(Err(error))));
            return Keep::Connection;
        }
    };
    if !prepared.analysis.read_only {
        ticket.put_back();
        let needs_seat = prepared.analysis.saw(seen::TEMP);
        drop(prepared);
        drop(acting);
        drop(reply.send(if needs_seat { ReadReply::NeedsSeat } else { ReadReply::Writes }));
        return Keep::Connection;
    }
    let analysis = prepared.analysis.clone();
    let started = Instant::now();
    let begun = run::begin(conn, &facts, prepared.statement, &parameters);
    let filled = begun.and_then(|mut cursor| cursor.fill(limit, &conn.guard).map(|set| (cursor, set)));
    let quick = started.elapsed() <= INLINE_TIME;
    drop(acting);
    let filled = filled.and_then(|filled| database.hold().map(|()| filled));
    match filled {
        Err(error) => {
            drop(reply.send(ReadReply::Page(Err(error))));
            Keep::Connection
        }
        Ok((begun, set)) if set.done => {
            begun.end();
            facts.measured(quick && set.blocks.len() <= 1);
            let mut history = history;
            let end = run::completed(conn, &facts, &analysis, run::Before::of(conn), &mut history);
            let page = run::page(set, &analysis, Some(end));
            if facts.is_quick() && database.inline.is_wanted() {
                match database.connect(Role::Inline) {
                    Ok(conn) => database.inline.offer(conn),
                    Err(error) => tracing::warn!(%error, "open the inline connection"),
                }
            }
            drop(reply.send(ReadReply::Page(Ok(page))));
            Keep::Connection
        }
        Ok((begun, set)) => {
            facts.measured(false);
            let Ok(place) = database.seats.clone().try_acquire_owned() else {
                let error = sqlstate::no_seat(database.config.seats_max);
                drop(reply.send(ReadReply::Page(Err(error))));
                return Keep::Connection;
            };
            let page = run::page(set, &analysis, None);
            stay(database, conn, (cursor, begun), (facts, analysis), page, (place, tenure), reply)
        }
    }
}

/// The thread stays with an open cursor.
fn stay<'c>(
    database: &Arc<Database>,
    conn: &'c Conn,
    (cursor, begun): (u64, Cursor<'c>),
    (facts, analysis): (Arc<Facts>, Arc<Analysis>),
    page: Page,
    (place, tenure): (OwnedSemaphorePermit, Arc<Tenure>),
    reply: oneshot::Sender<ReadReply>,
) -> Keep {
    let (seat, task) = seat::new(place, tenure);
    if reply.send(ReadReply::Suspended(page, seat)).is_err() {
        return Keep::Connection;
    }
    database.pool.leave(database);
    let open = seat::Open { name: cursor, cursor: begun, facts, analysis, before: run::Before::of(conn) };
    let keep = seat::serve(database, conn, task, vec![open]);
    rejoin(database, keep)
}

/// Says what a statement is without running it.
pub(crate) fn describe(
    database: &Database,
    conn: &Conn,
    facts: &Facts,
    ticket: &Arc<Ticket>,
) -> Result<Description, SqlError> {
    let mode = if conn.db.is_autocommit() && !conn.has_temp.get() { Mode::Guest } else { Mode::Seated };
    let _acting = Acting::begin((database, &conn.guard), mode, ticket, i64::MAX, History::default());
    let prepared = run::prepare(conn, facts, database.schema())?;
    Ok(Description {
        parameters: prepared.analysis.parameters as u32,
        columns: prepared.analysis.columns.clone(),
        read_only: prepared.analysis.read_only,
        command: run::command(facts, &prepared.analysis),
    })
}
