//! A session: statements one after the other, with one transaction at most.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vamos_seam::{Bug, errs};
use vamos_sql_protocol::limits::{SQL_COLUMNS_MAX, SQL_TEXT_BYTES_MAX};
use vamos_sql_protocol::{BlockBuilder, Kind, Value, message};

use crate::call::Pending;
use crate::cursor::Cursor;
use crate::error::ClientError;
use crate::limits::OUTCOME_WINDOW_BLOCKS_MAX;
use crate::link::{Link, Request};
use crate::outcome::{BatchOutcome, Outcome};
use crate::sessions::{Reply, SessionRef};
use crate::statement::{Statement, pack};

/// A session. Its requests are numbered in the order of their sending, run in that order, and
/// several may be under way. Dropping it interrupts what is under way and ends it: an open
/// transaction is rolled back.
pub struct Session {
    link: Arc<Link>,
    reference: SessionRef,
    engine: String,
    last_statement: AtomicU64,
}

/// A statement that was sent and not yet waited for: how requests of one session are pipelined.
pub struct InFlight {
    execution: Execution,
}

impl InFlight {
    /// Waits for the whole outcome.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn outcome(self) -> Result<Outcome, ClientError> {
        self.execution.outcome().await
    }
}

/// Interrupts what a session has under way; independent of the session's borrows.
#[derive(Clone)]
pub struct CancelHandle {
    link: Arc<Link>,
    reference: SessionRef,
}

impl CancelHandle {
    /// Interrupts the last unanswered request of the session, if there is one.
    pub fn cancel(&self) {
        if let Some(sequence) = self.link.under_way(self.reference) {
            self.link.cancel(self.reference, sequence);
        }
    }
}

impl Session {
    pub(crate) fn new(link: Arc<Link>, reference: SessionRef, engine: String) -> Self {
        link.hold();
        Self { link, reference, engine, last_statement: AtomicU64::new(0) }
    }

    /// What the engine gives as its version ("SQLite 3.51.0").
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// Runs one statement and collects all of its rows.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn execute(&self, sql: &str, parameters: &[Value]) -> Result<Outcome, ClientError> {
        self.ready_for(sql).await;
        let execution = self.start_text(sql, parameters, 0, OUTCOME_WINDOW_BLOCKS_MAX)?;
        execution.outcome().await
    }

    /// Gives a text an id, by which the service keeps it compiled, and learns what it takes and returns.
    ///
    /// # Errors
    /// [`ClientError::Sql`] if the text is not a statement that may run here.
    pub async fn prepare(&self, sql: &str) -> Result<Statement, ClientError> {
        check_text(sql)?;
        self.room().await;
        let id = self.last_statement.fetch_add(1, Ordering::Relaxed) + 1;
        let body = message::Describe { statement: id, text: Some(sql.to_owned()) };
        match self.send(Kind::Describe, &body, 0)?.reply().await? {
            Reply::Described(described) => {
                Ok(Statement::new(Arc::clone(&self.link), self.reference, id, sql.into(), described))
            }
            other => Err(ClientError::UnexpectedReply(other.name())),
        }
    }

    /// Runs a prepared statement and collects all of its rows.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn run(&self, statement: &Statement, parameters: &[Value]) -> Result<Outcome, ClientError> {
        self.ready_for(statement.text()).await;
        let execution = self.start_prepared(statement, parameters, 0, OUTCOME_WINDOW_BLOCKS_MAX)?;
        execution.outcome().await
    }

    /// Sends a prepared statement without waiting for its outcome. It travels with its text, so that
    /// requests sent after it can never run before it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_run(
        &self,
        statement: &Statement,
        parameters: &[Value],
    ) -> Result<InFlight, ClientError> {
        self.own(statement)?;
        self.ready_for(statement.text()).await;
        let body = message::Execute {
            statement: statement.id(),
            text: Some(statement.text().to_owned()),
            parameters: checked(parameters)?,
            blocks: OUTCOME_WINDOW_BLOCKS_MAX,
            ..message::Execute::default()
        };
        let execution = Execution::start(&self.link, self.reference, body, Some(statement.clone()))?;
        Ok(InFlight { execution })
    }

    /// Runs a prepared statement once per row of `rows`, in one transaction unless one is open.
    /// `atomic`: the first failure undoes the whole batch; else a failed row is undone alone.
    ///
    /// # Errors
    /// [`ClientError`]; of an atomic batch also the failure of a row.
    pub async fn batch(
        &self,
        statement: &Statement,
        rows: BlockBuilder,
        atomic: bool,
    ) -> Result<BatchOutcome, ClientError> {
        self.room().await;
        self.send_batch(statement, rows, atomic)?.await
    }

    /// Sends a batch; the future that is returned waits for what it did.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn send_batch(
        &self,
        statement: &Statement,
        mut rows: BlockBuilder,
        atomic: bool,
    ) -> Result<impl Future<Output = Result<BatchOutcome, ClientError>> + Send + use<>, ClientError> {
        self.own(statement)?;
        // With its text: beside a block of rows it is nothing, and a batch that had to be sent again would come
        // after those sent behind it.
        let text = Some(statement.text().to_owned());
        let (statement, parameters) = (statement.id(), rows.finish());
        let body = message::Batch { statement, text, parameters, atomic, ..message::Batch::default() };
        let mut pending = self.send(Kind::Batch, &body, 0)?;
        Ok(async move {
            match pending.reply().await? {
                Reply::Batch(result) => Ok(BatchOutcome::from(result)),
                other => Err(ClientError::UnexpectedReply(other.name())),
            }
        })
    }

    /// Runs a prepared statement and leaves its rows where they are until they are asked for: at most
    /// `rows` (0: all) in rounds of `blocks` blocks.
    ///
    /// # Errors
    /// [`ClientError::Limit`], [`ClientError::LinkLost`]; a failure of the statement itself is told by
    /// the cursor's first block.
    pub async fn query_cursor(
        &self,
        statement: &Statement,
        parameters: &[Value],
        rows: u64,
        blocks: u32,
    ) -> Result<Cursor, ClientError> {
        self.ready_for(statement.text()).await;
        Ok(Cursor::new(self.start_prepared(statement, parameters, rows, blocks)?))
    }

    /// As [`query_cursor`](Self::query_cursor), for a text that is used once.
    ///
    /// # Errors
    /// As there.
    pub async fn execute_cursor(
        &self,
        sql: &str,
        parameters: &[Value],
        rows: u64,
        blocks: u32,
    ) -> Result<Cursor, ClientError> {
        self.ready_for(sql).await;
        Ok(Cursor::new(self.start_text(sql, parameters, rows, blocks)?))
    }

    /// What interrupts this session.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { link: Arc::clone(&self.link), reference: self.reference }
    }

    /// Ends the session and waits until the service has; an open transaction is rolled back.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn close(self) -> Result<(), ClientError> {
        self.room().await;
        match self.send(Kind::Close, &message::Close {}, 0)?.reply().await? {
            Reply::Closed => Ok(()),
            other => Err(ClientError::UnexpectedReply(other.name())),
        }
    }

    async fn room(&self) {
        self.link.room(self.reference).await;
    }

    /// Waits for room. The end of a transaction is not sent before all that belongs to it is answered: whoever
    /// gets its recorded outcome after a loss must not miss any other.
    async fn ready_for(&self, sql: &str) {
        if ends_transaction(sql) && !errs(Bug::CommitUnsettled) {
            self.link.settled(self.reference).await;
        }
        self.room().await;
    }

    fn own(&self, statement: &Statement) -> Result<(), ClientError> {
        if statement.session() == self.reference {
            return Ok(());
        }
        Err(ClientError::ForeignStatement)
    }

    fn send<M: prost::Message>(&self, kind: Kind, body: &M, cursor: u64) -> Result<Pending, ClientError> {
        Pending::send(&self.link, Request::awaited(self.reference, kind, body, cursor))
    }

    fn start_text(
        &self,
        sql: &str,
        parameters: &[Value],
        rows: u64,
        blocks: u32,
    ) -> Result<Execution, ClientError> {
        check_text(sql)?;
        let body = message::Execute {
            statement: 0,
            text: Some(sql.to_owned()),
            parameters: checked(parameters)?,
            rows,
            blocks,
            describe: true,
            ..message::Execute::default()
        };
        Execution::start(&self.link, self.reference, body, None)
    }

    fn start_prepared(
        &self,
        statement: &Statement,
        parameters: &[Value],
        rows: u64,
        blocks: u32,
    ) -> Result<Execution, ClientError> {
        self.own(statement)?;
        let body = message::Execute {
            statement: statement.id(),
            parameters: checked(parameters)?,
            rows,
            blocks,
            ..message::Execute::default()
        };
        Execution::start(&self.link, self.reference, body, Some(statement.clone()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.link.close_session(self.reference);
        self.link.release();
    }
}

/// Whether a text may commit: COMMIT, END, or RELEASE of the savepoint that began the transaction.
fn ends_transaction(sql: &str) -> bool {
    let first = sql.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
    // A comment may hide it; to wait then costs nothing but a little time.
    let word: &str = first.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    first.starts_with("--")
        || first.starts_with("/*")
        || ["COMMIT", "END", "RELEASE"].iter().any(|end| word.eq_ignore_ascii_case(end))
}

fn check_text(sql: &str) -> Result<(), ClientError> {
    match sql.len() {
        value if value > SQL_TEXT_BYTES_MAX => {
            Err(ClientError::Limit { what: "bytes of a statement's text", value, limit: SQL_TEXT_BYTES_MAX })
        }
        _ => Ok(()),
    }
}

fn checked(parameters: &[Value]) -> Result<bytes::Bytes, ClientError> {
    match parameters.len() {
        value if value > SQL_COLUMNS_MAX => {
            Err(ClientError::Limit { what: "parameters of a statement", value, limit: SQL_COLUMNS_MAX })
        }
        _ => Ok(pack(parameters)),
    }
}

/// One Execute and the Fetches that belong to it.
pub(crate) struct Execution {
    link: Arc<Link>,
    reference: SessionRef,
    pending: Pending,
    body: message::Execute,
    statement: Option<Statement>,
    cursor: u64,
}

impl Execution {
    fn start(
        link: &Arc<Link>,
        reference: SessionRef,
        mut body: message::Execute,
        statement: Option<Statement>,
    ) -> Result<Self, ClientError> {
        let text = statement.as_ref().map(Statement::shared_text).filter(|_| body.text.is_none());
        let request = Request { text, ..Request::awaited(reference, Kind::Execute, &body, 0) };
        let pending = Pending::send(link, request)?;
        if statement.is_none() {
            // The text is in the kept request; the body is only wanted again by its numbers.
            body.text = None;
        }
        let cursor = pending.sequence();
        Ok(Self { link: Arc::clone(link), reference, pending, body, statement, cursor })
    }

    /// The statement it runs, unless it was given as text.
    pub(crate) fn statement(&self) -> Option<&Statement> {
        self.statement.as_ref()
    }

    /// Rows asked for per round; 0: no limit.
    pub(crate) fn rows(&self) -> u64 {
        self.body.rows
    }

    /// Blocks asked for per round.
    pub(crate) fn blocks(&self) -> u32 {
        self.body.blocks
    }

    /// The next part of the outcome. Sends the text again if the service forgot it.
    pub(crate) async fn result(&mut self) -> Result<message::Result, ClientError> {
        loop {
            match (self.pending.reply().await?, &self.statement) {
                (Reply::Result(result), _) => return Ok(result),
                (Reply::TextWanted, Some(statement)) if self.body.text.is_none() => {
                    self.body.text = Some(statement.text().to_owned());
                    self.link.room(self.reference).await;
                    let request = Request::awaited(self.reference, Kind::Execute, &self.body, 0);
                    self.pending = Pending::send(&self.link, request)?;
                    self.cursor = self.pending.sequence();
                }
                (other, _) => return Err(ClientError::UnexpectedReply(other.name())),
            }
        }
    }

    /// Asks for more of a suspended result.
    pub(crate) async fn fetch(&mut self, rows: u64, blocks: u32) -> Result<(), ClientError> {
        self.link.room(self.reference).await;
        let body = message::Fetch { cursor: self.cursor, rows, blocks };
        self.pending =
            Pending::send(&self.link, Request::awaited(self.reference, Kind::Fetch, &body, self.cursor))?;
        Ok(())
    }

    /// Closes a suspended result and waits until it is.
    pub(crate) async fn close(&mut self) -> Result<(), ClientError> {
        self.link.room(self.reference).await;
        let body = message::CloseCursor { cursor: self.cursor };
        self.pending =
            Pending::send(&self.link, Request::awaited(self.reference, Kind::CloseCursor, &body, 0))?;
        match self.pending.reply().await? {
            Reply::Closed => Ok(()),
            other => Err(ClientError::UnexpectedReply(other.name())),
        }
    }

    /// Nobody wants the rest of a suspended result: closes it with the session's next request.
    pub(crate) fn close_unawaited(&self) {
        let body = message::CloseCursor { cursor: self.cursor };
        let request = Request {
            session: self.reference,
            kind: Kind::CloseCursor,
            body: &body,
            cursor: 0,
            text: None,
            unawaited: true,
        };
        if let Err(error) = self.link.send(request) {
            tracing::debug!(%error, "could not close a cursor");
        }
    }

    async fn outcome(mut self) -> Result<Outcome, ClientError> {
        let mut outcome = Outcome::default();
        if let Some(statement) = &self.statement {
            outcome.columns = Arc::clone(statement.columns());
        }
        loop {
            let result = self.result().await?;
            let (more, suspended) = (result.more, result.suspended);
            outcome.add(result);
            if suspended {
                self.fetch(0, OUTCOME_WINDOW_BLOCKS_MAX).await?;
            } else if !more {
                return Ok(outcome);
            }
        }
    }
}
