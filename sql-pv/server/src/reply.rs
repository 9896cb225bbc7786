//! Replies: each is encoded straight into the link's output, so that what several sessions have to
//! say leaves in one write.

use bytes::{Bytes, BytesMut};
use prost::Message;
use vamos_proto::frame;
use vamos_sql_protocol::Kind;
use vamos_sql_protocol::message::{self, Transaction};

use crate::engine::{BatchOutcome, Completed, Description};
use crate::error::SqlError;

/// Where the replies to one request go.
pub(crate) struct Reply<'a> {
    /// The link's output.
    pub(crate) out: &'a mut BytesMut,
    /// The session's number on the link.
    pub(crate) session: u32,
    /// The request's sequence.
    pub(crate) sequence: u64,
}

/// The parts of a `Result` frame that vary.
#[derive(Default)]
pub(crate) struct ResultPart<'a> {
    /// Columns, if the client is to be told.
    pub(crate) columns: Option<&'a [message::Column]>,
    /// A packed block, or nothing.
    pub(crate) rows: Bytes,
    /// Further frames follow without being asked for.
    pub(crate) more: bool,
    /// The cursor stays open.
    pub(crate) suspended: bool,
    /// The statement has ended.
    pub(crate) end: Option<&'a Completed>,
    /// The session's state, if the client is to be told.
    pub(crate) state: Bytes,
}

impl Reply<'_> {
    /// A frame with an empty body.
    pub(crate) fn empty(&mut self, kind: Kind) {
        frame::encode(self.out, self.session, self.sequence, kind as u16, |_| {});
    }

    pub(crate) fn error(&mut self, error: &SqlError, transaction: Transaction) {
        self.message(Kind::Error, &error.to_message(transaction));
    }

    pub(crate) fn opened(&mut self, opened: &message::Opened) {
        self.message(Kind::Opened, opened);
    }

    pub(crate) fn result(&mut self, part: ResultPart<'_>, transaction: Transaction) {
        let ended = part.end;
        self.message(
            Kind::Result,
            &message::Result {
                columns: part.columns.map(<[_]>::to_vec).unwrap_or_default(),
                has_columns: part.columns.is_some(),
                rows: part.rows,
                more: part.more,
                suspended: part.suspended,
                changes: ended.map_or(0, |end| end.changes),
                last_insert_rowid: ended.map_or(0, |end| end.last_insert_rowid),
                transaction: transaction as i32,
                command: ended.map_or_else(String::new, |end| end.command.to_owned()),
                returns_rows: ended.is_none_or(|end| end.returns_rows),
                state: part.state,
            },
        );
    }

    pub(crate) fn batch_result(&mut self, outcome: &BatchOutcome, transaction: Transaction, state: Bytes) {
        let failure = |(row, error): &(u64, SqlError)| message::BatchFailure {
            row: *row,
            error: Some(error.to_message(transaction)),
        };
        self.message(
            Kind::BatchResult,
            &message::BatchResult {
                changes: outcome.changes,
                executed: outcome.executed,
                failures: outcome.failures.iter().map(failure).collect(),
                last_insert_rowid: outcome.last_insert_rowid,
                transaction: transaction as i32,
                command: outcome.command.to_owned(),
                state,
            },
        );
    }

    pub(crate) fn described(&mut self, description: &Description) {
        self.message(
            Kind::Described,
            &message::Described {
                parameters: description.parameters,
                columns: description.columns.to_vec(),
                returns_rows: !description.columns.is_empty(),
                read_only: description.read_only,
                command: description.command.to_owned(),
            },
        );
    }

    fn message(&mut self, kind: Kind, body: &impl Message) {
        frame::encode(self.out, self.session, self.sequence, kind as u16, |out| body.encode_raw(out));
    }
}
