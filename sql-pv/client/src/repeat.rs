//! What is kept of requests so that they can be sent again on another stream, and how it is told whether
//! they were answered the same. No I/O.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use vamos_proto::frame::{self, HEADER_BYTES};
use vamos_seam::{Bug, errs};
use vamos_sql_protocol::Kind;

use crate::limits::{REPLAY_BYTES_MAX, REPLAY_REQUESTS_MAX};
use crate::sessions::Reply;

/// Fields of `sql.proto` that are added to a request when it is sent (again), by their tags.
mod field {
    pub(super) const EXECUTE_TEXT: u32 = 2;
    pub(super) const EXECUTE_NUMBER: u32 = 7;
    pub(super) const EXECUTE_ACKNOWLEDGED: u32 = 8;
    pub(super) const BATCH_NUMBER: u32 = 5;
    pub(super) const BATCH_ACKNOWLEDGED: u32 = 6;
}

/// How much of a request's reply has come, and what it said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) replies: u64,
    digest: u64,
}

impl Progress {
    /// Takes in a reply. What a service may say differently of the same outcome does not count: columns told
    /// again, how many frames follow.
    pub(crate) fn add(&mut self, reply: &Reply) {
        let mut hasher = DefaultHasher::new();
        self.digest.hash(&mut hasher);
        match reply {
            Reply::Result(result) => {
                result.rows.hash(&mut hasher);
                (result.suspended, result.changes, result.last_insert_rowid).hash(&mut hasher);
                result.command.hash(&mut hasher);
            }
            Reply::Batch(batch) => {
                (batch.changes, batch.executed, batch.last_insert_rowid).hash(&mut hasher);
                for failure in &batch.failures {
                    let sqlstate = failure.error.as_ref().map(|error| error.sqlstate.as_str());
                    (failure.row, sqlstate).hash(&mut hasher);
                }
            }
            Reply::Error(error) => error.sqlstate.hash(&mut hasher),
            other => other.name().hash(&mut hasher),
        }
        self.digest = hasher.finish();
        self.replies += 1;
    }
}

/// What [`acknowledge`] appends at most.
pub(crate) const ACKNOWLEDGEMENT_BYTES: usize = 8;

/// Appends what each request says of the session's progress.
pub(crate) fn acknowledge(kind: Kind, acknowledged: u64, out: &mut impl BufMut) {
    let field = match kind {
        Kind::Execute => field::EXECUTE_ACKNOWLEDGED,
        Kind::Batch => field::BATCH_ACKNOWLEDGED,
        _ => return,
    };
    if acknowledged > 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(acknowledged, out);
    }
}

/// A request as it was sent first.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// Its number then.
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    /// The whole frame.
    pub(crate) request: Bytes,
    /// The text, if the request names its statement by an id only.
    pub(crate) text: Option<Arc<str>>,
}

impl Sent {
    /// Encodes it once more as the session's request `sequence`.
    pub(crate) fn again(&self, session: u32, sequence: u64, out: &mut BytesMut) {
        let body = self.request.get(HEADER_BYTES..).unwrap_or_default();
        frame::encode(out, session, sequence, self.kind as u16, |out| {
            out.put_slice(body);
            let number = match self.kind {
                Kind::Execute => field::EXECUTE_NUMBER,
                Kind::Batch => field::BATCH_NUMBER,
                _ => return,
            };
            if self.number != sequence && !errs(Bug::RepeatsAnew) {
                encode_key(number, WireType::Varint, out);
                encode_varint(self.number, out);
            }
            if let Some(text) = &self.text {
                encode_key(field::EXECUTE_TEXT, WireType::LengthDelimited, out);
                encode_varint(text.len() as u64, out);
                out.put_slice(text.as_bytes());
            }
        });
    }

    /// Whether it is a ROLLBACK TO, for a client that is to forget it.
    fn undoes(&self) -> bool {
        self.request.windows(11).any(|text| text == b"ROLLBACK TO")
    }

    fn bytes(&self) -> usize {
        self.request.len() + self.text.as_ref().map_or(0, |text| text.len())
    }
}

/// A request whose effect lasts only as long as its stream, and what it was answered.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) sent: Sent,
    /// The Execute whose cursor it reads.
    cursor: u64,
    pub(crate) answered: Progress,
}

/// What has to be replayed on another stream: the open transaction, or cursors that are open without one.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) entries: VecDeque<Entry>,
    bytes: usize,
    /// The session's state before the first of them.
    pub(crate) state: Bytes,
    /// It became too long, and was given up.
    pub(crate) overflowed: bool,
}

impl Log {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.overflowed
    }

    pub(crate) fn push(&mut self, sent: Sent, cursor: u64, answered: Progress) {
        if self.overflowed || (errs(Bug::SavepointUnreplayed) && sent.undoes()) {
            return;
        }
        self.bytes += sent.bytes();
        self.entries.push_back(Entry { sent, cursor, answered });
        if self.bytes > REPLAY_BYTES_MAX || self.entries.len() > REPLAY_REQUESTS_MAX {
            self.clear();
            self.overflowed = true;
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The first number it holds.
    pub(crate) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.sent.number)
    }

    /// The cursors its entries read.
    pub(crate) fn cursors(&self) -> impl Iterator<Item = u64> + '_ {
        self.entries.iter().map(|entry| entry.cursor)
    }

    pub(crate) fn knows_cursor(&self, cursor: u64) -> bool {
        self.entries.iter().any(|entry| entry.cursor == cursor)
    }

    /// A cursor outside a transaction has come to its end.
    pub(crate) fn forget_cursor(&mut self, cursor: u64) {
        self.entries.retain(|entry| entry.cursor != cursor);
        self.bytes = self.entries.iter().map(|entry| entry.sent.bytes()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use vamos_sql_protocol::message::{Batch, Execute};

    fn sent(kind: Kind, number: u64, body: &impl Message, text: Option<&str>) -> Sent {
        let mut wire = BytesMut::new();
        frame::encode(&mut wire, 3, number, kind as u16, |out| {
            body.encode_raw(out);
            acknowledge(kind, 4, out);
        });
        Sent { number, kind, request: wire.freeze(), text: text.map(Arc::from) }
    }

    #[test]
    fn a_request_sent_again_says_its_number_and_its_text() {
        let body = Execute { statement: 9, rows: 2, ..Execute::default() };
        let mut out = BytesMut::new();
        sent(Kind::Execute, 5, &body, Some("SELECT 1")).again(3, 12, &mut out);
        let again = frame::Decoder::new(1 << 20).decode(&mut out).unwrap().unwrap();
        assert_eq!((again.header.session, again.header.sequence), (3, 12));
        let text = Some("SELECT 1".to_owned());
        let expected = Execute { number: 5, acknowledged: 4, text, ..body };
        assert_eq!(Execute::decode(again.body).unwrap(), expected);

        let body = Batch { atomic: true, text: Some("x".to_owned()), ..Batch::default() };
        sent(Kind::Batch, 6, &body, None).again(3, 13, &mut out);
        let again = frame::Decoder::new(1 << 20).decode(&mut out).unwrap().unwrap();
        assert_eq!(Batch::decode(again.body).unwrap(), Batch { number: 6, acknowledged: 4, ..body });
    }

    #[test]
    fn a_log_that_grows_too_long_says_so() {
        let mut log = Log::default();
        let body = Execute { text: Some("x".repeat(1000)), ..Execute::default() };
        for number in 0..REPLAY_BYTES_MAX as u64 / 1000 + 1 {
            log.push(sent(Kind::Execute, number, &body, None), number, Progress::default());
        }
        assert!(log.overflowed && log.entries.is_empty() && !log.is_empty());
        log.clear();
        assert!(log.is_empty());
    }
}
