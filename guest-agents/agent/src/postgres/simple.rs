//! The simple protocol: a string of statements, each run as it is reached; several are one transaction.

use pgwire::messages::response::EmptyQueryResponse;
use tokio::io::{AsyncRead, AsyncWrite};
use vamos_sql_dialect::postgres::{PgType, Translated, split};

use super::connection::{Connection, Failure};
use super::error::PgError;
use super::execute::Deadline;
use super::result;
use super::tag::command_tag;
use super::transaction::State;
use crate::limits::PORTAL_WINDOW_BLOCKS;

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Answers a Query.
    pub(super) async fn query(&mut self, text: &str) -> Result<(), Failure> {
        // The unnamed statement and portal do not outlive a simple query.
        self.statements.remove("");
        self.portals.remove("");
        self.refresh_databases();
        match self.query_statements(text).await {
            Ok(()) => {}
            Err(Failure::Told(error)) if !error.is_fatal() => {
                self.wire.put_error(&error, Some(text));
                self.fail_block(&error).await;
            }
            Err(failure) => return Err(failure),
        }
        if self.block.state == State::Idle {
            self.portals.clear();
        }
        self.ready().await
    }

    async fn query_statements(&mut self, text: &str) -> Result<(), Failure> {
        let spans = split(text).map_err(PgError::from)?;
        if spans.is_empty() {
            self.wire.put(&EmptyQueryResponse::new());
            return Ok(());
        }
        let several = spans.len() > 1;
        let writes = several && spans.iter().any(|span| may_write(span.of(text)));
        for span in spans {
            let statement = span.of(text);
            let done = self.query_statement(statement, several, writes).await;
            done.map_err(|failure| match failure {
                Failure::Told(mut error) => {
                    error.position = error.position.map(|position| position + span.start);
                    Failure::Told(error)
                }
                io => io,
            })?;
            if self.wire.is_full() {
                self.wire.flush().await?;
            }
        }
        if self.block.state == State::Implicit {
            self.end_transaction(true).await?;
        }
        Ok(())
    }

    async fn query_statement(&mut self, text: &str, several: bool, writes: bool) -> Result<(), Failure> {
        let translated = self.translate(text);
        self.check_block(&translated)?;
        if self.run_local(&translated, true, &[]).await? {
            return Ok(());
        }
        if several {
            self.begin_implicit(writes).await?;
        }
        let place = |failure: Failure| match failure {
            Failure::Told(error) => Failure::Told(in_original(error, &translated)),
            io => io,
        };
        let deadline = Deadline::new(&self.settings, &self.session);
        let work = async {
            match &translated {
                Translated::Copy(copy) => self.copy(copy).await,
                Translated::Catalog(catalog) => {
                    self.run_text(text, &catalog.sql, Some(&catalog.columns), None).await
                }
                Translated::Rewritten(rewritten) => {
                    self.run_text(text, &rewritten.sql, None, rewritten.tag).await
                }
                _ => self.run_text(text, text, None, None).await,
            }
        };
        deadline.meet(work).await.map_err(place)
    }

    /// Runs one statement and sends all of its rows.
    async fn run_text(
        &mut self,
        original: &str,
        sql: &str,
        known: Option<&[(String, PgType)]>,
        tag: Option<&'static str>,
    ) -> Result<(), Failure> {
        if self.block.read_only {
            let statement = self.session.prepare(sql).await?;
            self.check_read_only(&statement)?;
        }
        let mut cursor = self.session.execute_cursor(sql, &[], 0, PORTAL_WINDOW_BLOCKS).await?;
        let first = cursor.next_block().await?;
        let columns = cursor.columns().clone();
        let mut rows = 0;
        if !columns.is_empty() {
            let shapes = match known {
                Some(known) => result::known_shapes(known),
                None => result::shapes(&columns, &[], first.as_deref())?,
            };
            self.wire.put(&result::description(&shapes, &[]));
            if let Some(block) = first {
                rows += result::send_block(&mut self.wire, &block, &shapes, &[]).await?;
            }
            let rest = result::send_rows(&mut self.wire, &mut cursor, &shapes, &[]);
            rows += rest.await?;
        }
        let summary = cursor.summary();
        self.complete(tag.map_or_else(
            || command_tag(original, &summary, rows),
            |tag| finished(tag, rows, summary.changes),
        ));
        Ok(())
    }
}

/// A tag the translation prescribes, with its count where PostgreSQL has one.
pub(super) fn finished(tag: &str, rows: u64, changes: u64) -> String {
    match tag {
        "SELECT" => format!("SELECT {rows}"),
        "INSERT" => format!("INSERT 0 {changes}"),
        "UPDATE" | "DELETE" => format!("{tag} {changes}"),
        tag => tag.to_owned(),
    }
}

/// An error's position, in the text that the client sent instead of the one the engine got.
pub(super) fn in_original(mut error: PgError, translated: &Translated) -> PgError {
    error.position = match translated {
        Translated::Rewritten(rewritten) => {
            error.position.map(|position| rewritten.positions.original(position))
        }
        Translated::Catalog(_) => None,
        _ => error.position,
    };
    error
}

/// Whether a statement may need the write lock, by its first word.
pub(super) fn may_write(statement: &str) -> bool {
    let word: String = statement.chars().take_while(char::is_ascii_alphabetic).take(9).collect();
    !matches!(
        word.to_ascii_uppercase().as_str(),
        "SELECT"
            | "VALUES"
            | "SHOW"
            | "SET"
            | "RESET"
            | "EXPLAIN"
            | "PRAGMA"
            | "BEGIN"
            | "START"
            | "COMMIT"
            | "END"
            | "ROLLBACK"
    )
}
