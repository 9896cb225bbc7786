//! One link: a stream cut into frames, the sessions on it, and one write for all they have to say.
//!
//! A link is polled as one task and never blocks. A pass reads what has arrived, gives sessions their
//! turns, collects what engines have finished, and then writes everything that has accumulated at
//! once. Memory is bounded from both sides: a client that does not read stops being read from, and is
//! sent no further blocks, when `LINK_OUTPUT_BYTES_MAX` wait for it.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Sleep, sleep};
use vamos_proto::frame::{Decoder, Frame, HEADER_BYTES, Header};
use vamos_service::{ByteStream, ServiceError};
use vamos_sql_protocol::Kind;
use vamos_sql_protocol::limits::{SQL_FRAME_BYTES_MAX, SQL_LINK_SESSIONS_MAX};
use vamos_sql_protocol::message::{self, Transaction};

use crate::engine::Engine;
use crate::error::{SqlError, sqlstate};
use crate::limits::{
    LAST_REPLY_DEADLINE, LINK_FRAMES_PER_TURN_MAX, LINK_OUTPUT_BYTES_MAX, LINK_QUEUED_BYTES_MAX,
    LINK_QUEUED_REQUESTS_MAX, LINK_READ_BYTES, LINK_RUNNING_MAX,
};
use crate::reply::Reply;
use crate::request::{Done, Work};
use crate::service::Shared;
use crate::session::{Session, Turn};

const PROTOCOL_NAME: &str = "paravirtual SQL";

type Timer = Option<Pin<Box<Sleep>>>;

/// A request an engine works on, and whose it is.
struct Running<E: Engine> {
    session: u32,
    /// Tells a session from a later one under the same number.
    key: u64,
    work: Work<E>,
}

impl<E: Engine> Future for Running<E> {
    type Output = (u32, u64, Done<E>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let done = ready!(Pin::new(&mut self.work).poll(cx));
        Poll::Ready((self.session, self.key, done))
    }
}

/// A link being served.
pub(crate) struct Link<E: Engine> {
    shared: Arc<Shared<E>>,
    stream: ByteStream,
    decoder: Decoder,
    input: BytesMut,
    output: BytesMut,
    sessions: HashMap<u32, Session<E>>,
    /// Sessions that want a turn.
    listed: VecDeque<u32>,
    running: FuturesUnordered<Running<E>>,
    queued_requests: usize,
    queued_bytes: usize,
    /// The client has said all it will say.
    ended: bool,
    /// The link is closed for this as soon as the last reply has left.
    fatal: Option<ServiceError>,
    frame_timer: Timer,
    pace_timer: Timer,
}

impl<E: Engine> Link<E> {
    pub(crate) fn new(shared: Arc<Shared<E>>, stream: ByteStream) -> Self {
        Self {
            shared,
            stream,
            decoder: Decoder::new(SQL_FRAME_BYTES_MAX),
            input: BytesMut::new(),
            output: BytesMut::new(),
            sessions: HashMap::new(),
            listed: VecDeque::new(),
            running: FuturesUnordered::new(),
            queued_requests: 0,
            queued_bytes: 0,
            ended: false,
            fatal: None,
            frame_timer: None,
            pace_timer: None,
        }
    }

    /// Serves until either side ends it.
    pub(crate) async fn serve(mut self) -> Result<(), ServiceError> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServiceError>> {
        // A few passes, then other tasks of the thread get their turn.
        for _ in 0..4 {
            let mut progress = self.read(cx)?;
            progress |= self.collect(cx);
            progress |= self.give_turns();
            if self.ended {
                self.end_sessions();
            }
            progress |= self.write(cx)?;
            if self.output.is_empty() && (self.fatal.is_some() || self.is_finished()) {
                return self.close(cx);
            }
            if !progress {
                return self.wait(cx);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Nobody will ask anything more: a session without a request under way is over, so that its transaction
    /// is in nobody's way, and it can go on elsewhere.
    fn end_sessions(&mut self) {
        self.sessions.retain(|_, session| {
            session.give_up_resuming();
            !session.is_idle()
        });
    }

    /// Whether the client has ended the link and has been answered everything.
    fn is_finished(&self) -> bool {
        self.ended && self.running.is_empty() && self.sessions.values().all(Session::is_idle)
    }

    fn close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServiceError>> {
        if let Some(fatal) = self.fatal.take() {
            return Poll::Ready(Err(fatal));
        }
        let shut = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
        if !self.input.is_empty() {
            return Poll::Ready(Err(protocol_error("the stream ended within a frame")));
        }
        Poll::Ready(shut.or_else(ignore_gone).map_err(ServiceError::Stream))
    }

    fn may_read(&self) -> bool {
        !self.ended
            && self.fatal.is_none()
            && self.pace_timer.is_none()
            && self.output.len() < LINK_OUTPUT_BYTES_MAX
            && self.queued_requests < LINK_QUEUED_REQUESTS_MAX
            && self.queued_bytes < LINK_QUEUED_BYTES_MAX
    }

    /// Reads what has arrived and hands on whole frames. True if there were any.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, ServiceError> {
        let mut frames = 0;
        loop {
            while frames < LINK_FRAMES_PER_TURN_MAX && self.may_read() {
                match self.decoder.decode(&mut self.input) {
                    Ok(Some(frame)) => {
                        self.frame_timer = None;
                        frames += 1;
                        self.take(frame);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        self.refuse_frame(&error.to_string());
                        return Ok(true);
                    }
                }
            }
            if frames >= LINK_FRAMES_PER_TURN_MAX || !self.may_read() {
                return Ok(frames > 0);
            }
            // A buffer that still holds half a frame grows with what really arrives.
            self.input.reserve(LINK_READ_BYTES.min(SQL_FRAME_BYTES_MAX + HEADER_BYTES - self.input.len()));
            match pin!(self.stream.read_buf(&mut self.input)).poll(cx) {
                Poll::Pending => return Ok(frames > 0),
                Poll::Ready(Ok(0)) => {
                    self.ended = true;
                    return Ok(true);
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(ServiceError::Stream(error)),
            }
        }
    }

    /// Writes what has accumulated. True if anything left.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, ServiceError> {
        let mut progress = false;
        while !self.output.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.output) {
                Poll::Pending => return Ok(progress),
                Poll::Ready(Ok(0)) => return Err(ServiceError::Stream(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.output.advance(written);
                    progress = true;
                }
                Poll::Ready(Err(error)) => return Err(ServiceError::Stream(error)),
            }
        }
        if progress {
            // The buffer of a large answer is not kept for small ones.
            if self.output.capacity() > LINK_OUTPUT_BYTES_MAX {
                self.output = BytesMut::new();
            }
            if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(cx) {
                return Err(ServiceError::Stream(error));
            }
        }
        Ok(progress)
    }

    /// Takes what engines have finished, as long as there is room for replies.
    fn collect(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while self.output.len() < LINK_OUTPUT_BYTES_MAX && !self.running.is_empty() {
            let Poll::Ready(Some((number, key, done))) = self.running.poll_next_unpin(cx) else { break };
            progress = true;
            if let Some(session) = self.sessions.get_mut(&number)
                && session.identity.key == key
            {
                let turn = session.finish(done, &mut self.output);
                self.settle(number, turn);
                self.run(number);
            }
        }
        progress
    }

    /// Gives sessions their turns that could not be given at once.
    fn give_turns(&mut self) -> bool {
        let mut progress = false;
        for _ in 0..self.listed.len() {
            if !self.may_start() {
                break;
            }
            let Some(number) = self.listed.pop_front() else { break };
            if let Some(session) = self.sessions.get_mut(&number) {
                session.listed = false;
                progress = true;
                self.run(number);
            }
        }
        progress
    }

    fn may_start(&self) -> bool {
        self.output.len() < LINK_OUTPUT_BYTES_MAX && self.running.len() < LINK_RUNNING_MAX
    }

    /// Lets a session go on as far as it can.
    fn run(&mut self, number: u32) {
        while let Some(session) = self.sessions.get_mut(&number) {
            if !session.wants_turn() {
                return;
            }
            if self.output.len() >= LINK_OUTPUT_BYTES_MAX || self.running.len() >= LINK_RUNNING_MAX {
                if !session.listed {
                    session.listed = true;
                    self.listed.push_back(number);
                }
                return;
            }
            let (turn, taken) = session.turn(&mut self.output);
            if let Some(bytes) = taken {
                self.queued_requests -= 1;
                self.queued_bytes -= bytes;
            }
            self.settle(number, turn);
        }
    }

    fn settle(&mut self, number: u32, turn: Turn<E>) {
        match turn {
            Turn::Nothing | Turn::Answered => {}
            Turn::Pending(work) => {
                if let Some(session) = self.sessions.get(&number) {
                    self.running.push(Running { session: number, key: session.identity.key, work });
                }
            }
            Turn::Over => self.remove(number),
        }
    }

    fn remove(&mut self, number: u32) {
        if let Some(session) = self.sessions.remove(&number) {
            let (requests, bytes) = session.queued();
            self.queued_requests -= requests;
            self.queued_bytes -= bytes;
        }
    }

    /// Takes one frame to whom it is for.
    fn take(&mut self, frame: Frame) {
        let Header { session: number, sequence, kind, .. } = frame.header;
        let Some(kind) = Kind::from_wire(kind) else {
            return self.violate(
                number,
                sequence,
                &SqlError::protocol(format!("unknown kind of frame {kind}")),
            );
        };
        if let Some(pace) = &self.shared.pace
            && kind != Kind::Cancel
            && let Some(wait) = pace.take()
        {
            self.pace_timer = Some(Box::pin(sleep(wait)));
        }
        if number == 0 {
            return self.take_for_link(sequence, kind);
        }
        match kind {
            Kind::Cancel => self.cancel(number, sequence, frame),
            Kind::Open | Kind::Resume if !self.sessions.contains_key(&number) => {
                self.open(number, kind, frame);
            }
            _ => self.enqueue(number, kind, frame),
        }
    }

    fn take_for_link(&mut self, sequence: u64, kind: Kind) {
        let mut reply = self.reply(0, sequence);
        match kind {
            Kind::Ping => reply.empty(Kind::Pong),
            _ => {
                let error = SqlError::protocol(format!("{kind:?} needs a session, 0 is the link itself"));
                reply.error(&error, Transaction::None);
            }
        }
    }

    fn open(&mut self, number: u32, kind: Kind, frame: Frame) {
        let sequence = frame.header.sequence;
        let place = (self.sessions.len() < SQL_LINK_SESSIONS_MAX).then(|| self.shared.place()).flatten();
        let Some(place) = place else {
            let limit = self.shared.config.sessions_max.min(SQL_LINK_SESSIONS_MAX);
            let error =
                SqlError::new(sqlstate::TOO_MANY_CONNECTIONS, format!("all {limit} sessions are taken"))
                    .hint("Close sessions, or ask the operator for a larger quota.");
            return self.reply(number, sequence).error(&error, Transaction::None);
        };
        let session = Session::new(number, sequence, self.shared.clone(), place);
        self.sessions.insert(number, session);
        self.enqueue(number, kind, frame);
    }

    fn enqueue(&mut self, number: u32, kind: Kind, frame: Frame) {
        let Header { sequence, length, .. } = frame.header;
        let Some(session) = self.sessions.get_mut(&number) else {
            let error =
                SqlError::new(sqlstate::CONNECTION_DOES_NOT_EXIST, format!("no session {number} is open"));
            return self.reply(number, sequence).error(&error, Transaction::None);
        };
        match session.enqueue(sequence, kind, frame.body) {
            Ok(()) => {
                self.queued_requests += 1;
                self.queued_bytes += length as usize;
                self.run(number);
            }
            Err(error) => self.violate(number, sequence, &error),
        }
    }

    fn cancel(&mut self, number: u32, sequence: u64, frame: Frame) {
        match <message::Cancel as prost::Message>::decode(frame.body) {
            Ok(cancel) => {
                // It may come too late for the request, or for the session: nothing is to be said then.
                if let Some(session) = self.sessions.get_mut(&number) {
                    session.cancel(cancel.sequence);
                }
            }
            Err(error) => {
                self.violate(number, sequence, &SqlError::protocol(format!("body of Cancel: {error}")));
            }
        }
    }

    /// Ends a session that broke the protocol; a frame that belongs to none is answered all the same.
    fn violate(&mut self, number: u32, sequence: u64, error: &SqlError) {
        match self.sessions.get_mut(&number) {
            Some(session) => session.violate(sequence, error, &mut self.output),
            None => self.reply(number, sequence).error(error, Transaction::None),
        }
        self.remove(number);
    }

    /// A header that cannot be followed: what comes after it cannot be told apart any more.
    fn refuse_frame(&mut self, reason: &str) {
        let header = self.input.first_chunk::<HEADER_BYTES>().map(Header::decode);
        let (number, sequence) = header.map_or((0, 0), |header| (header.session, header.sequence));
        self.end_link(number, sequence, reason);
    }

    fn end_link(&mut self, number: u32, sequence: u64, reason: &str) {
        self.reply(number, sequence).error(&SqlError::protocol(reason), Transaction::None);
        self.fatal = Some(protocol_error(reason));
        self.listed.clear();
        self.drop_sessions();
        self.frame_timer = Some(Box::pin(sleep(LAST_REPLY_DEADLINE)));
    }

    fn drop_sessions(&mut self) {
        self.sessions.values_mut().for_each(Session::abandon);
        self.sessions.clear();
        self.running.clear();
        (self.queued_requests, self.queued_bytes) = (0, 0);
    }

    fn reply(&mut self, session: u32, sequence: u64) -> Reply<'_> {
        Reply { out: &mut self.output, session, sequence }
    }

    /// Nothing moves: leaves wake-ups behind, and sees to the deadlines.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServiceError>> {
        if self.fatal.is_none() {
            let half_a_frame = !self.input.is_empty() && self.may_read();
            match (&self.frame_timer, half_a_frame) {
                (None, true) => self.frame_timer = Some(Box::pin(sleep(self.shared.config.frame_deadline))),
                (Some(_), false) => self.frame_timer = None,
                _ => {}
            }
        }
        if fired(&mut self.pace_timer, cx) {
            cx.waker().wake_by_ref();
        }
        if fired(&mut self.frame_timer, cx) {
            if let Some(fatal) = self.fatal.take() {
                return Poll::Ready(Err(fatal));
            }
            let deadline: Duration = self.shared.config.frame_deadline;
            self.end_link(0, 0, &format!("a frame took longer than {deadline:?}"));
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<E: Engine> Drop for Link<E> {
    fn drop(&mut self) {
        self.drop_sessions();
    }
}

/// Polls a timer and forgets it when it has fired.
fn fired(timer: &mut Timer, cx: &mut Context<'_>) -> bool {
    let fired = timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
    if fired {
        *timer = None;
    }
    fired
}

fn protocol_error(reason: impl Into<String>) -> ServiceError {
    ServiceError::Protocol { protocol: PROTOCOL_NAME, reason: reason.into() }
}

/// A client that is already gone needs no goodbye.
fn ignore_gone(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Ok(()),
        _ => Err(error),
    }
}
