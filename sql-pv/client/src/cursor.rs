//! A statement's rows, taken as they are wanted: what is not asked for stays on the host.

use std::sync::Arc;

use bytes::Bytes;
use vamos_sql_protocol::Rows;
use vamos_sql_protocol::message::{Column, Transaction};

use crate::error::ClientError;
use crate::outcome::Outcome;
use crate::session::Execution;

/// What a statement did, once its rows have been read.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Rows inserted, updated or deleted.
    pub changes: u64,
    /// As SQLite's `last_insert_rowid()`.
    pub last_insert_rowid: i64,
    /// The statement's first keyword, upper case.
    pub command: String,
    /// The session's transaction after the statement.
    pub transaction: Transaction,
    /// Whether the statement can return rows, even when it returned none.
    pub returns_rows: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Replies are on their way.
    Reading,
    /// The service waits to be asked for more.
    Suspended,
    /// All rows have been read.
    Ended,
}

/// An open result. Dropping it closes it.
pub struct Cursor {
    execution: Execution,
    state: State,
    /// Rows still wanted in this round; `None`: all there are.
    wanted: Option<u64>,
    outcome: Outcome,
}

impl Cursor {
    pub(crate) fn new(execution: Execution) -> Self {
        let wanted = Some(execution.rows()).filter(|rows| *rows > 0);
        let columns = execution.statement().map(|statement| Arc::clone(statement.columns()));
        let outcome = Outcome { columns: columns.unwrap_or_default(), ..Outcome::default() };
        Self { execution, state: State::Reading, wanted, outcome }
    }

    /// The next block of rows, asking the service for more as needed. `None` when this round's rows
    /// have been read: then either [`is_suspended`](Self::is_suspended) or all rows are read.
    ///
    /// # Errors
    /// [`ClientError`]; the cursor is then closed.
    pub async fn next_block(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.state {
                State::Ended => return Ok(None),
                State::Suspended if self.wanted == Some(0) => return Ok(None),
                State::Suspended => {
                    let (rows, blocks) = (self.wanted.unwrap_or(0), self.execution.blocks());
                    self.state = State::Ended;
                    self.execution.fetch(rows, blocks).await?;
                    self.state = State::Reading;
                }
                State::Reading => {}
            }
            let result = match self.execution.result().await {
                Ok(result) => result,
                Err(error) => {
                    self.state = State::Ended;
                    return Err(error);
                }
            };
            self.state = match (result.suspended, result.more) {
                (true, _) => State::Suspended,
                (false, true) => State::Reading,
                (false, false) => State::Ended,
            };
            self.outcome.add(result);
            if let Some(block) = self.outcome.blocks.pop() {
                let rows = u64::from(Rows::new(&block)?.rows());
                self.wanted = self.wanted.map(|wanted| wanted.saturating_sub(rows));
                if rows > 0 {
                    return Ok(Some(block));
                }
            }
        }
    }

    /// Starts another round of at most `rows` rows; 0: all there are.
    pub fn want(&mut self, rows: u64) {
        self.wanted = Some(rows).filter(|rows| *rows > 0);
    }

    /// Whether there may be more rows than this round asked for.
    pub fn is_suspended(&self) -> bool {
        self.state == State::Suspended
    }

    /// The columns, known with the first block at the latest.
    pub fn columns(&self) -> &Arc<[Column]> {
        &self.outcome.columns
    }

    /// What is known of the outcome; complete once all rows have been read.
    pub fn summary(&self) -> Summary {
        let outcome = &self.outcome;
        Summary {
            changes: outcome.changes,
            last_insert_rowid: outcome.last_insert_rowid,
            command: outcome.command.clone(),
            transaction: outcome.transaction,
            returns_rows: outcome.returns_rows,
        }
    }

    /// Closes the result and waits until it is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn close(mut self) -> Result<(), ClientError> {
        while self.state == State::Reading {
            self.wanted = Some(0);
            self.next_block().await?;
        }
        if self.state == State::Suspended {
            self.state = State::Ended;
            self.execution.close().await?;
        }
        Ok(())
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // While replies are on their way, the call itself sees to it (see `Sessions::abandon`).
        if self.state == State::Suspended {
            self.execution.close_unawaited();
        }
    }
}
