//! What executes SQL, as the sessions see it: embedded SQLite today, a remote server through the same
//! traits.
//!
//! An engine session is called by one request at a time. A call either answers at once
//! ([`Answer::Ready`]: the link's thread goes on without a hand-over) or promises to
//! ([`Answer::Pending`]). Neither may block.
//!
//! Exactly once: a write's outcome is recorded by the engine, which alone can do so in the transaction of
//! the data, under the session's key and the request's number with a digest of the request. A request that
//! is sent again gets the recorded outcome; another request under the same number is an error.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use vamos_sql_protocol::message::{Column, Transaction};

use crate::error::SqlError;

/// A future that owns all it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Interrupts one request.
pub trait Cancel: Send + Sync {
    /// Asks for the request to end soon with SQLSTATE 57014; too late is not an error.
    fn cancel(&self);
}

/// The outcome of a call, now or later.
pub enum Answer<T> {
    /// It is here.
    Ready(Result<T, SqlError>),
    /// It is being worked on.
    Pending(Pending<T>),
}

impl<T> Answer<T> {
    /// An outcome that is an error.
    pub fn refused(error: SqlError) -> Self {
        Answer::Ready(Err(error))
    }
}

/// An outcome that is being worked on.
pub struct Pending<T> {
    /// Ends with the outcome. Dropping it abandons the request.
    pub outcome: BoxFuture<Result<T, SqlError>>,
    /// Interrupts it.
    pub cancel: Arc<dyn Cancel>,
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

/// Who a session is towards the engine; both numbers are the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionIdentity {
    /// Minted for the session.
    pub key: u64,
    /// Generation of the VM: another one after a restore, and in a clone.
    pub epoch: u64,
}

/// What makes a write that is sent again the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbering {
    /// The session's number of the request.
    pub number: u64,
    /// The client has the outcomes of all requests up to this one.
    pub acknowledged: u64,
    /// It was sent before, on a link that was lost.
    pub repeated: bool,
}

/// A session that is to go on.
#[derive(Debug, Clone)]
pub struct Resumption {
    /// Who it is.
    pub identity: SessionIdentity,
    /// The number of the request to resume, beyond all that the client has used.
    pub sequence: u64,
    /// The client has the outcomes of all requests up to this one.
    pub acknowledged: u64,
    /// What [`EngineSession::state`] was when the client was told last; empty if it never was.
    pub state: Bytes,
}

/// A session that goes on.
#[derive(Debug)]
pub struct Resumed<S> {
    /// The session, without a transaction.
    pub session: S,
    /// Requests beyond the acknowledged ones whose outcome is recorded, in order.
    pub recorded: Vec<u64>,
}

/// How much of a result to hand over at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// Most rows; 0: any number.
    pub rows: u64,
    /// Most blocks, at least 1.
    pub blocks: usize,
}

/// One execution of a statement.
#[derive(Debug)]
pub struct Execution<S> {
    /// The request's number, which is also the name of its cursor should that stay open.
    pub numbering: Numbering,
    /// What to run.
    pub statement: S,
    /// A packed block of at most one row. Empty: no parameters.
    pub parameters: Bytes,
    /// How much of the result to hand over now.
    pub limit: PageLimit,
}

/// Executions of one statement, once per row of parameters.
#[derive(Debug)]
pub struct BatchExecution<S> {
    /// The request's number.
    pub numbering: Numbering,
    /// What to run.
    pub statement: S,
    /// A packed block, one row per execution.
    pub parameters: Bytes,
    /// Whether the first failure undoes all of it; otherwise a failed row is undone alone.
    pub atomic: bool,
}

/// A part of a result, or all of it.
#[derive(Debug, Clone)]
pub struct Page {
    /// The columns; the same `Arc` as long as they have not changed.
    pub columns: Arc<[Column]>,
    /// Packed blocks of rows, none of them empty.
    pub blocks: Vec<Bytes>,
    /// Rows in them.
    pub rows: u64,
    /// Present when nothing is left; otherwise the cursor is open.
    pub end: Option<Completed>,
}

/// How a statement ended.
#[derive(Debug, Clone)]
pub struct Completed {
    /// Rows inserted, updated or deleted.
    pub changes: u64,
    /// Rowid of the session's latest insertion.
    pub last_insert_rowid: i64,
    /// First keyword, upper case.
    pub command: &'static str,
    /// Whether such a statement can return rows.
    pub returns_rows: bool,
}

/// How a batch ended.
#[derive(Debug, Clone)]
pub struct BatchOutcome {
    /// Sum of changes of the executions that succeeded.
    pub changes: u64,
    /// How many succeeded.
    pub executed: u64,
    /// Which rows failed (bounded in number by the engine), from 0, and why.
    pub failures: Vec<(u64, SqlError)>,
    /// Rowid of the latest insertion.
    pub last_insert_rowid: i64,
    /// First keyword, upper case.
    pub command: &'static str,
}

/// What a statement takes and returns.
#[derive(Debug, Clone)]
pub struct Description {
    /// Parameters it takes.
    pub parameters: u32,
    /// Columns it returns.
    pub columns: Arc<[Column]>,
    /// Whether it changes nothing.
    pub read_only: bool,
    /// First keyword, upper case.
    pub command: &'static str,
}

/// Executes SQL for one database.
pub trait Engine: Send + Sync + 'static {
    /// A client's state.
    type Session: EngineSession<Statement = Self::Statement>;
    /// A text the engine may have prepared; cheap to clone.
    type Statement: Clone + Send + 'static;

    /// The engine's name and version, for clients.
    fn version(&self) -> String;

    /// Makes a statement of a text. No I/O, no judgement: a bad text fails when it is executed.
    fn statement(&self, text: Arc<str>) -> Self::Statement;

    /// Starts a session.
    fn open(&self, identity: SessionIdentity, application: &str) -> Answer<Self::Session>;

    /// Goes on with a session whose link, or whose engine, was lost. Answers when nothing that was under
    /// way in the session before can have an effect any more.
    fn resume(&self, resumption: Resumption, application: &str) -> Answer<Resumed<Self::Session>>;
}

/// One client's transaction, cursors and settings. Dropping it rolls back and frees all of it.
pub trait EngineSession: Send + 'static {
    /// As in [`Engine::Statement`].
    type Statement;

    /// Where the session stands between two calls.
    fn transaction(&self) -> Transaction;

    /// What a session must be told to go on as it is (see [`Engine::resume`]), but for its transaction.
    fn state(&self) -> Bytes;

    /// The transaction is rolled back, and every statement up to ROLLBACK refused with `error`.
    fn fail(&mut self, error: SqlError) -> Answer<()>;

    /// Runs a statement. One that is `repeated` and whose outcome is recorded is not run again.
    fn execute(&mut self, execution: Execution<Self::Statement>) -> Answer<Page>;

    /// Runs a statement once per row of parameters, in one transaction unless one is open; if it is
    /// `repeated`, as [`execute`](Self::execute).
    fn batch(&mut self, batch: BatchExecution<Self::Statement>) -> Answer<BatchOutcome>;

    /// Hands over more of a result.
    fn fetch(&mut self, cursor: u64, limit: PageLimit) -> Answer<Page>;

    /// Gives up the rest of a result; one that is not open any more is not an error.
    fn close_cursor(&mut self, cursor: u64) -> Answer<()>;

    /// Says what a statement takes and returns, without running it.
    fn describe(&mut self, statement: Self::Statement) -> Answer<Description>;

    /// Rolls back and frees, and says when that is done.
    fn close(&mut self) -> Answer<()>;
}

/// An engine may be shared with whoever watches over it.
impl<E: Engine> Engine for Arc<E> {
    type Session = E::Session;
    type Statement = E::Statement;

    fn version(&self) -> String {
        (**self).version()
    }

    fn statement(&self, text: Arc<str>) -> Self::Statement {
        (**self).statement(text)
    }

    fn open(&self, identity: SessionIdentity, application: &str) -> Answer<Self::Session> {
        (**self).open(identity, application)
    }

    fn resume(&self, resumption: Resumption, application: &str) -> Answer<Resumed<Self::Session>> {
        (**self).resume(resumption, application)
    }
}
