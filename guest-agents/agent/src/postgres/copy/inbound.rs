//! COPY FROM STDIN: rows cut out of what arrives, packed into batches, sent in one transaction.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use pgwire::messages::copy::CopyInResponse;
use tokio::io::{AsyncRead, AsyncWrite};
use vamos_sql_client::{BatchOutcome, BlockBuilder, ClientError, Statement, ValueRef};
use vamos_sql_dialect::postgres::{Copy, Format, PgType, Subject};

use super::field::{self, Field};
use super::lines::Lines;
use super::{csv, text};
use crate::limits::COPY_WINDOW_BATCHES;
use crate::postgres::connection::{Connection, Failure};
use crate::postgres::error::PgError;
use crate::postgres::frontend::Frontend;
use crate::postgres::transaction::State;

/// A batch under way, with the line its first row is in.
struct Sent {
    outcome: Pin<Box<dyn Future<Output = Result<BatchOutcome, ClientError>> + Send>>,
    first_line: u64,
}

/// A COPY under way.
struct Load {
    table: String,
    insert: Statement,
    lines: Lines,
    block: BlockBuilder,
    types: Vec<Option<PgType>>,
    names: Vec<String>,
    /// Line of the block's first row.
    block_line: u64,
    rows: u64,
    under_way: VecDeque<Sent>,
    /// Whether this COPY began a transaction of its own.
    begun: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Takes rows until the client has no more. Returns how many.
    pub(super) async fn copy_in(&mut self, copy: &Copy) -> Result<u64, Failure> {
        if self.block.read_only {
            return Err(PgError::new("25006", "cannot execute COPY FROM in a read-only transaction").into());
        }
        let mut load = self.prepare_load(copy).await?;
        self.wire.put(&CopyInResponse::new(0, load.types.len() as i16, vec![0; load.types.len()]));
        self.wire.flush().await?;
        let loaded = self.load(&mut load).await;
        match loaded {
            Ok(()) => Ok(load.rows),
            Err(failure) => {
                // What is still under way comes before the rollback, as requests of one session do.
                load.under_way.clear();
                if load.begun
                    && let Err(error) = self.session.execute("ROLLBACK", &[]).await
                {
                    tracing::debug!(%error, "could not roll back a COPY");
                }
                Err(failure)
            }
        }
    }

    async fn prepare_load(&mut self, copy: &Copy) -> Result<Load, Failure> {
        let Subject::Table { name, .. } = &copy.subject else {
            return Err(PgError::new("42601", "COPY FROM needs a table").into());
        };
        // The engine names the columns: all of them, or those the client listed.
        let select = self.session.prepare(&copy.select_sql(false)).await?;
        let columns = select.columns();
        let Some(insert) = copy.insert_sql(columns.len()) else {
            return Err(PgError::new("42601", "COPY FROM needs a table").into());
        };
        let insert = self.session.prepare(&insert).await?;
        Ok(Load {
            table: name.clone(),
            insert,
            lines: Lines::new(
                copy.options.clone(),
                columns.iter().map(|column| column.name.clone()).collect(),
            ),
            block: BlockBuilder::new(columns.len()),
            types: columns.iter().map(|column| PgType::of_declared(&column.declared)).collect(),
            names: columns.iter().map(|column| column.name.clone()).collect(),
            block_line: 1,
            rows: 0,
            under_way: VecDeque::new(),
            begun: false,
        })
    }

    async fn load(&mut self, load: &mut Load) -> Result<(), Failure> {
        loop {
            match self.wire.next().await? {
                Some(Frontend::CopyData(data)) => {
                    load.lines.arrived(&data);
                    self.take_rows(load, false).await?;
                }
                Some(Frontend::CopyDone) => break,
                Some(Frontend::CopyFail(reason)) => {
                    return Err(PgError::new("57014", format!("COPY from stdin failed: {reason}")).into());
                }
                // Allowed and without meaning while rows come in.
                Some(Frontend::Flush | Frontend::Sync) => {}
                Some(_) => {
                    return Err(
                        PgError::fatal("08P01", "unexpected message type during COPY from stdin").into()
                    );
                }
                None => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            }
        }
        self.take_rows(load, true).await?;
        if !load.block.is_empty() {
            self.send_batch(load, false).await?;
        }
        while let Some(sent) = load.under_way.pop_front() {
            settle(&load.table, sent).await?;
        }
        if load.begun {
            load.begun = false;
            if let Err(error) = self.session.execute("COMMIT", &[]).await {
                // It may have been rolled back by the failure already.
                let _ = self.session.execute("ROLLBACK", &[]).await;
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Packs the rows that are whole and sends the batches that are full.
    async fn take_rows(&mut self, load: &mut Load, last: bool) -> Result<(), Failure> {
        while let Some((record, line)) = load.lines.next(last)? {
            if load.block.is_full() {
                self.send_batch(load, true).await?;
            }
            if load.block.is_empty() {
                load.block_line = line;
            }
            load.pack(&record).map_err(|mut error| {
                error.context = format!("COPY {}, line {line}", load.table);
                error
            })?;
        }
        Ok(())
    }

    /// Sends what is packed; `more`: further rows follow.
    async fn send_batch(&mut self, load: &mut Load, more: bool) -> Result<(), Failure> {
        // One batch is a transaction anyway; it takes a second one to need a common one.
        if more && !load.begun && self.block.state == State::Idle {
            self.session.execute("BEGIN IMMEDIATE", &[]).await?;
            load.begun = true;
        }
        if load.under_way.len() >= COPY_WINDOW_BATCHES
            && let Some(sent) = load.under_way.pop_front()
        {
            settle(&load.table, sent).await?;
        }
        let rows = std::mem::replace(&mut load.block, BlockBuilder::new(load.types.len()));
        let outcome = Box::pin(self.session.send_batch(&load.insert, rows, true)?);
        load.under_way.push_back(Sent { outcome, first_line: load.block_line });
        Ok(())
    }
}

/// Waits for a batch; a row that failed fails the COPY.
async fn settle(table: &str, sent: Sent) -> Result<(), Failure> {
    let (mut error, line) = match sent.outcome.await {
        Ok(outcome) => match outcome.failures.into_iter().next() {
            None => return Ok(()),
            Some((row, error)) => (PgError::from(error), Some(sent.first_line + row)),
        },
        Err(error) => (PgError::from(error), None),
    };
    error.position = None;
    error.context = match line {
        Some(line) => format!("COPY {table}, line {line}"),
        None => format!("COPY {table}"),
    };
    Err(error.into())
}

impl Load {
    /// Adds a record to the block.
    fn pack(&mut self, record: &[u8]) -> Result<(), PgError> {
        let options = self.lines.options();
        let mut fields: Vec<Field<'_>> = Vec::with_capacity(self.types.len());
        match options.format {
            Format::Text => text::fields(record, options.delimiter, options.null.as_bytes(), &mut fields),
            Format::Csv => csv::fields(record, options, &mut fields)?,
        }
        if let Some(missing) = self.names.get(fields.len()) {
            return Err(PgError::new("22P04", format!("missing data for column \"{missing}\"")));
        }
        if fields.len() > self.names.len() {
            return Err(PgError::new("22P04", "extra data after last expected column"));
        }
        for (field, pg) in fields.iter().zip(&self.types) {
            match field {
                None => self.block.push(ValueRef::Null),
                Some(bytes) => field::push(&mut self.block, bytes, *pg)?,
            }
        }
        self.block.end_row();
        self.rows += 1;
        Ok(())
    }
}
