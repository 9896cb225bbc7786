//! A session that goes on after a loss, and what of its requests need not be run again.

use std::sync::Arc;

use tokio::sync::oneshot;
use vamos_seam::{Bug, Point, errs};
use vamos_sql_protocol::message::Transaction;
use vamos_sql_server::SqlError;
use vamos_sql_server::engine::{BatchOutcome, Numbering, Page, Resumed, Resumption};

use super::{Call, Shared, SqliteSession};
use crate::connection::Conn;
use crate::engine::Database;
use crate::facts::Facts;
use crate::guard::Guard;
use crate::pool::Task;
use crate::record::{self, Entry, Ledger, Verdict};
use crate::seam;
use crate::sqlstate;
use crate::state::State;
use crate::text::Kind;
use crate::ticket::Ticket;

/// Goes on with a session, as soon as nothing of it is under way here any more.
pub(crate) async fn resume(
    database: Arc<Database>,
    ticket: Arc<Ticket>,
    resumption: Resumption,
) -> Result<Resumed<SqliteSession>, SqlError> {
    let Resumption { identity, sequence, acknowledged, state: packed } = resumption;
    let mut state = State::default();
    state.settings.read_only = database.config.read_only;
    if !packed.is_empty() {
        let unpacked = record::unpack_state(&packed, database.config.read_only);
        let Some((settings, history, had_temp)) = unpacked else {
            return Err(SqlError::protocol("the state of the session to resume is not one of this engine's"));
        };
        if had_temp {
            return Err(sqlstate::temporary_objects_lost());
        }
        if !errs(Bug::SettingsForgotten) {
            state.settings = settings;
        }
        if !errs(Bug::HistoryForgotten) {
            state.history = history;
        }
    }
    let tenure = database.tenures.succeed(identity.key, &ticket).await?;
    let ledger =
        look_up(&database, &ticket, move |conn| Ledger::read(conn, identity.key, acknowledged)).await?;
    ledger.check(sequence)?;
    seam::pass(Point::Resumed).map_err(|error| sqlstate::from_sqlite(&error, &Guard::new()))?;
    let recorded = ledger.recorded.clone();
    Ok(Resumed { session: SqliteSession::with(database, tenure, ledger, state), recorded })
}

/// Reads something of the engine's own on a thread of the pool.
async fn look_up<T: Send + 'static>(
    database: &Arc<Database>,
    ticket: &Arc<Ticket>,
    read: impl FnOnce(&Conn) -> Result<T, SqlError> + Send + 'static,
) -> Result<T, SqlError> {
    let (reply, receiver) = oneshot::channel();
    let (own, leased) = (ticket.clone(), database.clone());
    let task = Task::Own(Box::new(move |conn: Result<&Conn, SqlError>| {
        if own.begin() {
            let found = conn.and_then(read);
            drop(reply.send(found.and_then(|found| leased.hold().map(|()| found))));
        }
    }));
    database.pool.submit(database, task);
    ticket.outcome(receiver).await?
}

impl Shared {
    /// Whether a request is to be run. What is within a transaction has no effect before that ends, so it
    /// may be run again and again.
    pub(super) fn judge(&self, kind: &Kind, numbering: Numbering) -> Result<Verdict, SqlError> {
        let begins = matches!(kind, Kind::Begin { .. } | Kind::Savepoint);
        if !numbering.repeated || begins || self.state().transaction != Transaction::None {
            return Ok(Verdict::Run);
        }
        self.ledger.judge(numbering)
    }

    /// Under what a request's outcome is recorded.
    pub(super) fn entry(
        &self,
        numbering: Numbering,
        facts: &Facts,
        parameters: &[u8],
        atomic: Option<bool>,
    ) -> Entry {
        Entry::new(&self.tenure, numbering, record::digest(facts, parameters, atomic))
    }

    /// The recorded outcome of a request.
    async fn recall(&self, ticket: &Arc<Ticket>, entry: Entry) -> Result<record::Outcome, SqlError> {
        let recall = look_up(&self.database, ticket, move |conn| record::recall(conn, &entry)).await?;
        self.state().history = recall.history;
        recall.outcome
    }

    pub(super) async fn recall_page(self: Arc<Self>, call: Call) -> Result<Page, SqlError> {
        let entry = self.entry(call.numbering, &call.facts, &call.parameters, None);
        match self.recall(&call.ticket, entry).await? {
            record::Outcome::Page(page) => Ok(self.state().spool(call.numbering.number, page, call.limit)),
            record::Outcome::Batch(_) => Err(sqlstate::record_gone(call.numbering.number)),
        }
    }

    pub(super) async fn recall_batch(
        self: Arc<Self>,
        ticket: Arc<Ticket>,
        entry: Entry,
    ) -> Result<BatchOutcome, SqlError> {
        let number = entry.number();
        match self.recall(&ticket, entry).await? {
            record::Outcome::Batch(outcome) => Ok(outcome),
            record::Outcome::Page(_) => Err(sqlstate::record_gone(number)),
        }
    }
}
