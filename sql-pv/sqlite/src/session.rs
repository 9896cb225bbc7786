//! One client's session: where each of its statements runs, and what is kept for it in between.
//!
//! ```text
//!             BEGIN, SAVEPOINT, CREATE TEMP            COMMIT, ROLLBACK, last temporary object dropped
//!   FREE ───────────────────────────────────▶ SEATED ───────────────────────────────────────▶ FREE
//!    │ reads: inline or pool                    │ everything runs at the seat
//!    │ writes: writer                           │ rolled back by an error or by idleness
//!    │ a read's cursor stays open:              ▼
//!    │ it has a seat of its own               FAILED: only ROLLBACK is accepted; COMMIT says so too
//! ```

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;
use vamos_sql_protocol::message::Transaction;
use vamos_sql_server::SqlError;
use vamos_sql_server::engine::{
    Answer, BatchExecution, BatchOutcome, Description, EngineSession, Execution, Numbering, Page, PageLimit,
    Pending,
};

use crate::engine::Database;
use crate::facts::Facts;
use crate::lane::Turn;
use crate::pool::{self, ReadReply, Task};
use crate::pragma::{self, Course};
use crate::record::{self, Entry, Ledger, Verdict};
use crate::seat::{self, Outcome, Request, Seat};
use crate::sqlstate;
use crate::state::{State, empty_page, row_page};
use crate::tenure::Tenure;
use crate::text::Kind;
use crate::ticket::{Lost, Ticket};
use crate::writer::{self, WriteReply};

mod describe;
mod repeat;

pub(crate) use repeat::resume;

/// A session of the embedded engine.
pub struct SqliteSession {
    shared: Arc<Shared>,
}

/// What a session and its requests under way share; at most one request is.
struct Shared {
    database: Arc<Database>,
    tenure: Arc<Tenure>,
    /// What was recorded of the session before it went on here.
    ledger: Ledger,
    state: Mutex<State>,
}

/// One statement on its way.
#[derive(Clone)]
struct Call {
    ticket: Arc<Ticket>,
    facts: Arc<Facts>,
    numbering: Numbering,
    parameters: Bytes,
    limit: PageLimit,
}

impl SqliteSession {
    pub(crate) fn new(database: Arc<Database>, tenure: Arc<Tenure>) -> Self {
        let mut state = State::default();
        state.settings.read_only = database.config.read_only;
        Self::with(database, tenure, Ledger::default(), state)
    }

    fn with(database: Arc<Database>, tenure: Arc<Tenure>, ledger: Ledger, state: State) -> Self {
        Self { shared: Arc::new(Shared { database, tenure, ledger, state: Mutex::new(state) }) }
    }

    fn ticket(&self) -> Arc<Ticket> {
        Arc::new(Ticket::new(self.shared.database.config.statement_deadline))
    }

    fn pending<T>(
        &self,
        ticket: &Arc<Ticket>,
        outcome: impl Future<Output = Result<T, SqlError>> + Send + 'static,
    ) -> Answer<T> {
        Answer::Pending(Pending { outcome: Box::pin(outcome), cancel: ticket.clone() })
    }

    /// What a PRAGMA comes to: an answer, or the statement to run in its place.
    fn pragma(&self, call: &mut Call) -> Option<Result<Page, SqlError>> {
        let Kind::Pragma(pragma) = &call.facts.kind else { return None };
        let mut state = self.shared.state();
        let open = state.transaction == Transaction::Open;
        match pragma::decide(pragma, &mut state.settings, open) {
            Course::Run => None,
            // It holds until the end of a transaction: without one, for nothing.
            Course::Write if pragma.name == "defer_foreign_keys" && !open => {
                Some(Ok(empty_page("PRAGMA", &state.history)))
            }
            Course::Write => None,
            Course::RunAs(text) => {
                call.facts = self.shared.database.facts.facts(text.into());
                None
            }
            Course::Answer(names, row) => Some(Ok(row_page(&names, row, &state.history))),
            Course::Refuse(what) => Some(Err(sqlstate::not_authorized(format!("not authorized: {what}")))),
        }
    }
}

impl EngineSession for SqliteSession {
    type Statement = Arc<Facts>;

    fn state(&self) -> Bytes {
        self.shared.state().packed()
    }

    fn fail(&mut self, error: SqlError) -> Answer<()> {
        let ended = self.close();
        self.shared.state().lose(error);
        ended
    }

    fn transaction(&self) -> Transaction {
        let state = self.shared.state();
        if state.failed.is_some() { Transaction::Failed } else { state.transaction }
    }

    fn execute(&mut self, execution: Execution<Arc<Facts>>) -> Answer<Page> {
        let Execution { numbering, statement: facts, parameters, limit } = execution;
        let ticket = self.ticket();
        let mut call = Call { ticket: ticket.clone(), facts, numbering, parameters, limit };
        match self.shared.judge(&call.facts.kind, numbering) {
            Ok(Verdict::Run) => {}
            Ok(Verdict::Recall) => {
                let shared = self.shared.clone();
                return self.pending(&ticket, async move { shared.recall_page(call).await });
            }
            Err(error) => return Answer::refused(error),
        }
        if let Some(answer) = self.shared.settle(&call.facts) {
            return Answer::Ready(answer);
        }
        if let Some(answer) = self.pragma(&mut call) {
            return Answer::Ready(answer);
        }
        let shared = self.shared.clone();
        let (is_free, history) = {
            let state = shared.state();
            (state.seat.is_none(), state.history)
        };
        match call.facts.kind {
            _ if !is_free => self.pending(&ticket, async move { shared.at_seat(call).await }),
            Kind::Begin { .. } | Kind::Savepoint => {
                self.pending(&ticket, async move { shared.sit_down(call).await })
            }
            Kind::Commit | Kind::Rollback | Kind::RollbackTo | Kind::Release => {
                Answer::refused(sqlstate::no_transaction(call.facts.command))
            }
            Kind::Read | Kind::Pragma(_) => {
                let (database, of) = (&shared.database, (&call.parameters, limit.rows));
                if let Some(page) = database.inline.run(database, &call.facts, of, &ticket, history) {
                    database.inlined.fetch_add(1, Relaxed);
                    return Answer::Ready(Ok(page));
                }
                self.pending(&ticket, async move { shared.read(call).await })
            }
            _ => self.pending(&ticket, async move { shared.write(call).await }),
        }
    }

    fn batch(&mut self, batch: BatchExecution<Arc<Facts>>) -> Answer<BatchOutcome> {
        let BatchExecution { numbering, statement: facts, parameters, atomic } = batch;
        if !matches!(facts.kind, Kind::Read | Kind::Write) {
            return Answer::refused(sqlstate::unsupported(format!("{} in a batch", facts.command)));
        }
        if let Some(Err(error)) = self.shared.settle(&facts) {
            return Answer::refused(error);
        }
        let (ticket, shared) = (self.ticket(), self.shared.clone());
        let own = ticket.clone();
        let entry = shared.entry(numbering, &facts, &parameters, Some(atomic));
        match shared.judge(&facts.kind, numbering) {
            Ok(Verdict::Run) => {}
            Ok(Verdict::Recall) => {
                return self.pending(&ticket, async move { shared.recall_batch(own, entry).await });
            }
            Err(error) => return Answer::refused(error),
        }
        self.pending(&ticket, async move { shared.batch(own, facts, (parameters, atomic), entry).await })
    }

    fn fetch(&mut self, cursor: u64, limit: PageLimit) -> Answer<Page> {
        let ticket = self.ticket();
        let mut state = self.shared.state();
        if let Some(page) = state.take_spooled(cursor, limit) {
            return Answer::Ready(Ok(page));
        }
        let Some(seat) = state.cursors.get(&cursor).or(state.seat.as_ref()).cloned() else {
            return Answer::refused(sqlstate::no_cursor(cursor));
        };
        drop(state);
        let (shared, own) = (self.shared.clone(), ticket.clone());
        self.pending(&ticket, async move { shared.fetch(seat, own, cursor, limit).await })
    }

    fn close_cursor(&mut self, cursor: u64) -> Answer<()> {
        let mut state = self.shared.state();
        state.spooled.remove(&cursor);
        // A cursor's own seat is freed by letting go of it.
        if state.cursors.remove(&cursor).is_some() {
            return Answer::Ready(Ok(()));
        }
        let Some(seat) = state.seat.clone() else { return Answer::Ready(Ok(())) };
        drop(state);
        let (shared, ticket) = (self.shared.clone(), self.ticket());
        let own = ticket.clone();
        // Sent now, not when the outcome is asked for: nobody may ask.
        let (job, receiver) = shared.job(&own, Request::CloseCursor { cursor }, None);
        seat.send(job);
        self.pending(&ticket, async move { shared.hear(&seat, &own, receiver).await.map(drop) })
    }

    fn describe(&mut self, facts: Arc<Facts>) -> Answer<Description> {
        if !matches!(facts.kind, Kind::Read | Kind::Write | Kind::Pragma(_)) {
            let (columns, command) = (Arc::from([]), facts.command);
            return Answer::Ready(Ok(Description { parameters: 0, columns, read_only: true, command }));
        }
        let is_free = self.shared.state().seat.is_none();
        if is_free && let Some(analysis) = facts.analysis(self.shared.database.schema()) {
            return Answer::Ready(Ok(Description {
                parameters: analysis.parameters as u32,
                columns: analysis.columns.clone(),
                read_only: analysis.read_only,
                command: crate::run::command(&facts, &analysis),
            }));
        }
        let (shared, ticket) = (self.shared.clone(), self.ticket());
        let own = ticket.clone();
        self.pending(&ticket, async move { shared.describe(own, facts).await })
    }

    fn close(&mut self) -> Answer<()> {
        let mut state = self.shared.state();
        state.cursors.clear();
        state.spooled.clear();
        let Some(seat) = state.seat.take() else { return Answer::Ready(Ok(())) };
        drop(state);
        let (shared, ticket) = (self.shared.clone(), self.ticket());
        let own = ticket.clone();
        let (job, receiver) = shared.job(&own, Request::Leave, None);
        seat.send(job);
        // However it ends, the seat is left.
        self.pending(&ticket, async move {
            let _ = own.outcome(receiver).await;
            Ok(())
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deals with statements that need nothing but the session's state, and with a failed transaction.
    fn settle(&self, facts: &Facts) -> Option<Result<Page, SqlError>> {
        if self.database.is_distrusted() {
            return Some(Err(sqlstate::shutting_down()));
        }
        let mut state = self.state();
        if let Some(seat) = &state.seat
            && seat.take_expired()
        {
            state.lose(sqlstate::idle_transaction());
        }
        let history = state.history;
        if facts.kind == Kind::Empty {
            return Some(Ok(empty_page("", &history)));
        }
        let error = state.failed.clone()?;
        match facts.kind {
            Kind::Rollback => {
                state.failed = None;
                Some(Ok(empty_page("ROLLBACK", &history)))
            }
            Kind::Commit => {
                state.failed = None;
                Some(Err(error))
            }
            _ => Some(Err(error)),
        }
    }

    /// An autocommit read.
    async fn read(self: Arc<Self>, call: Call) -> Result<Page, SqlError> {
        let what = pool::What::Execute {
            cursor: call.numbering.number,
            parameters: call.parameters.clone(),
            limit: call.limit,
        };
        match self.pooled(&call.ticket, &call.facts, what).await? {
            ReadReply::Page(page) => page,
            ReadReply::Suspended(page, seat) => {
                self.state().cursors.insert(call.numbering.number, Arc::new(seat));
                Ok(page)
            }
            ReadReply::Writes => self.write(call).await,
            ReadReply::NeedsSeat => self.sit_down(call).await,
            ReadReply::Described(_) => Err(Lost::Executor.into()),
        }
    }

    async fn pooled(
        &self,
        ticket: &Arc<Ticket>,
        facts: &Arc<Facts>,
        what: pool::What,
    ) -> Result<ReadReply, SqlError> {
        let (reply, receiver) = oneshot::channel();
        let (settings, history) = {
            let state = self.state();
            (state.settings, state.history)
        };
        let read = {
            let (ticket, facts, tenure) = (ticket.clone(), facts.clone(), self.tenure.clone());
            pool::Read { ticket, facts, what, settings, history, tenure, reply }
        };
        self.database.pool.submit(&self.database, Task::Read(read));
        Ok(ticket.outcome(receiver).await?)
    }

    /// An autocommit write.
    async fn write(self: Arc<Self>, call: Call) -> Result<Page, SqlError> {
        let what = writer::What::Execute { parameters: call.parameters.clone(), rows: call.limit.rows };
        let entry = self.entry(call.numbering, &call.facts, &call.parameters, None);
        match self.written(&call.ticket, &call.facts, what, entry).await? {
            Some(record::Outcome::Page(page)) => {
                Ok(self.state().spool(call.numbering.number, page, call.limit))
            }
            Some(record::Outcome::Batch(_)) => Err(Lost::Executor.into()),
            None => self.sit_down(call).await,
        }
    }

    /// `None`: it needs a seat.
    async fn written(
        &self,
        ticket: &Arc<Ticket>,
        facts: &Arc<Facts>,
        what: writer::What,
        entry: Entry,
    ) -> Result<Option<record::Outcome>, SqlError> {
        let (reply, receiver) = oneshot::channel();
        let (settings, history) = {
            let state = self.state();
            (state.settings, state.history)
        };
        let write = writer::Write {
            ticket: ticket.clone(),
            facts: facts.clone(),
            what,
            settings,
            history,
            entry,
            reply,
        };
        self.database.writer.submit(&self.database, write);
        match ticket.outcome(receiver).await? {
            WriteReply::Done(outcome, history) => {
                self.state().history = history;
                outcome.map(Some)
            }
            WriteReply::NeedsSeat => Ok(None),
        }
    }

    /// Takes a seat, and runs the statement there that needs it.
    async fn sit_down(self: Arc<Self>, call: Call) -> Result<Page, SqlError> {
        let seat = self.take_seat(&call.ticket).await?;
        let turn = match call.facts.kind {
            Kind::Begin { immediate: true } => Some(self.database.lane.turn(&call.ticket).await?),
            _ => None,
        };
        self.state().seat = Some(seat);
        self.run_at_seat(call, turn).await
    }

    async fn take_seat(&self, ticket: &Ticket) -> Result<Arc<Seat>, SqlError> {
        let seats = self.database.seats.clone();
        let place = tokio::select! {
            biased;
            place = seats.acquire_owned() => place.map_err(|_| sqlstate::shutting_down())?,
            () = ticket.stopped() => return Err(sqlstate::no_seat(self.database.config.seats_max)),
        };
        let (seat, task) = seat::new(place, self.tenure.clone());
        self.database.pool.submit(&self.database, Task::Seat(task));
        Ok(Arc::new(seat))
    }

    /// Runs a statement of a session that has a seat.
    async fn at_seat(self: Arc<Self>, call: Call) -> Result<Page, SqlError> {
        let turn = match call.facts.kind {
            Kind::Begin { immediate: true } if self.state().transaction == Transaction::None => {
                Some(self.database.lane.turn(&call.ticket).await?)
            }
            Kind::Vacuum => {
                return Err(sqlstate::unsupported("VACUUM in a transaction or with temporary objects"));
            }
            _ => None,
        };
        self.run_at_seat(call, turn).await
    }

    async fn run_at_seat(self: Arc<Self>, call: Call, turn: Option<Turn>) -> Result<Page, SqlError> {
        let Call { ticket, facts, numbering, parameters, limit } = call;
        let ends = matches!(facts.kind, Kind::Commit | Kind::Release);
        let entry = ends.then(|| self.entry(numbering, &facts, &parameters, None));
        let request = Request::Execute { facts, cursor: numbering.number, parameters, limit, entry };
        match self.ask(&ticket, request, turn).await? {
            Outcome::Page(page) => Ok(page),
            _ => Err(Lost::Executor.into()),
        }
    }

    /// Asks the session's seat; gets a turn of the write lane if that turns out to be needed.
    async fn ask(
        &self,
        ticket: &Arc<Ticket>,
        request: Request,
        turn: Option<Turn>,
    ) -> Result<Outcome, SqlError> {
        let Some(seat) = self.state().seat.clone() else { return Err(Lost::Executor.into()) };
        let (job, receiver) = self.job(ticket, request.clone(), turn);
        seat.send(job);
        match self.hear(&seat, ticket, receiver).await? {
            Outcome::NeedsTurn => match self.database.lane.turn(ticket).await {
                Ok(turn) => {
                    let (job, receiver) = self.job(ticket, request, Some(turn));
                    seat.send(job);
                    self.hear(&seat, ticket, receiver).await
                }
                Err(error) => {
                    // Asked for nothing, the seat sees whether it has anything to stay for.
                    let ticket = Arc::new(Ticket::new(self.database.config.statement_deadline));
                    let (job, receiver) = self.job(&ticket, Request::CloseCursor { cursor: 0 }, None);
                    seat.send(job);
                    let _ = self.hear(&seat, &ticket, receiver).await;
                    Err(error)
                }
            },
            outcome => Ok(outcome),
        }
    }

    fn job(
        &self,
        ticket: &Arc<Ticket>,
        request: Request,
        turn: Option<Turn>,
    ) -> (seat::Job, oneshot::Receiver<seat::Reply>) {
        let (reply, receiver) = oneshot::channel();
        let state = self.state();
        let (settings, history) = (state.settings, state.history);
        (seat::Job { ticket: ticket.clone(), request, settings, history, turn, reply }, receiver)
    }

    /// Waits for a seat's reply and notes where the session stands.
    async fn hear(
        &self,
        seat: &Arc<Seat>,
        ticket: &Ticket,
        receiver: oneshot::Receiver<seat::Reply>,
    ) -> Result<Outcome, SqlError> {
        let reply = match ticket.outcome(receiver).await {
            Ok(reply) => reply,
            Err(Lost::Stopped(error)) => return Err(error),
            Err(Lost::Executor) => {
                let mut state = self.state();
                let had = state.transaction == Transaction::Open;
                let error = match seat.refusal() {
                    Some(error) => error,
                    None if seat.take_expired() => sqlstate::idle_transaction(),
                    None => Lost::Executor.into(),
                };
                state.seat = None;
                state.has_temp = false;
                if had {
                    state.lose(error.clone());
                }
                return Err(error);
            }
        };
        let mut state = self.state();
        state.history = reply.history;
        state.note(reply.standing);
        reply.outcome
    }

    async fn batch(
        self: Arc<Self>,
        ticket: Arc<Ticket>,
        facts: Arc<Facts>,
        (parameters, atomic): (Bytes, bool),
        entry: Entry,
    ) -> Result<BatchOutcome, SqlError> {
        let is_free = self.state().seat.is_none();
        if is_free {
            let what = writer::What::Batch { parameters: parameters.clone(), atomic };
            match self.written(&ticket, &facts, what, entry).await? {
                Some(record::Outcome::Batch(outcome)) => return Ok(outcome),
                Some(record::Outcome::Page(_)) => return Err(Lost::Executor.into()),
                None => {
                    let seat = self.take_seat(&ticket).await?;
                    self.state().seat = Some(seat);
                }
            }
        }
        match self.ask(&ticket, Request::Batch { facts, parameters, atomic }, None).await? {
            Outcome::Batch(outcome) => Ok(outcome),
            _ => Err(Lost::Executor.into()),
        }
    }

    async fn fetch(
        self: Arc<Self>,
        seat: Arc<Seat>,
        ticket: Arc<Ticket>,
        cursor: u64,
        limit: PageLimit,
    ) -> Result<Page, SqlError> {
        let is_own = self.state().cursors.contains_key(&cursor);
        let (job, receiver) = self.job(&ticket, Request::Fetch { cursor, limit }, None);
        seat.send(job);
        if !is_own {
            return match self.hear(&seat, &ticket, receiver).await? {
                Outcome::Page(page) => Ok(page),
                _ => Err(Lost::Executor.into()),
            };
        }
        let reply = match ticket.outcome(receiver).await {
            Ok(reply) => reply,
            Err(Lost::Stopped(error)) => return Err(error),
            Err(Lost::Executor) => {
                self.state().cursors.remove(&cursor);
                return Err(sqlstate::no_cursor(cursor));
            }
        };
        if reply.standing.left {
            self.state().cursors.remove(&cursor);
        }
        match reply.outcome? {
            Outcome::Page(page) => Ok(page),
            _ => Err(Lost::Executor.into()),
        }
    }
}
