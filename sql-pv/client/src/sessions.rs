//! Who waits for what on a link: sessions by number, their unanswered calls by sequence. No I/O.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use vamos_proto::frame::SEQUENCE_MAX;
use vamos_seam::{Bug, errs};
use vamos_sql_protocol::limits::SQL_LINK_SESSIONS_MAX;
use vamos_sql_protocol::message::Transaction;
use vamos_sql_protocol::{Kind, message};

use crate::error::{ClientError, SqlError};
use crate::recovery::{Phase, Step};
use crate::repeat::{Log, Progress, Sent};

/// A reply, parsed; rows and parameters stay packed.
#[derive(Debug)]
pub(crate) enum Reply {
    Opened(message::Opened),
    Result(message::Result),
    Batch(message::BatchResult),
    Described(message::Described),
    Closed,
    Pong,
    TextWanted,
    Error(SqlError),
}

impl Reply {
    /// What it is, for a reader of an error message.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Reply::Opened(_) => "Opened",
            Reply::Result(_) => "Result",
            Reply::Batch(_) => "BatchResult",
            Reply::Described(_) => "Described",
            Reply::Closed => "Closed",
            Reply::Pong => "Pong",
            Reply::TextWanted => "TextWanted",
            Reply::Error(_) => "Error",
        }
    }

    pub(crate) fn ends(&self) -> bool {
        !matches!(self, Reply::Result(result) if result.more)
    }

    fn suspends(&self) -> bool {
        matches!(self, Reply::Result(result) if result.suspended)
    }

    /// The transaction after the request, if the reply says.
    fn transaction(&self) -> Option<Transaction> {
        match self {
            Reply::Result(result) => Some(result.transaction()),
            Reply::Batch(batch) => Some(batch.transaction()),
            Reply::Error(error) => Some(error.transaction),
            _ => None,
        }
    }

    /// The session's state, if it has changed.
    pub(crate) fn state(&self) -> Option<&Bytes> {
        let state = match self {
            Reply::Result(result) => &result.state,
            Reply::Batch(batch) => &batch.state,
            _ => return None,
        };
        (!state.is_empty()).then_some(state)
    }
}

/// The number of a call that is on no stream at the moment; larger than any that is.
pub(crate) const UNSENT: u64 = u64::MAX;

/// One request from its sending to its last reply.
#[derive(Debug)]
pub(crate) struct Call {
    /// Its number in the session, for good.
    pub(crate) number: u64,
    /// The number of its frame on the present stream.
    pub(crate) wire: u64,
    /// The request, kept until it is answered.
    pub(crate) sent: Sent,
    /// What came of the reply on the present stream.
    pub(crate) progress: Progress,
    /// What of the reply has been handed on, on whatever stream it came.
    pub(crate) delivered: Progress,
    /// To be interrupted as soon as it is on a stream.
    pub(crate) cancelled: bool,
    /// Number of the Execute whose cursor this call reads.
    pub(crate) cursor: u64,
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) ended: bool,
    /// Nobody waits for it any more: its replies are dropped as they come.
    pub(crate) abandoned: bool,
    pub(crate) waker: Option<Waker>,
}

/// What a reply is to a call that may have had a part of it before.
enum Taking {
    New(Reply),
    /// It has been handed on already.
    Known,
    /// Another one was handed on in its place.
    Differs,
}

impl Call {
    /// Takes in a reply; counts what it says if that `matters` for another stream.
    fn take_in(&mut self, reply: Reply, matters: bool) -> Taking {
        let again = self.progress.replies < self.delivered.replies;
        if !matters && !again {
            return Taking::New(reply);
        }
        self.progress.add(&reply);
        if !again {
            self.delivered = self.progress;
            return Taking::New(reply);
        }
        let is_last = self.progress.replies == self.delivered.replies;
        if reply.ends() || (is_last && self.progress != self.delivered) {
            // What was handed on was no end.
            return Taking::Differs;
        }
        Taking::Known
    }
}

/// What a call is told whose reply cannot be continued.
fn changed(transaction: Transaction) -> SqlError {
    let message = "the host was lost while the result was read, and it has changed since".to_owned();
    SqlError { transaction, ..SqlError::local("40001", message) }
}

/// What towards the service makes a session the same one on another link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) key: u64,
    pub(crate) epoch: u64,
    pub(crate) seal: u64,
    pub(crate) database: String,
    pub(crate) application: String,
}

/// A session, told apart from those that had its number before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionRef {
    /// Its number on the link.
    pub(crate) number: u32,
    /// How many sessions the link had before it.
    generation: u64,
}

impl SessionRef {
    /// The link itself.
    pub(crate) const LINK: SessionRef = SessionRef { number: 0, generation: 0 };
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    in_use: bool,
    generation: u64,
    /// The number of the latest call.
    last_number: u64,
    /// The number of the latest frame; a call sent at once has the same.
    last_sequence: u64,
    /// In the order of their numbers, which is that of their frames.
    pub(crate) calls: VecDeque<Call>,
    pub(crate) identity: Option<Identity>,
    /// What the identity will be once the service has said the rest of it.
    pub(crate) opening: Option<Identity>,
    pub(crate) phase: Phase,
    /// As the replies told it last.
    pub(crate) transaction: Transaction,
    /// Same, packed by the service.
    pub(crate) state: Bytes,
    /// What a new stream needs to be told before anything else.
    pub(crate) log: Log,
    /// How often the service has refused to resume the session for now.
    pub(crate) attempts: u32,
}

impl Slot {
    /// The numbers of the session's next call, and of its frame.
    pub(crate) fn next_call(&mut self) -> Result<(u64, u64), ClientError> {
        if matches!(self.phase, Phase::Live) {
            self.last_number = self.next_sequence()?;
            return Ok((self.last_number, self.last_number));
        }
        self.last_number += 1;
        Ok((self.last_number, UNSENT))
    }

    /// The number of the first frame on another stream, beyond all that have been used.
    pub(crate) fn first_sequence(&mut self) -> Result<u64, ClientError> {
        self.last_sequence = self.last_sequence.max(self.last_number);
        self.next_sequence()
    }

    /// The number of the session's next frame.
    pub(crate) fn next_sequence(&mut self) -> Result<u64, ClientError> {
        if self.last_sequence >= SEQUENCE_MAX {
            let (value, limit) = (SEQUENCE_MAX as usize, SEQUENCE_MAX as usize);
            return Err(ClientError::Limit { what: "requests of one session", value, limit });
        }
        self.last_sequence += 1;
        Ok(self.last_sequence)
    }

    /// The call of that number, nearly always the first.
    pub(crate) fn position(&self, number: u64) -> Option<usize> {
        if self.calls.front().is_some_and(|call| call.number == number) {
            return Some(0);
        }
        self.calls.binary_search_by_key(&number, |call| call.number).ok()
    }

    /// The call whose frame has that number.
    fn on_wire(&self, sequence: u64) -> Option<usize> {
        if self.calls.front().is_some_and(|call| call.wire == sequence) {
            return Some(0);
        }
        self.calls.binary_search_by_key(&sequence, |call| call.wire).ok()
    }

    /// Every request up to this one has been answered, and needs no record any more.
    pub(crate) fn acknowledged(&self) -> u64 {
        if errs(Bug::AcknowledgesAhead) {
            return self.last_number;
        }
        let unanswered = self.calls.iter().find(|call| !call.ended).map(|call| call.number);
        // The log of a transaction is about nothing that has been recorded; a cursor without one may be.
        let read = if self.transaction == Transaction::None { self.log.first() } else { None };
        let first = unanswered.into_iter().chain(read).min();
        first.map_or(self.last_number, |first| first - 1)
    }

    /// Whether everything that was asked has been answered.
    pub(crate) fn is_settled(&self) -> bool {
        self.calls.iter().all(|call| call.ended)
    }

    /// Notes what the last reply of a call says of the session, and keeps the call if a new stream would
    /// need it.
    fn note(&mut self, at: usize, reply: &Reply) {
        let transaction = reply.transaction().unwrap_or(self.transaction);
        if transaction != Transaction::Open && self.transaction != Transaction::None {
            self.log.clear();
        }
        self.transaction = transaction;
        let call = &self.calls[at];
        let may_be_kept =
            matches!(call.sent.kind, Kind::Execute | Kind::Batch | Kind::Fetch | Kind::CloseCursor)
                && !matches!(reply, Reply::TextWanted);
        if may_be_kept && (transaction == Transaction::Open || reply.suspends()) {
            if self.log.entries.is_empty() {
                self.log.state = self.state.clone();
            }
            self.log.push(call.sent.clone(), call.cursor, call.progress);
        } else if may_be_kept && self.log.knows_cursor(call.cursor) {
            let cursor = call.cursor;
            self.log.forget_cursor(cursor);
        }
        if let Some(state) = reply.state() {
            self.state = state.clone();
        }
    }
}

/// Sessions by number; number 0 is the link itself.
#[derive(Debug)]
pub(crate) struct Sessions {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    allotted: u64,
    /// Calls somebody waits for.
    pub(crate) in_flight: usize,
    /// Bytes of the requests that are kept because they are unanswered.
    pub(crate) kept: usize,
    /// There is a stream.
    pub(crate) connected: bool,
}

/// What there is of a call's replies.
pub(crate) enum Taken {
    /// The next one.
    Reply(Reply),
    /// It has not come; the waker will be woken.
    NotYet,
    /// The session has ended, and the call with it.
    Gone,
}

/// What the reader has to do after it delivered a reply.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    pub(crate) waker: Option<Waker>,
    /// A cursor nobody reads is open: close it.
    pub(crate) close_cursor: Option<u64>,
    /// A session nobody holds was opened: close it.
    pub(crate) close_session: bool,
    /// The session is to be resumed again in a while.
    pub(crate) retry: bool,
    /// Somebody was waiting for it.
    pub(crate) awaited: bool,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![Slot { in_use: true, ..Slot::default() }],
            vacant: Vec::new(),
            allotted: 0,
            in_flight: 0,
            kept: 0,
            connected: false,
        }
    }

    /// A number for a new session.
    pub(crate) fn allot(&mut self) -> Result<SessionRef, ClientError> {
        let number = match self.vacant.pop() {
            Some(number) => number,
            None if self.slots.len() > SQL_LINK_SESSIONS_MAX => {
                let (value, limit) = (self.slots.len(), SQL_LINK_SESSIONS_MAX);
                return Err(ClientError::Limit { what: "sessions on one link", value, limit });
            }
            None => {
                self.slots.push(Slot::default());
                (self.slots.len() - 1) as u32
            }
        };
        self.allotted += 1;
        let generation = self.allotted;
        let phase = if self.connected { Phase::Live } else { Phase::Lost };
        self.slots[number as usize] = Slot { in_use: true, generation, phase, ..Slot::default() };
        Ok(SessionRef { number, generation })
    }

    /// The state of a session, if that has not ended.
    pub(crate) fn slot(&mut self, session: SessionRef) -> Option<&mut Slot> {
        self.by_number(session.number).filter(|slot| slot.generation == session.generation)
    }

    /// The state of the session that has this number now.
    fn by_number(&mut self, number: u32) -> Option<&mut Slot> {
        self.slots.get_mut(number as usize).filter(|slot| slot.in_use)
    }

    /// The session that has this number now.
    pub(crate) fn current(&mut self, number: u32) -> Option<SessionRef> {
        self.by_number(number).map(|slot| SessionRef { number, generation: slot.generation })
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Slot)> {
        let numbered = self.slots.iter_mut().enumerate();
        numbered.filter(|(_, slot)| slot.in_use).map(|(number, slot)| (number as u32, slot))
    }

    /// Whether there is neither a session nor a request.
    pub(crate) fn is_unused(&self) -> bool {
        let mut in_use = self.slots.iter().filter(|slot| slot.in_use);
        in_use.next().is_none_or(|link| link.calls.is_empty()) && in_use.next().is_none()
    }

    /// Why a session could not go on, if it could not.
    pub(crate) fn end_of(&mut self, session: SessionRef) -> Option<SqlError> {
        match &self.slot(session)?.phase {
            Phase::Ended(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// The stream is gone.
    pub(crate) fn lose_stream(&mut self) {
        self.connected = false;
        self.slots.iter_mut().for_each(Slot::lose_stream);
    }

    /// Another stream is there: what wants it goes on.
    pub(crate) fn begin(&mut self, out: &mut BytesMut) {
        self.connected = true;
        for (number, slot) in self.iter_mut() {
            if number == 0 || slot.identity.is_none() || slot.wants_stream() {
                slot.begin(number, out);
            }
        }
    }

    /// The session has ended; who still waits for it is woken to be told.
    fn vacate(&mut self, session: SessionRef) {
        if session == SessionRef::LINK {
            return;
        }
        if let Some(slot) = self.slot(session) {
            slot.calls.iter_mut().filter_map(|call| call.waker.take()).for_each(Waker::wake);
            let unanswered = slot.calls.iter().filter(|call| !call.ended);
            let (awaited, kept) = unanswered.fold((0, 0), |(awaited, kept), call| {
                (awaited + usize::from(!call.abandoned), kept + call.sent.request.len())
            });
            *slot = Slot::default();
            self.in_flight -= awaited;
            self.kept -= kept;
            self.vacant.push(session.number);
        }
    }

    /// Hands a reply to its call. `None` if no such call is under way, which a correct service never
    /// lets happen.
    pub(crate) fn deliver(
        &mut self,
        session: SessionRef,
        sequence: u64,
        reply: Reply,
        out: &mut BytesMut,
    ) -> Option<Delivered> {
        let slot = self.slot(session)?;
        match slot.recover(session.number, sequence, &reply, out) {
            Step::NotMine => {}
            Step::Taken => return Some(Delivered::default()),
            Step::Retry => return Some(Delivered { retry: true, ..Delivered::default() }),
            Step::Ended => {
                slot.calls.iter_mut().filter_map(|call| call.waker.take()).for_each(Waker::wake);
                return Some(Delivered::default());
            }
        }
        let at = slot.on_wire(sequence)?;
        let matters = !reply.ends() || reply.suspends() || reply.transaction() == Some(Transaction::Open);
        let in_transaction = slot.transaction == Transaction::Open;
        let call = &mut slot.calls[at];
        if call.ended {
            return None;
        }
        let reply = match call.take_in(reply, matters || in_transaction) {
            Taking::New(reply) => reply,
            Taking::Known => return Some(Delivered::default()),
            Taking::Differs => {
                if in_transaction {
                    let what = "the host was lost, and what the transaction was reading has changed since";
                    slot.fail(session.number, what.to_owned(), out);
                }
                Reply::Error(changed(slot.transaction))
            }
        };
        let call = &slot.calls[at];
        let (kind, abandoned, cursor, ends) = (call.sent.kind, call.abandoned, call.cursor, reply.ends());
        let mut done = Delivered { awaited: !abandoned, ..Delivered::default() };
        if ends {
            slot.note(at, &reply);
        }
        let call = &mut slot.calls[at];
        call.ended = ends;
        let answered = if ends { std::mem::take(&mut call.sent.request).len() } else { 0 };
        let opened = matches!((&reply, kind), (Reply::Opened(_), Kind::Open));
        let vacates = ends && (matches!((kind, &reply), (Kind::Close, _)) || (kind == Kind::Open && !opened));
        if let (Reply::Opened(opened), Kind::Open) = (&reply, kind) {
            if let Some(identity) = &mut slot.opening {
                (identity.key, identity.epoch, identity.seal) = (opened.key, opened.epoch, opened.seal);
            }
            slot.identity = slot.opening.take();
        }
        if abandoned {
            if ends {
                done.close_cursor = reply.suspends().then_some(cursor);
                done.close_session = opened;
                slot.calls.remove(at);
            }
        } else {
            call.replies.push_back(reply);
            done.waker = call.waker.take();
            self.in_flight -= usize::from(ends);
        }
        self.kept -= answered;
        if vacates && abandoned {
            self.vacate(session);
        }
        Some(done)
    }

    /// Takes the next reply of a call; the call is forgotten with its last one.
    pub(crate) fn take(&mut self, session: SessionRef, sequence: u64, waker: &Waker) -> Taken {
        let Some(slot) = self.slot(session) else { return Taken::Gone };
        let Some(at) = slot.position(sequence) else { return Taken::Gone };
        let call = &mut slot.calls[at];
        let Some(reply) = call.replies.pop_front() else {
            match &mut call.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            return Taken::NotYet;
        };
        if call.ended && call.replies.is_empty() {
            let kind = call.sent.kind;
            slot.calls.remove(at);
            if kind == Kind::Close || (kind == Kind::Open && matches!(reply, Reply::Error(_))) {
                self.vacate(session);
            }
        }
        Taken::Reply(reply)
    }

    /// Nobody waits for a call any more. Says what must be closed because of it.
    pub(crate) fn abandon(&mut self, session: SessionRef, sequence: u64) -> Delivered {
        let mut done = Delivered::default();
        let Some(slot) = self.slot(session) else { return done };
        let Some(at) = slot.position(sequence) else { return done };
        let call = &mut slot.calls[at];
        call.waker = None;
        if !call.ended {
            call.abandoned = true;
            call.replies.clear();
            self.in_flight -= 1;
            return done;
        }
        let Some(call) = slot.calls.remove(at) else { return done };
        done.close_cursor = call.replies.back().is_some_and(Reply::suspends).then_some(call.cursor);
        let opened = matches!(call.replies.back(), Some(Reply::Opened(_)));
        done.close_session = call.sent.kind == Kind::Open && opened;
        if call.sent.kind == Kind::Close || (call.sent.kind == Kind::Open && !opened) {
            self.vacate(session);
        }
        done
    }
}
