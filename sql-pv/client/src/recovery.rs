//! A session's way from a lost stream onto another one. No I/O: frames go into the link's queue.
//!
//! ```text
//!          the stream is lost             a stream is there, and the session wants something
//!  LIVE ───────────────────────▶ LOST ──────────────────────────────────────▶ RESUMING
//!   ▲                                                                            │ Opened
//!   │  what was not answered is sent again, under its number                     ▼
//!   ├──────────────────────────────────────────────────────── nothing was open, or its end is recorded
//!   │                                                                            │ else
//!   │  the same answers; or others, and the transaction is failed (40001)        ▼
//!   └──────────────────────────────────────────────────────────────────────── REPLAYING
//! ```
//!
//! Resume refused: ENDED, and every request is told why.

use bytes::BytesMut;
use prost::Message;
use vamos_proto::frame;
use vamos_seam::{Bug, errs};
use vamos_sql_protocol::message::{self, Transaction};
use vamos_sql_protocol::{Kind, PROTOCOL};

use crate::error::{ClientError, SqlError};
use crate::limits::{REPLAY_BYTES_MAX, REPLAY_REQUESTS_MAX, RESUME_ATTEMPTS_MAX};
use crate::repeat::Progress;
use crate::sessions::{Reply, Slot, UNSENT};

/// Where a session stands towards its stream.
#[derive(Debug, Default)]
pub(crate) enum Phase {
    /// What is asked is sent at once.
    #[default]
    Live,
    /// What is asked is kept.
    Lost,
    /// The Resume under this number is on its way.
    Resuming(u64),
    /// The log is being replayed.
    Replaying(Replay),
    /// It could not go on.
    Ended(SqlError),
}

/// A replay under way.
#[derive(Debug)]
pub(crate) struct Replay {
    /// Under which number the first entry was sent; the others follow it.
    first: u64,
    /// How many entries have been answered.
    answered: usize,
    progress: Progress,
    differs: bool,
}

/// What a reply to a request of the recovery's own has led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It was none of those.
    NotMine,
    /// The session is on its way.
    Taken,
    /// Try to resume again in a while.
    Retry,
    /// The session has ended: whoever waits is to be told.
    Ended,
}

impl Slot {
    /// The stream is gone, and with it all that was on its way.
    pub(crate) fn lose_stream(&mut self) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        self.phase = Phase::Lost;
        for call in self.calls.iter_mut().filter(|call| !call.ended) {
            call.wire = UNSENT;
            call.progress = Progress::default();
        }
    }

    /// Whether a new stream is of use to it at once.
    pub(crate) fn wants_stream(&self) -> bool {
        matches!(self.phase, Phase::Lost)
            && (self.calls.iter().any(|call| !call.ended) || !self.log.is_empty())
    }

    /// A stream is there.
    pub(crate) fn begin(&mut self, number: u32, out: &mut BytesMut) {
        let Some(identity) = self.identity.clone() else {
            return self.go_live(number, out);
        };
        let acknowledged = self.acknowledged();
        let Ok(sequence) = self.first_sequence() else { return self.exhausted() };
        let body = message::Resume {
            protocol: PROTOCOL,
            key: identity.key,
            epoch: identity.epoch,
            seal: identity.seal,
            acknowledged,
            database: identity.database.clone(),
            application: identity.application.clone(),
            state: if self.log.entries.is_empty() { &self.state } else { &self.log.state }.clone(),
        };
        frame::encode(out, number, sequence, Kind::Resume as u16, |out| body.encode_raw(out));
        self.phase = Phase::Resuming(sequence);
    }

    /// Takes a reply, if it is to what the recovery asked.
    pub(crate) fn recover(&mut self, number: u32, sequence: u64, reply: &Reply, out: &mut BytesMut) -> Step {
        match &self.phase {
            Phase::Resuming(wire) if *wire == sequence => match reply {
                Reply::Opened(opened) => self.resumed(number, opened, out),
                Reply::Error(error) => return self.refused(error),
                other => {
                    let error = ClientError::UnexpectedReply(other.name());
                    self.phase = Phase::Ended(SqlError::local("08P01", error.to_string()));
                    return Step::Ended;
                }
            },
            Phase::Replaying(replay) => {
                let at = sequence.checked_sub(replay.first).map(|at| at as usize);
                if at.is_none_or(|at| at != replay.answered || at >= self.log.entries.len()) {
                    return Step::NotMine;
                }
                self.replayed(number, reply, out);
            }
            _ => return Step::NotMine,
        }
        Step::Taken
    }

    fn refused(&mut self, error: &SqlError) -> Step {
        // The session's former self may still be on its way out, or the host may be starting.
        let passes = ["53", "55", "57014"].iter().any(|class| error.sqlstate.starts_with(class));
        self.attempts += 1;
        if passes && self.attempts < RESUME_ATTEMPTS_MAX {
            self.phase = Phase::Lost;
            return Step::Retry;
        }
        self.phase = Phase::Ended(error.clone());
        Step::Ended
    }

    fn resumed(&mut self, number: u32, opened: &message::Opened, out: &mut BytesMut) {
        self.attempts = 0;
        let recorded = |number: u64| opened.recorded.binary_search(&number).is_ok();
        if self.calls.iter().any(|call| !call.ended && recorded(call.number)) && !errs(Bug::ReplaysCommitted)
        {
            // Nothing is recorded while a transaction is open: it has ended.
            self.log.clear();
            self.transaction = Transaction::None;
        }
        if self.log.overflowed {
            let what = format!(
                "the host was lost during a transaction of more than {REPLAY_REQUESTS_MAX} statements or {REPLAY_BYTES_MAX} bytes, which cannot be replayed"
            );
            self.fail(number, what, out);
        } else if self.transaction == Transaction::Failed {
            self.fail(number, "the transaction had failed before the host was lost".to_owned(), out);
        } else if !self.log.entries.is_empty() {
            return self.replay(number, out);
        }
        self.go_live(number, out);
    }

    fn replay(&mut self, number: u32, out: &mut BytesMut) {
        let mut first = 0;
        for at in 0..self.log.entries.len() {
            let Ok(sequence) = self.next_sequence() else { return self.exhausted() };
            self.log.entries[at].sent.again(number, sequence, out);
            first = if at == 0 { sequence } else { first };
        }
        self.phase =
            Phase::Replaying(Replay { first, answered: 0, progress: Progress::default(), differs: false });
    }

    fn replayed(&mut self, number: u32, reply: &Reply, out: &mut BytesMut) {
        let Phase::Replaying(replay) = &mut self.phase else { return };
        replay.progress.add(reply);
        if !reply.ends() {
            return;
        }
        let progress = std::mem::take(&mut replay.progress);
        let is_same = self.log.entries[replay.answered].answered == progress;
        replay.differs |= !is_same && !errs(Bug::ReplayUncompared);
        replay.answered += 1;
        let (all, differs) = (replay.answered == self.log.entries.len(), replay.differs);
        if let Some(state) = reply.state() {
            self.state = state.clone();
        }
        if !all {
            return;
        }
        if differs && self.transaction == Transaction::None {
            // Cursors without a transaction: whoever reads on is told that they are closed.
            let mut cursors: Vec<u64> = self.log.cursors().collect();
            cursors.dedup();
            for cursor in cursors {
                let Ok(sequence) = self.next_sequence() else { return self.exhausted() };
                let body = message::CloseCursor { cursor };
                frame::encode(out, number, sequence, Kind::CloseCursor as u16, |out| body.encode_raw(out));
            }
            self.log.clear();
        } else if differs {
            let what = "the host was lost, and what the transaction has read has changed since";
            self.fail(number, what.to_owned(), out);
        }
        self.go_live(number, out);
    }

    /// The transaction cannot go on.
    pub(crate) fn fail(&mut self, number: u32, reason: String, out: &mut BytesMut) {
        let Ok(sequence) = self.next_sequence() else { return self.exhausted() };
        let body = message::Fail { reason };
        frame::encode(out, number, sequence, Kind::Fail as u16, |out| body.encode_raw(out));
        self.log.clear();
        self.transaction = Transaction::Failed;
    }

    fn go_live(&mut self, number: u32, out: &mut BytesMut) {
        self.phase = Phase::Live;
        for at in 0..self.calls.len() {
            if self.calls[at].ended {
                continue;
            }
            let Ok(sequence) = self.next_sequence() else { return self.exhausted() };
            let call = &mut self.calls[at];
            call.wire = sequence;
            call.sent.again(number, sequence, out);
            if call.cancelled {
                let body = message::Cancel { sequence };
                frame::encode(out, number, 0, Kind::Cancel as u16, |out| body.encode_raw(out));
            }
        }
    }

    fn exhausted(&mut self) {
        self.phase =
            Phase::Ended(SqlError::local("54000", "the session has used up its request numbers".to_owned()));
    }
}
