//! Who waits for what on a link: sessions by number, their unanswered calls by sequence. No I/O.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;
use vamos_proto::frame::SEQUENCE_MAX;
use vamos_sql_protocol::limits::SQL_LINK_SESSIONS_MAX;
use vamos_sql_protocol::{Kind, message};

use crate::error::{ClientError, SqlError};

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

    fn ends(&self) -> bool {
        !matches!(self, Reply::Result(result) if result.more)
    }

    fn suspends(&self) -> bool {
        matches!(self, Reply::Result(result) if result.suspended)
    }
}

/// One request from its sending to its last reply.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) sequence: u64,
    pub(crate) kind: Kind,
    /// The encoded frame, kept until the call is answered: what a continued session sends again.
    pub(crate) request: Bytes,
    /// Sequence of the Execute whose cursor this call reads.
    pub(crate) cursor: u64,
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) ended: bool,
    /// Nobody waits for it any more: its replies are dropped as they come.
    pub(crate) abandoned: bool,
    pub(crate) waker: Option<Waker>,
}

/// What towards the service makes a session the same one on another link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) key: u64,
    pub(crate) epoch: u64,
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
    last_sequence: u64,
    pub(crate) calls: VecDeque<Call>,
    pub(crate) identity: Option<Identity>,
}

impl Slot {
    /// The number of the session's next request.
    pub(crate) fn next_sequence(&mut self) -> Result<u64, ClientError> {
        if self.last_sequence >= SEQUENCE_MAX {
            let (value, limit) = (SEQUENCE_MAX as usize, SEQUENCE_MAX as usize);
            return Err(ClientError::Limit { what: "requests of one session", value, limit });
        }
        self.last_sequence += 1;
        Ok(self.last_sequence)
    }

    /// Calls are in order of sequence; the one asked for is nearly always the first.
    pub(crate) fn position(&self, sequence: u64) -> Option<usize> {
        if self.calls.front().is_some_and(|call| call.sequence == sequence) {
            return Some(0);
        }
        self.calls.binary_search_by_key(&sequence, |call| call.sequence).ok()
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
        self.slots[number as usize] = Slot { in_use: true, generation, ..Slot::default() };
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

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().filter(|slot| slot.in_use)
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
                (awaited + usize::from(!call.abandoned), kept + call.request.len())
            });
            *slot = Slot::default();
            self.in_flight -= awaited;
            self.kept -= kept;
            self.vacant.push(session.number);
        }
    }

    /// Hands a reply to its call. `None` if no such call is under way, which a correct service never
    /// lets happen.
    pub(crate) fn deliver(&mut self, session: SessionRef, sequence: u64, reply: Reply) -> Option<Delivered> {
        let slot = self.slot(session)?;
        let at = slot.position(sequence)?;
        let call = &mut slot.calls[at];
        if call.ended {
            return None;
        }
        let (kind, abandoned, cursor, ends) = (call.kind, call.abandoned, call.cursor, reply.ends());
        let mut done = Delivered { awaited: !abandoned, ..Delivered::default() };
        call.ended = ends;
        let answered = if ends { std::mem::take(&mut call.request).len() } else { 0 };
        let opened = matches!((&reply, kind), (Reply::Opened(_), Kind::Open));
        let vacates = ends && (matches!((kind, &reply), (Kind::Close, _)) || (kind == Kind::Open && !opened));
        if let (Reply::Opened(opened), Kind::Open) = (&reply, kind) {
            slot.identity = Some(Identity { key: opened.key, epoch: opened.epoch });
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
            let kind = call.kind;
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
        done.close_session = call.kind == Kind::Open && opened;
        if call.kind == Kind::Close || (call.kind == Kind::Open && !opened) {
            self.vacate(session);
        }
        done
    }
}
