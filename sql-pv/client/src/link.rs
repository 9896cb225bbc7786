//! The state of one link: frames queued for the stream and calls under way.
//!
//! ```text
//!  caller ── send ──▶ queue ──┬── inline, when nobody else is about to ask ──▶ stream
//!                             └── writer task, one turn later: all in one write ──▶ stream
//!  caller ◀── take ── calls ◀── reader task, every reply of one read at once ◀── stream
//! ```
//!
//! A link outlives its stream if it can open another one: requests are kept until they are answered, and
//! each session makes its way onto the new stream (`recovery`).
//!
//! A caller that is alone on the link writes its request itself: one task switch less. When several
//! sessions are at it, the first one only wakes the writer, which lets every ready session queue its
//! request before it writes them all at once; no timer is involved.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use tokio::sync::Notify;
use vamos_proto::frame;
use vamos_sql_protocol::limits::SQL_FRAME_BYTES_MAX;
use vamos_sql_protocol::{Kind, message};

use crate::error::{ClientError, LinkLoss};
use crate::limits::{LINK_QUEUE_BYTES_MAX, LINK_UNANSWERED_BYTES_MAX, SESSION_REQUESTS_MAX};
use crate::recovery::Phase;
use crate::repeat::{self, ACKNOWLEDGEMENT_BYTES, Progress, Sent};
use crate::sessions::{Call, Delivered, Identity, Reply, SessionRef, Sessions, Slot, Taken, UNSENT};

/// The half of a stream that is written.
pub(crate) type Outward = Box<dyn AsyncWrite + Send + Unpin>;

/// One link, shared by its clients, sessions and tasks.
pub(crate) struct Link {
    state: Mutex<State>,
    /// Room in the queue, or the end of the link.
    room: Notify,
    /// The end of the stream, or of the link.
    lost: Notify,
}

pub(crate) struct State {
    stream: Outward,
    queue: BytesMut,
    unflushed: bool,
    /// Where requests are encoded; what is kept of them are slices of it.
    scratch: BytesMut,
    pub(crate) sessions: Sessions,
    writer: Option<Waker>,
    /// Awaited replies that the reader's last read brought: how many others are about to ask.
    crowd: usize,
    /// Client and session handles; the link ends with the last.
    handles: usize,
    closing: bool,
    /// Why the stream is of no use any more.
    incident: Option<LinkLoss>,
    /// Why the link has ended.
    loss: Option<Arc<LinkLoss>>,
}

/// A request about to be sent.
pub(crate) struct Request<'a, M> {
    pub(crate) session: SessionRef,
    pub(crate) kind: Kind,
    pub(crate) body: &'a M,
    /// Sequence of the Execute whose cursor it reads; 0: the request's own.
    pub(crate) cursor: u64,
    /// The statement's text, if the body names it by its id only.
    pub(crate) text: Option<&'a Arc<str>>,
    /// Nobody waits for its reply, and it may wait for company before it is written.
    pub(crate) unawaited: bool,
}

impl<'a, M> Request<'a, M> {
    /// A request somebody waits for.
    pub(crate) fn awaited(session: SessionRef, kind: Kind, body: &'a M, cursor: u64) -> Self {
        Self { session, kind, body, cursor, text: None, unawaited: false }
    }
}

impl Link {
    /// A link without a stream yet.
    pub(crate) fn new() -> Self {
        let state = State {
            stream: Box::new(tokio::io::sink()),
            queue: BytesMut::new(),
            unflushed: false,
            scratch: BytesMut::new(),
            sessions: Sessions::new(),
            writer: None,
            crowd: 0,
            handles: 0,
            closing: false,
            incident: None,
            loss: None,
        };
        Self { state: Mutex::new(state), room: Notify::new(), lost: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned state is still consistent: nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with `stream`: what is waiting for one is queued.
    pub(crate) fn begin(&self, stream: Outward) {
        let mut state = self.state();
        let State { queue, sessions, .. } = &mut *state;
        queue.clear();
        sessions.begin(queue);
        (state.stream, state.unflushed, state.crowd) = (stream, false, 0);
        drop(state);
        self.room.notify_waiters();
    }

    /// The stream is of no use any more.
    pub(crate) fn interrupt(&self, loss: LinkLoss) {
        let mut state = self.state();
        if state.incident.is_some() || state.loss.is_some() {
            return;
        }
        tracing::debug!(%loss, unanswered = state.sessions.in_flight, "lost the stream");
        state.incident = Some(loss);
        state.queue.clear();
        state.sessions.lose_stream();
        let writer = state.writer.take();
        drop(state);
        self.lost.notify_waiters();
        writer.into_iter().for_each(Waker::wake);
    }

    /// Waits until the stream is of no use any more.
    pub(crate) async fn interrupted(&self) {
        loop {
            let lost = self.lost.notified();
            {
                let state = self.state();
                if state.incident.is_some() || state.loss.is_some() {
                    return;
                }
            }
            lost.await;
        }
    }

    /// What became of the stream, and whether anybody would miss another one.
    pub(crate) fn take_incident(&self) -> (LinkLoss, bool) {
        let mut state = self.state();
        let is_missed = !state.closing && !state.sessions.is_unused();
        (state.incident.take().unwrap_or(LinkLoss::Dropped), is_missed)
    }

    /// Whether every handle is gone.
    pub(crate) fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// Tries again to resume a session that the service could not take yet.
    pub(crate) fn retry(&self, session: SessionRef) {
        let mut state = self.state();
        let State { queue, sessions, .. } = &mut *state;
        if !sessions.connected {
            return;
        }
        if let Some(slot) = sessions.slot(session)
            && slot.wants_stream()
        {
            slot.begin(session.number, queue);
        }
        let writer = state.writer.take();
        drop(state);
        writer.into_iter().for_each(Waker::wake);
    }

    /// Waits until everything the session has asked is answered.
    pub(crate) async fn settled(&self, session: SessionRef) {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.state();
                if state.loss.is_some() || state.sessions.slot(session).is_none_or(|slot| slot.is_settled()) {
                    return;
                }
            }
            room.await;
        }
    }

    /// Waits until the session may queue another request.
    pub(crate) async fn room(&self, session: SessionRef) {
        loop {
            let room = self.room.notified();
            if self.state().has_room(session) {
                return;
            }
            room.await;
        }
    }

    /// Numbers, keeps and queues a request, and sees to it that it is written.
    pub(crate) fn send<M: prost::Message>(&self, request: Request<'_, M>) -> Result<u64, ClientError> {
        let mut state = self.state();
        let alone = state.sessions.in_flight == 0 && state.crowd <= 1;
        let sequence = state.enqueue(&request)?;
        if request.unawaited {
            return Ok(sequence);
        }
        if alone && state.sessions.connected {
            // Whatever does not fit the stream now is the writer's, which knows how to wait for it.
            let mut nobody = Context::from_waker(Waker::noop());
            if let Poll::Ready(Ok(())) = state.drain(&mut nobody) {
                return Ok(sequence);
            }
        }
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(sequence)
    }

    /// Queues a Cancel, which has no number of its own and no reply.
    pub(crate) fn cancel(&self, session: SessionRef, sequence: u64) {
        let mut state = self.state();
        if state.loss.is_none() {
            state.cancel(session, sequence);
        }
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// The last request of a session that is still unanswered.
    pub(crate) fn under_way(&self, session: SessionRef) -> Option<u64> {
        let mut state = self.state();
        let slot = state.sessions.slot(session)?;
        slot.calls.iter().rfind(|call| !call.ended && !call.abandoned).map(|call| call.number)
    }

    /// Nobody holds the statement any more: its id is forgotten with the session's next request.
    pub(crate) fn forget_statement(&self, session: SessionRef, statement: u64) {
        let mut state = self.state();
        let closing = |slot: &mut Slot| slot.calls.iter().any(|call| call.sent.kind == Kind::Close);
        if state.loss.is_none() && state.sessions.slot(session).is_some_and(|slot| !closing(slot)) {
            state.enqueue_unawaited(session, Kind::CloseStatement, &message::CloseStatement { statement });
        }
    }

    /// A number for a new session on that database.
    pub(crate) fn allot(&self, database: &str, application: &str) -> Result<SessionRef, ClientError> {
        let mut state = self.state();
        state.check()?;
        let session = state.sessions.allot()?;
        if let Some(slot) = state.sessions.slot(session) {
            let (database, application) = (database.to_owned(), application.to_owned());
            slot.opening = Some(Identity { key: 0, epoch: 0, seal: 0, database, application });
        }
        Ok(session)
    }

    /// Nobody holds the session any more: interrupts what it has under way and ends it.
    pub(crate) fn close_session(&self, session: SessionRef) {
        let mut state = self.state();
        if state.loss.is_some() {
            return;
        }
        let Some(slot) = state.sessions.slot(session) else { return };
        if slot.calls.iter().any(|call| call.sent.kind == Kind::Close) {
            return;
        }
        let under_way: Vec<u64> =
            slot.calls.iter().filter(|call| !call.ended).map(|call| call.number).collect();
        under_way.into_iter().for_each(|number| state.cancel(session, number));
        state.enqueue_unawaited(session, Kind::Close, &message::Close {});
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// The next reply of a call.
    pub(crate) fn poll_reply(
        &self,
        session: SessionRef,
        sequence: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Reply, ClientError>> {
        let mut state = self.state();
        match state.sessions.take(session, sequence, cx.waker()) {
            Taken::Reply(reply) => Poll::Ready(Ok(reply)),
            Taken::NotYet => match (state.sessions.end_of(session), &state.loss) {
                (Some(error), _) => Poll::Ready(Err(ClientError::SessionLost(error))),
                (None, Some(loss)) => Poll::Ready(Err(ClientError::LinkLost(Arc::clone(loss)))),
                (None, None) => Poll::Pending,
            },
            Taken::Gone => Poll::Ready(Err(ClientError::SessionEnded)),
        }
    }

    /// Nobody waits for the call any more.
    pub(crate) fn abandon(&self, session: SessionRef, sequence: u64) {
        let mut state = self.state();
        let done = state.sessions.abandon(session, sequence);
        state.follow_up(session, &done);
    }

    /// Hands the replies of one read to those who wait for them. Says which sessions are to be resumed again in
    /// a while.
    pub(crate) fn deliver(
        &self,
        replies: &mut Vec<(u32, u64, Reply)>,
        wakers: &mut Vec<Waker>,
    ) -> Vec<SessionRef> {
        let mut retries = Vec::new();
        let mut state = self.state();
        state.crowd = 0;
        for (number, sequence, reply) in replies.drain(..) {
            let name = reply.name();
            let session = state.sessions.current(number);
            let State { queue, sessions, .. } = &mut *state;
            let delivered = session
                .and_then(|session| Some((session, sessions.deliver(session, sequence, reply, queue)?)));
            let Some((session, mut done)) = delivered else {
                tracing::debug!(session = number, sequence, reply = name, "dropped a reply nobody waits for");
                continue;
            };
            state.crowd += usize::from(done.awaited);
            wakers.extend(done.waker.take());
            retries.extend(done.retry.then_some(session));
            state.follow_up(session, &done);
        }
        // A recovery may have something to say.
        let writer = if state.queue.is_empty() { None } else { state.writer.take() };
        drop(state);
        wakers.extend(writer);
        self.room.notify_waiters();
        wakers.drain(..).for_each(Waker::wake);
        retries
    }

    /// Writes what is queued. Ready when the stream or the link has ended.
    pub(crate) fn poll_write(&self, yielded: &mut bool, cx: &mut Context<'_>) -> Poll<Result<(), LinkLoss>> {
        let mut state = self.state();
        if state.loss.is_some() || state.incident.is_some() {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        if state.queue.is_empty() && !state.unflushed {
            *yielded = false;
            return if state.closing { Poll::Ready(Err(LinkLoss::Dropped)) } else { Poll::Pending };
        }
        if !*yielded {
            // One turn for every session that is ready to ask: their requests share this write.
            *yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let drained = state.drain(cx);
        let room = state.queue.len() < LINK_QUEUE_BYTES_MAX;
        let closing = state.closing;
        drop(state);
        if room {
            self.room.notify_waiters();
        }
        match drained {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(LinkLoss::Io(error))),
            Poll::Ready(Ok(())) if closing => Poll::Ready(Err(LinkLoss::Dropped)),
            Poll::Ready(Ok(())) => {
                *yielded = false;
                Poll::Pending
            }
        }
    }

    /// Ends the link: every waiting request gets `loss`.
    pub(crate) fn lose(&self, loss: LinkLoss) {
        let mut state = self.state();
        if state.loss.is_some() {
            return;
        }
        let loss = Arc::new(loss);
        tracing::debug!(loss = %loss, unanswered = state.sessions.in_flight, "link lost");
        state.loss = Some(loss);
        state.sessions.connected = false;
        state.queue.clear();
        let mut wakers: VecDeque<Waker> = state.writer.take().into_iter().collect();
        for (_, slot) in state.sessions.iter_mut() {
            wakers.extend(slot.calls.iter_mut().filter_map(|call| call.waker.take()));
        }
        drop(state);
        self.room.notify_waiters();
        self.lost.notify_waiters();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Why the link has ended, if it has.
    pub(crate) fn loss(&self) -> Option<Arc<LinkLoss>> {
        self.state().loss.clone()
    }

    /// Waits for the end of the link.
    pub(crate) async fn ended(&self) -> Arc<LinkLoss> {
        loop {
            let lost = self.lost.notified();
            if let Some(loss) = self.loss() {
                return loss;
            }
            lost.await;
        }
    }

    /// Counts a client or session handle.
    pub(crate) fn hold(&self) {
        self.state().handles += 1;
    }

    /// A client or session handle is gone; with the last one the link is closed.
    pub(crate) fn release(&self) {
        let mut state = self.state();
        state.handles -= 1;
        if state.handles > 0 {
            return;
        }
        state.closing = true;
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Ends the stream and drops this half of it, so that the service sees the end whoever still holds the link.
    pub(crate) fn poll_let_go(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        // A stream that cannot be ended politely, or not at once, is dropped all the same.
        let _ = Pin::new(&mut state.stream).poll_shutdown(cx);
        state.stream = Box::new(tokio::io::sink());
        Poll::Ready(())
    }
}

impl State {
    fn check(&self) -> Result<(), ClientError> {
        match &self.loss {
            Some(loss) => Err(ClientError::LinkLost(Arc::clone(loss))),
            None => Ok(()),
        }
    }

    fn has_room(&mut self, session: SessionRef) -> bool {
        let calls = self.sessions.slot(session).map_or(0, |slot| slot.calls.len());
        let fits = self.queue.len() < LINK_QUEUE_BYTES_MAX && self.sessions.kept < LINK_UNANSWERED_BYTES_MAX;
        self.loss.is_some() || (fits && calls < SESSION_REQUESTS_MAX)
    }

    fn enqueue<M: prost::Message>(&mut self, request: &Request<'_, M>) -> Result<u64, ClientError> {
        self.check()?;
        let length = request.body.encoded_len();
        if length > SQL_FRAME_BYTES_MAX {
            let limit = SQL_FRAME_BYTES_MAX;
            return Err(ClientError::Limit { what: "bytes of one request", value: length, limit });
        }
        let connected = self.sessions.connected;
        let Some(slot) = self.sessions.slot(request.session) else {
            return Err(ClientError::SessionEnded);
        };
        if let Phase::Ended(error) = &slot.phase {
            return Err(ClientError::SessionLost(error.clone()));
        }
        let acknowledged = slot.acknowledged();
        let (number, wire) = slot.next_call()?;
        self.scratch.reserve(frame::HEADER_BYTES + length + ACKNOWLEDGEMENT_BYTES);
        frame::encode(&mut self.scratch, request.session.number, number, request.kind as u16, |out| {
            request.body.encode_raw(out);
            repeat::acknowledge(request.kind, acknowledged, out);
        });
        let frame = self.scratch.split().freeze();
        let kept = frame.len();
        if wire != UNSENT {
            self.queue.extend_from_slice(&frame);
        }
        let sent = Sent { number, kind: request.kind, request: frame, text: request.text.cloned() };
        slot.calls.push_back(Call {
            number,
            wire,
            sent,
            progress: Progress::default(),
            delivered: Progress::default(),
            cancelled: false,
            cursor: if request.cursor == 0 { number } else { request.cursor },
            replies: VecDeque::new(),
            ended: false,
            abandoned: request.unawaited,
            waker: None,
        });
        if connected && slot.wants_stream() {
            slot.begin(request.session.number, &mut self.queue);
        }
        self.sessions.in_flight += usize::from(!request.unawaited);
        self.sessions.kept += kept;
        Ok(number)
    }

    fn enqueue_unawaited<M: prost::Message>(&mut self, session: SessionRef, kind: Kind, body: &M) {
        let request = Request { session, kind, body, cursor: 0, text: None, unawaited: true };
        if let Err(error) = self.enqueue(&request) {
            tracing::debug!(session = session.number, %error, "could not queue a {kind:?}");
        }
    }

    /// Interrupts a call, now or as soon as it is on a stream.
    fn cancel(&mut self, session: SessionRef, number: u64) {
        let Some(slot) = self.sessions.slot(session) else { return };
        let Some(at) = slot.position(number) else { return };
        let call = &mut slot.calls[at];
        call.cancelled = true;
        let sequence = call.wire;
        if sequence == UNSENT || call.ended {
            return;
        }
        let body = message::Cancel { sequence };
        frame::encode(&mut self.queue, session.number, 0, Kind::Cancel as u16, |out| {
            prost::Message::encode_raw(&body, out)
        });
    }

    fn follow_up(&mut self, session: SessionRef, done: &Delivered) {
        if let Some(cursor) = done.close_cursor {
            self.enqueue_unawaited(session, Kind::CloseCursor, &message::CloseCursor { cursor });
        }
        if done.close_session {
            self.enqueue_unawaited(session, Kind::Close, &message::Close {});
        }
        if (done.close_cursor.is_some() || done.close_session)
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }

    /// Writes until the queue is empty and flushed, or the stream takes no more.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.queue.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.queue) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.queue.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            self.unflushed = true;
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            self.unflushed = false;
        }
        flushed
    }
}
