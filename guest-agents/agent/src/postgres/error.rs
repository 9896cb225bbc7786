//! What a PostgreSQL client is told when something fails; the one place where failures become fields.

use vamos_sql_client::{ClientError, SqlError, Transaction};
use vamos_sql_dialect::postgres::{Refusal, SplitError};

use super::frontend::FrontendError;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
    /// Nothing failed; the client may want to know.
    Warning,
}

impl Severity {
    /// As in the message's fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Warning => "WARNING",
        }
    }
}

/// A failure or a notice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {sqlstate}: {message}", severity.as_str())]
pub struct PgError {
    /// How bad it is.
    pub severity: Severity,
    /// Five characters.
    pub sqlstate: String,
    /// What was wrong.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// Byte offset into the client's text, from 0; becomes a character position on the wire.
    pub position: Option<usize>,
    /// Where it happened ("COPY t, line 3"); may be empty.
    pub context: String,
    /// What the engine said of its transaction, if it was asked.
    pub transaction: Option<Transaction>,
}

impl PgError {
    /// A failed statement.
    pub fn new(sqlstate: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            sqlstate: sqlstate.into(),
            message: message.into(),
            hint: String::new(),
            position: None,
            context: String::new(),
            transaction: None,
        }
    }

    /// With another severity.
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The end of the connection.
    pub fn fatal(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::new(sqlstate, message).severity(Severity::Fatal)
    }

    /// With a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// A broken rule of the protocol, in sync.
    pub fn protocol(message: impl Into<String>) -> Self {
        Self::new("08P01", message)
    }

    /// Commands that an aborted transaction does not take.
    pub fn in_failed_transaction() -> Self {
        Self::new("25P02", "current transaction is aborted, commands ignored until end of transaction block")
    }

    /// The host went away.
    pub fn host_lost() -> Self {
        Self::fatal("57P01", "terminating connection because the host's SQL service went away")
            .hint("Reconnect: whether the statement under way took effect is unknown.")
    }

    /// The connection cannot go on after it.
    pub fn is_fatal(&self) -> bool {
        self.severity == Severity::Fatal
    }
}

impl From<SqlError> for PgError {
    fn from(error: SqlError) -> Self {
        Self {
            severity: Severity::Error,
            sqlstate: error.sqlstate,
            message: error.message,
            hint: error.hint,
            position: error.position.map(|position| position as usize),
            context: String::new(),
            transaction: Some(error.transaction),
        }
    }
}

impl From<ClientError> for PgError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Sql(error) => error.into(),
            ClientError::SessionLost(error) => {
                let hint = "Connect again.";
                PgError { hint: hint.to_owned(), ..PgError::fatal(&error.sqlstate, error.message) }
            }
            ClientError::LinkLost(loss) => {
                tracing::debug!(%loss, "a client loses its session");
                PgError::host_lost()
            }
            other => PgError::new(other.sqlstate().to_owned(), other.to_string()),
        }
    }
}

impl From<vamos_sql_client::BlockError> for PgError {
    fn from(error: vamos_sql_client::BlockError) -> Self {
        ClientError::Block(error).into()
    }
}

impl From<FrontendError> for PgError {
    fn from(error: FrontendError) -> Self {
        let severity = if error.is_fatal() { Severity::Fatal } else { Severity::Error };
        PgError::new(error.sqlstate(), error.to_string()).severity(severity)
    }
}

impl From<Refusal> for PgError {
    fn from(refusal: Refusal) -> Self {
        Self {
            severity: Severity::Error,
            sqlstate: refusal.sqlstate.to_owned(),
            message: refusal.message,
            hint: refusal.hint,
            position: refusal.position,
            context: String::new(),
            transaction: None,
        }
    }
}

impl From<SplitError> for PgError {
    fn from(error: SplitError) -> Self {
        let mut told = PgError::new(error.sqlstate(), error.to_string());
        told.position = error.position();
        told
    }
}
