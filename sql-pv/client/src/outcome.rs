//! What a statement did and returned, rows still packed.

use std::sync::Arc;

use bytes::Bytes;
use vamos_sql_protocol::message::{self, Column, Transaction};
use vamos_sql_protocol::{BlockError, Rows, Value};

use crate::error::SqlError;

/// The whole outcome of a statement.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The columns of its rows.
    pub columns: Arc<[Column]>,
    /// Its rows, in packed blocks: read them with [`Rows`] or [`Outcome::rows`].
    pub blocks: Vec<Bytes>,
    /// Whether the statement can return rows, even when it returned none.
    pub returns_rows: bool,
    /// Rows inserted, updated or deleted.
    pub changes: u64,
    /// As SQLite's `last_insert_rowid()`.
    pub last_insert_rowid: i64,
    /// The statement's first keyword, upper case.
    pub command: String,
    /// The session's transaction after the statement.
    pub transaction: Transaction,
}

impl Outcome {
    pub(crate) fn add(&mut self, mut result: message::Result) {
        self.transaction = result.transaction();
        if result.has_columns {
            self.columns = std::mem::take(&mut result.columns).into();
        }
        if !result.rows.is_empty() {
            self.blocks.push(result.rows);
        }
        self.returns_rows |= result.returns_rows;
        self.changes = result.changes;
        self.last_insert_rowid = result.last_insert_rowid;
        self.command = result.command;
    }

    /// How many rows it returned.
    ///
    /// # Errors
    /// [`BlockError`] if a block is damaged.
    pub fn row_count(&self) -> Result<u64, BlockError> {
        self.blocks.iter().try_fold(0, |sum, block| Ok(sum + u64::from(Rows::new(block)?.rows())))
    }

    /// All rows, unpacked: for few rows and for tests.
    ///
    /// # Errors
    /// [`BlockError`] if a block is damaged.
    pub fn rows(&self) -> Result<Vec<Vec<Value>>, BlockError> {
        let mut all = Vec::new();
        for block in &self.blocks {
            let mut rows = Rows::new(block)?;
            for _ in 0..rows.rows() {
                let row: Result<Vec<Value>, BlockError> =
                    (0..rows.columns()).map(|_| rows.value().map(|value| value.to_owned())).collect();
                all.push(row?);
            }
        }
        Ok(all)
    }
}

/// What a batch did.
#[derive(Debug, Clone)]
pub struct BatchOutcome {
    /// Sum of the changes of the executions that succeeded.
    pub changes: u64,
    /// Executions that succeeded.
    pub executed: u64,
    /// Rows that failed, by their index in the batch.
    pub failures: Vec<(u64, SqlError)>,
    /// As SQLite's `last_insert_rowid()`.
    pub last_insert_rowid: i64,
    /// The statement's first keyword, upper case.
    pub command: String,
    /// The session's transaction after the batch.
    pub transaction: Transaction,
}

impl From<message::BatchResult> for BatchOutcome {
    fn from(result: message::BatchResult) -> Self {
        let transaction = result.transaction();
        let failures = result.failures.into_iter();
        Self {
            changes: result.changes,
            executed: result.executed,
            failures: failures
                .map(|failure| (failure.row, failure.error.unwrap_or_default().into()))
                .collect(),
            last_insert_rowid: result.last_insert_rowid,
            command: result.command,
            transaction,
        }
    }
}
