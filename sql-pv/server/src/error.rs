//! What a client is told when a request fails, and the SQLSTATEs this crate itself uses. Engines map
//! their own errors in a file of their own.

use std::borrow::Cow;

use vamos_sql_protocol::message;

/// The SQLSTATEs used outside engines.
pub mod sqlstate {
    /// Protocol violation.
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    /// The session does not exist.
    pub const CONNECTION_DOES_NOT_EXIST: &str = "08003";
    /// The host gave up what the request was running on.
    pub const CONNECTION_FAILURE: &str = "08006";
    /// Not supported.
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    /// The statement id stands for something else.
    pub const INVALID_STATEMENT_NAME: &str = "26000";
    /// No such cursor.
    pub const INVALID_CURSOR_NAME: &str = "34000";
    /// The session is not one of this host's.
    pub const INVALID_AUTHORIZATION: &str = "28000";
    /// The transaction could not be replayed as it was.
    pub const SERIALIZATION_FAILURE: &str = "40001";
    /// No such database.
    pub const INVALID_CATALOG_NAME: &str = "3D000";
    /// Too many sessions.
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    /// A limit of the server's own.
    pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    /// Cancelled on the client's request or by a deadline.
    pub const QUERY_CANCELED: &str = "57014";
}

/// A failed request, as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sqlstate}: {message}")]
pub struct SqlError {
    /// Five characters, SQL standard or PostgreSQL's.
    pub sqlstate: Cow<'static, str>,
    /// What was wrong and where.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// Byte offset into the statement's text, from 0.
    pub position: Option<u32>,
    /// The engine's own code, for logs; 0 if it has none.
    pub code: i32,
}

impl SqlError {
    /// An error with neither hint nor position.
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self {
            sqlstate: Cow::Borrowed(sqlstate),
            message: message.into(),
            hint: String::new(),
            position: None,
            code: 0,
        }
    }

    /// The same error with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// A request that breaks the protocol.
    pub fn protocol(message: impl Into<String>) -> Self {
        Self::new(sqlstate::PROTOCOL_VIOLATION, message)
    }

    /// A request the client took back.
    pub fn cancelled() -> Self {
        Self::new(sqlstate::QUERY_CANCELED, "cancelled on the client's request")
    }

    /// The error that travelled, as [`to_message`](Self::to_message) made it.
    pub fn from_message(error: message::Error) -> Self {
        let message::Error { sqlstate, message, hint, position, code, .. } = error;
        Self { sqlstate: Cow::Owned(sqlstate), message, hint, position, code }
    }

    /// The error as it travels, with the session's transaction state beside it.
    pub fn to_message(&self, transaction: message::Transaction) -> message::Error {
        message::Error {
            sqlstate: self.sqlstate.clone().into_owned(),
            message: self.message.clone(),
            hint: self.hint.clone(),
            position: self.position,
            transaction: transaction as i32,
            code: self.code,
        }
    }
}
