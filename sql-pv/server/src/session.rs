//! One session on a link: its requests in order, one at a time.
//!
//! ```text
//!               Open, Resume (sequence n)
//!    (absent) ───────────────────▶ RUNNING ◀───────────────┐ next request of the queue,
//!                                  │  │  ▲                 │ sequence last + 1
//!            the engine refuses    │  │  │ output drained  │
//!    (absent) ◀────────────────────┘  │  │                 │
//!                                     │  STALLED           │
//!             the last frame of the   │  ▲ the client does │
//!             reply is in the output  │  │ not read fast   │
//!                                     ▼  │ enough          │
//!    (absent) ◀──── Close answered ── IDLE ────────────────┘
//! ```
//!
//! - The client numbers a session's requests one by one, beginning with the number of Open or Resume. `Cancel` is
//!   not a request: it carries no number of its own and acts at once. A gap, a repetition or the last
//!   number there is breaks the protocol.
//! - Broken protocol, from any state: the request under way is cancelled, an Error reply with SQLSTATE
//!   08P01 goes out, the session is rolled back and forgotten. Other sessions go on.
//! - End of the link, from any state: as if every session had been closed, without replies.
//! - A session on which nothing happens is this struct and what the engine keeps for it: no thread, no
//!   connection, no timer.
//!
//! Resume (a session that outlives its stream) is an Open with an identity: the numbers go on from its own,
//! and requests that were sent before say under which number.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use vamos_proto::frame::SEQUENCE_MAX;
use vamos_sql_protocol::Kind;
use vamos_sql_protocol::message::Transaction;

use crate::engine::{Cancel, Engine, EngineSession, SessionIdentity};
use crate::error::SqlError;
use crate::reply::Reply;
use crate::request::{self, Done, Step, Verb, Work};
use crate::service::{SessionPlace, Shared};
use crate::statements::Statements;

/// A request that waits for its turn.
struct Queued {
    sequence: u64,
    kind: Kind,
    body: Bytes,
    cancelled: bool,
}

/// Where the session stands.
enum State {
    /// Nothing is under way.
    Idle,
    /// The engine works on this request.
    Running { sequence: u64, verb: Verb, cancel: Arc<dyn Cancel> },
    /// The rest of this reply waits until the client has read some of what is there.
    Stalled { sequence: u64, verb: Verb, cancelled: bool },
}

/// What became of a session's turn.
pub(crate) enum Turn<E: Engine> {
    /// Nothing to do.
    Nothing,
    /// A reply is in the output.
    Answered,
    /// The engine works on it.
    Pending(Work<E>),
    /// The session is over; its last reply is in the output.
    Over,
}

/// A session; see the module's drawing.
pub(crate) struct Session<E: Engine> {
    pub(crate) number: u32,
    pub(crate) identity: SessionIdentity,
    pub(crate) shared: Arc<Shared<E>>,
    /// Absent until the engine has opened it.
    pub(crate) engine: Option<E::Session>,
    pub(crate) statements: Statements<E>,
    /// Cursors the client may fetch from.
    pub(crate) cursors: HashSet<u64>,
    state: State,
    queue: VecDeque<Queued>,
    last_sequence: u64,
    /// The state the client was told last.
    told: Bytes,
    /// Whether the link already has it among the sessions to be given a turn.
    pub(crate) listed: bool,
    _place: SessionPlace,
}

impl<E: Engine> Session<E> {
    pub(crate) fn new(number: u32, first_sequence: u64, shared: Arc<Shared<E>>, place: SessionPlace) -> Self {
        Self {
            number,
            identity: shared.mint(),
            statements: Statements::new(shared.statement_bytes.clone()),
            shared,
            engine: None,
            cursors: HashSet::new(),
            state: State::Idle,
            queue: VecDeque::new(),
            last_sequence: first_sequence.wrapping_sub(1),
            told: Bytes::new(),
            listed: false,
            _place: place,
        }
    }

    /// The transaction's state, for replies.
    pub(crate) fn transaction(&self) -> Transaction {
        self.engine.as_ref().map_or(Transaction::None, EngineSession::transaction)
    }

    /// The engine's state, if the client has not been told it; it will have been.
    pub(crate) fn untold_state(&mut self) -> Bytes {
        let state = self.engine.as_ref().map(EngineSession::state).unwrap_or_default();
        if state == self.told {
            return Bytes::new();
        }
        self.told = state.clone();
        state
    }

    /// The client knows the state as it is.
    pub(crate) fn told_state(&mut self) {
        self.untold_state();
    }

    /// Takes a request in, if its number is the next.
    pub(crate) fn enqueue(&mut self, sequence: u64, kind: Kind, body: Bytes) -> Result<(), SqlError> {
        let expected = self.last_sequence.wrapping_add(1);
        if sequence != expected || sequence == 0 || sequence >= SEQUENCE_MAX {
            return Err(SqlError::protocol(format!(
                "request number {sequence} on session {}, expected {expected}",
                self.number
            )));
        }
        self.last_sequence = sequence;
        self.queue.push_back(Queued { sequence, kind, body, cancelled: false });
        Ok(())
    }

    /// Requests waiting, and the bytes of their bodies.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.queue.len(), self.queue.iter().map(|queued| queued.body.len()).sum())
    }

    /// Whether it could make use of a turn.
    pub(crate) fn wants_turn(&self) -> bool {
        match self.state {
            State::Idle => !self.queue.is_empty(),
            State::Running { .. } => false,
            State::Stalled { .. } => true,
        }
    }

    /// Whether nothing is under way or waiting.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle) && self.queue.is_empty()
    }

    /// Interrupts the request with that number if it has not ended yet.
    pub(crate) fn cancel(&mut self, target: u64) {
        match &mut self.state {
            State::Running { sequence, cancel, .. } if *sequence == target => cancel.cancel(),
            State::Stalled { sequence, cancelled, .. } if *sequence == target => *cancelled = true,
            _ => {
                if let Some(queued) = self.queue.iter_mut().find(|queued| queued.sequence == target) {
                    queued.cancelled = true;
                }
            }
        }
    }

    /// Gives the session a turn: the rest of a stalled reply, or the next request. Also says how many
    /// bytes of body left the queue.
    pub(crate) fn turn(&mut self, out: &mut BytesMut) -> (Turn<E>, Option<usize>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            running @ State::Running { .. } => {
                self.state = running;
                (Turn::Nothing, None)
            }
            State::Stalled { sequence, verb, cancelled } => {
                let mut reply = Reply { out, session: self.number, sequence };
                let step = request::go_on(self, verb, cancelled, &mut reply);
                (self.settle(sequence, step, out), None)
            }
            State::Idle => {
                let Some(Queued { sequence, kind, body, cancelled }) = self.queue.pop_front() else {
                    return (Turn::Nothing, None);
                };
                let bytes = body.len();
                let mut reply = Reply { out, session: self.number, sequence };
                let step = if cancelled {
                    reply.error(&SqlError::cancelled(), self.transaction());
                    Step::Answered
                } else {
                    request::start(self, kind, body, &mut reply)
                };
                (self.settle(sequence, step, out), Some(bytes))
            }
        }
    }

    /// Takes what the engine answered to the request under way.
    pub(crate) fn finish(&mut self, done: Done<E>, out: &mut BytesMut) -> Turn<E> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Running { sequence, verb, .. } => {
                let mut reply = Reply { out, session: self.number, sequence };
                let step = request::finish(self, verb, done, &mut reply);
                self.settle(sequence, step, out)
            }
            other => {
                self.state = other;
                Turn::Nothing
            }
        }
    }

    /// Ends the session for breaking the protocol in the request with that number.
    pub(crate) fn violate(&mut self, sequence: u64, error: &SqlError, out: &mut BytesMut) {
        self.abandon();
        Reply { out, session: self.number, sequence }.error(error, Transaction::None);
    }

    /// A session that is about to go on here, which it cannot any more, does not.
    pub(crate) fn give_up_resuming(&mut self) {
        if let State::Running { verb: Verb::Resume { .. }, cancel, .. } = &self.state {
            cancel.cancel();
        }
    }

    /// Interrupts what is under way because nobody will want the outcome.
    pub(crate) fn abandon(&mut self) {
        if let State::Running { cancel, .. } = &self.state {
            cancel.cancel();
        }
    }

    fn settle(&mut self, sequence: u64, step: Step<E>, out: &mut BytesMut) -> Turn<E> {
        match step {
            Step::Answered => Turn::Answered,
            Step::Pending(verb, work, cancel) => {
                self.state = State::Running { sequence, verb, cancel };
                Turn::Pending(work)
            }
            Step::Stalled(verb) => {
                self.state = State::Stalled { sequence, verb, cancelled: false };
                Turn::Answered
            }
            Step::Violation(error) => {
                self.violate(sequence, &error, out);
                Turn::Over
            }
            Step::Over => Turn::Over,
        }
    }
}
