//! Where statements meet the engine: transaction control, settings, and statements run to the client.

use std::future::Future;
use std::time::Duration;

use pgwire::messages::response::CommandComplete;
use tokio::io::{AsyncRead, AsyncWrite};
use vamos_sql_client::{CancelHandle, Session, Statement};
use vamos_sql_dialect::postgres::{Answer, Discard, SettingChange, Settings, Transaction, Translated};

use super::connection::{Connection, Failure};
use super::error::{PgError, Severity};
use super::result;
use super::transaction::{Block, State};

/// Between attempts to interrupt a statement that is over its time.
const CANCEL_PAUSE: Duration = Duration::from_millis(100);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Refuses what an aborted transaction does not take.
    pub(super) fn check_block(&self, translated: &Translated) -> Result<(), PgError> {
        let ends = matches!(
            translated,
            Translated::Transaction(Transaction::Commit | Transaction::Rollback | Transaction::RollbackTo(_))
        );
        if self.block.state == State::Failed && !ends {
            Err(PgError::in_failed_transaction())
        } else {
            Ok(())
        }
    }

    /// Runs a statement of this door's own.
    async fn engine(&mut self, sql: &str) -> Result<(), Failure> {
        self.session.execute(sql, &[]).await?;
        Ok(())
    }

    /// Queues a notice that something was not as the client may think.
    fn warn(&mut self, sqlstate: &str, message: &str) {
        self.wire.put_error(&PgError::new(sqlstate, message).severity(Severity::Warning), None);
    }

    /// Makes several statements one transaction; with the write lock at once if one of them may write.
    pub(super) async fn begin_implicit(&mut self, writes: bool) -> Result<(), Failure> {
        if self.block.state == State::Idle {
            self.engine(if writes { "BEGIN IMMEDIATE" } else { "BEGIN" }).await?;
            self.block = Block { state: State::Implicit, engine_open: true, read_only: false };
        }
        Ok(())
    }

    /// Ends the engine's transaction, if there is one, and forgets what lived in it.
    pub(super) async fn end_transaction(&mut self, commit: bool) -> Result<(), Failure> {
        let engine_open = self.block.engine_open;
        self.block = Block::IDLE;
        self.portals.clear();
        let mut done = Ok(());
        if engine_open {
            done = self.engine(if commit { "COMMIT" } else { "ROLLBACK" }).await;
            if commit && done.is_err() {
                // What could not be committed is rolled back: PostgreSQL keeps no transaction after that.
                // The engine may have done so itself; then there is nothing left to roll back.
                let _ = self.engine("ROLLBACK").await;
            }
        }
        let reported = self.settings.transaction_ended(commit && done.is_ok());
        self.report(reported);
        done
    }

    /// Transaction control. Returns the command tag.
    async fn control(&mut self, transaction: &Transaction) -> Result<&'static str, Failure> {
        let tag = transaction.tag();
        match (transaction, self.block.state) {
            (Transaction::Begin { read_only, .. }, State::Idle) => {
                self.engine(&transaction.sql()).await?;
                self.block = Block { state: State::Open, engine_open: true, read_only: *read_only };
            }
            (Transaction::Begin { read_only, .. }, State::Implicit) => {
                self.block = Block { state: State::Open, read_only: *read_only, ..self.block };
            }
            (Transaction::Begin { .. }, _) => {
                self.warn("25001", "there is already a transaction in progress")
            }
            (Transaction::Commit | Transaction::Rollback, State::Idle) => {
                self.warn("25P01", "there is no transaction in progress");
            }
            (Transaction::Commit, State::Failed) => {
                self.end_transaction(false).await?;
                return Ok("ROLLBACK");
            }
            (Transaction::Commit, _) => self.end_transaction(true).await?,
            (Transaction::Rollback, _) => self.end_transaction(false).await?,
            (
                Transaction::Savepoint(_) | Transaction::Release(_) | Transaction::RollbackTo(_),
                State::Idle | State::Implicit,
            ) => {
                let verb = if tag == "ROLLBACK" { "ROLLBACK TO SAVEPOINT" } else { tag };
                let message = format!("{verb} can only be used in transaction blocks");
                return Err(PgError::new("25P01", message).into());
            }
            (Transaction::RollbackTo(name), _) if !self.block.engine_open => {
                let message = format!("savepoint \"{name}\" does not exist");
                let hint = "The failure undid the whole transaction; only ROLLBACK ends it.";
                return Err(PgError::new("3B001", message).hint(hint).into());
            }
            (Transaction::RollbackTo(_), _) => {
                self.portals.clear();
                self.engine(&transaction.sql()).await?;
                self.block.state = State::Open;
            }
            (Transaction::Savepoint(_) | Transaction::Release(_), _) => {
                self.engine(&transaction.sql()).await?
            }
        }
        Ok(tag)
    }

    /// Does what needs no statement of the client's to run, and completes it. False if it does need one.
    pub(super) async fn run_local(
        &mut self,
        translated: &Translated,
        describe: bool,
        formats: &[i16],
    ) -> Result<bool, Failure> {
        let tag = match translated {
            Translated::Answer(answer) => self.answer(answer, describe, formats)?,
            Translated::Set { change, answer } => {
                self.change(change)?;
                match answer {
                    Some(answer) => self.answer(answer, describe, formats)?,
                    None => change.tag().to_owned(),
                }
            }
            Translated::Transaction(transaction) => self.control(transaction).await?.to_owned(),
            Translated::Deallocate(name) => self.deallocate(name.as_deref())?,
            Translated::ClosePortal(name) => {
                match name {
                    Some(name) if self.portals.remove(name).is_none() => {
                        return Err(PgError::new("34000", format!("cursor \"{name}\" does not exist")).into());
                    }
                    Some(_) => {}
                    None => self.portals.clear(),
                }
                "CLOSE CURSOR".to_owned()
            }
            Translated::Discard(what) => self.discard(*what)?,
            Translated::Done(tag) => (*tag).to_owned(),
            Translated::Refused(refusal) => return Err(PgError::from(refusal.clone()).into()),
            Translated::PassThrough
            | Translated::Rewritten(_)
            | Translated::Catalog(_)
            | Translated::Copy(_) => {
                return Ok(false);
            }
        };
        self.wire.put(&CommandComplete::new(tag));
        Ok(true)
    }

    fn answer(&mut self, answer: &Answer, describe: bool, formats: &[i16]) -> Result<String, Failure> {
        if describe {
            self.wire.put(&result::description(&result::known_shapes(&answer.columns), formats));
        }
        result::send_answer(&mut self.wire, answer, formats)?;
        Ok(match answer.tag {
            "SELECT" => format!("SELECT {}", answer.rows.len()),
            tag => tag.to_owned(),
        })
    }

    fn change(&mut self, change: &SettingChange) -> Result<(), Failure> {
        let in_transaction = self.block.state != State::Idle;
        let reported = self.settings.apply(change, in_transaction).map_err(PgError::from)?;
        self.report(reported);
        Ok(())
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<String, Failure> {
        let Some(name) = name else {
            self.statements.clear();
            return Ok("DEALLOCATE ALL".to_owned());
        };
        match self.statements.remove(name) {
            Some(_) => Ok("DEALLOCATE".to_owned()),
            None => {
                Err(PgError::new("26000", format!("prepared statement \"{name}\" does not exist")).into())
            }
        }
    }

    fn discard(&mut self, what: Discard) -> Result<String, Failure> {
        let tag = match what {
            Discard::Plans => "DISCARD PLANS",
            Discard::Sequences => "DISCARD SEQUENCES",
            Discard::All if self.block.state != State::Idle => {
                return Err(PgError::new("25001", "DISCARD ALL cannot run inside a transaction block").into());
            }
            Discard::All => {
                self.portals.clear();
                self.statements.clear();
                let change = SettingChange {
                    scope: vamos_sql_dialect::postgres::Scope::Session,
                    action: vamos_sql_dialect::postgres::Action::ResetAll,
                };
                self.change(&change)?;
                "DISCARD ALL"
            }
        };
        Ok(tag.to_owned())
    }

    /// Refuses a statement that writes in a READ ONLY transaction.
    pub(super) fn check_read_only(&self, statement: &Statement) -> Result<(), PgError> {
        if !self.block.read_only || statement.is_read_only() {
            return Ok(());
        }
        Err(PgError::new(
            "25006",
            format!("cannot execute {} in a read-only transaction", statement.command()),
        ))
    }

    /// Queues the completion of a statement the engine ran.
    pub(super) fn complete(&mut self, tag: String) {
        if matches!(tag.split(' ').next(), Some("CREATE" | "DROP" | "ALTER")) {
            self.texts.clear();
        }
        self.wire.put(&CommandComplete::new(tag.replace('\0', "")));
    }
}

/// How long a statement has, and what ends it.
pub(super) struct Deadline {
    timeout: Option<Duration>,
    cancel: CancelHandle,
}

impl Deadline {
    /// The deadline of a session's next statement.
    pub(super) fn new(settings: &Settings, session: &Session) -> Self {
        let timeout = settings.statement_timeout_ms().map(Duration::from_millis);
        Self { timeout, cancel: session.cancel_handle() }
    }

    /// Lets a statement run, its rows' way to the client included; after `statement_timeout` it is interrupted.
    pub(super) async fn meet<T>(self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let Some(timeout) = self.timeout else { return work.await };
        tokio::pin!(work);
        if let Ok(done) = tokio::time::timeout(timeout, &mut work).await {
            return done;
        }
        loop {
            // Between two rounds of rows there is nothing to interrupt: the next round will be.
            self.cancel.cancel();
            match tokio::time::timeout(CANCEL_PAUSE, &mut work).await {
                Ok(Err(Failure::Told(mut error))) if error.sqlstate == "57014" => {
                    error.message = "canceling statement due to statement timeout".to_owned();
                    return Err(error.into());
                }
                Ok(done) => return done,
                Err(_) => {}
            }
        }
    }
}
