//! What can go wrong with a request, each with the SQLSTATE a front door reports it under.

use std::io;
use std::sync::Arc;

use vamos_proto::frame::FrameError;
use vamos_sql_protocol::message::{self, Transaction};
use vamos_sql_protocol::{BlockError, Kind};

use crate::limits::RECONNECT_MAX;

/// A statement's failure, as the engine reported it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLSTATE {sqlstate})")]
pub struct SqlError {
    /// Five characters, SQL standard or PostgreSQL's.
    pub sqlstate: String,
    /// What was wrong and where.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// Byte offset into the statement's text, from 0.
    pub position: Option<u32>,
    /// The session's transaction after the failure.
    pub transaction: Transaction,
    /// The engine's own code, for logs.
    pub code: i32,
}

impl SqlError {
    /// An error of the client's own.
    pub(crate) fn local(sqlstate: &str, message: String) -> Self {
        let (hint, position) = (String::new(), None);
        Self {
            sqlstate: sqlstate.to_owned(),
            message,
            hint,
            position,
            transaction: Transaction::None,
            code: 0,
        }
    }
}

impl From<message::Error> for SqlError {
    fn from(error: message::Error) -> Self {
        Self {
            transaction: error.transaction(),
            sqlstate: error.sqlstate,
            message: error.message,
            hint: error.hint,
            position: error.position,
            code: error.code,
        }
    }
}

/// Why a request has no outcome.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The engine or the service refused or failed the request; the session goes on.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The stream ended or broke before the reply came, and there was no other one in time: whether the request
    /// ran is unknown.
    #[error("lost the link to the SQL service")]
    LinkLost(#[source] Arc<LinkLoss>),
    /// The stream was lost, and the service would not go on with the session on another one.
    #[error("the session could not be resumed: {0}")]
    SessionLost(#[source] SqlError),
    /// The stream could not be opened.
    #[error("open a link to the SQL service")]
    Connect(#[source] Arc<io::Error>),
    /// The session was closed while something of it was still in use.
    #[error("the session has ended")]
    SessionEnded,
    /// A statement was used with another session than the one that prepared it; nothing was sent.
    #[error("the statement was prepared by another session")]
    ForeignStatement,
    /// The service answered with something the protocol does not allow here.
    #[error("the SQL service answered a request with {0}")]
    UnexpectedReply(&'static str),
    /// A row block could not be read.
    #[error("read a row block")]
    Block(#[from] BlockError),
    /// The request exceeds a limit of the protocol; nothing was sent.
    #[error("{what}: {value} exceeds the limit of {limit}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        value: usize,
        /// The limit.
        limit: usize,
    },
}

/// Why a link cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum LinkLoss {
    /// The other side ended the stream.
    #[error("the service closed the stream")]
    Closed,
    /// Reading or writing failed.
    #[error("read or write the stream")]
    Io(#[source] io::Error),
    /// Bytes that are not a frame.
    #[error("cut the stream into frames")]
    Frame(#[source] FrameError),
    /// A body that is not the message its kind says.
    #[error("parse the body of a {kind:?} frame")]
    Body {
        /// The frame's kind.
        kind: Kind,
        /// What was wrong with it.
        #[source]
        source: prost::DecodeError,
    },
    /// A kind of frame that a service does not send.
    #[error("frame of kind {0} is not a reply")]
    Kind(u16),
    /// An error about the link as a whole.
    #[error("the service refused the link")]
    Refused(#[source] SqlError),
    /// No other stream could be opened.
    #[error("open another stream, for {} seconds", RECONNECT_MAX.as_secs())]
    Unreachable(#[source] io::Error),
    /// This side let go of it.
    #[error("every handle of the link was dropped")]
    Dropped,
}

impl LinkLoss {
    /// Whether another stream is worth a try.
    pub(crate) fn can_be_mended(&self) -> bool {
        matches!(self, LinkLoss::Closed | LinkLoss::Io(_))
    }
}

impl ClientError {
    /// The SQLSTATE under which a front door reports this.
    pub fn sqlstate(&self) -> &str {
        match self {
            ClientError::Sql(error) => &error.sqlstate,
            ClientError::LinkLost(_) => "08006",
            ClientError::SessionLost(error) => &error.sqlstate,
            ClientError::Connect(_) => "08001",
            ClientError::SessionEnded => "08003",
            ClientError::ForeignStatement => "26000",
            ClientError::UnexpectedReply(_) | ClientError::Block(_) => "08P01",
            ClientError::Limit { .. } => "54000",
        }
    }

    /// Whether the whole link is gone, not only this request.
    pub fn is_link_lost(&self) -> bool {
        matches!(self, ClientError::LinkLost(_))
    }
}
