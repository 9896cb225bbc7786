//! The tasks of a link: one reads frames and delivers replies, one writes what is queued, for each stream
//! anew; and the first opens the next stream when one is lost.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, ReadHalf};
use tokio::task::JoinHandle;
use vamos_proto::frame::{Decoder, Frame};
use vamos_sql_protocol::Kind;
use vamos_sql_protocol::limits::SQL_FRAME_BYTES_MAX;
use vamos_sql_protocol::message;

use crate::dial::{Dial, Duplex};
use crate::error::{LinkLoss, SqlError};
use crate::limits::{
    DIAL_MAX, DIAL_PAUSE, DIAL_PAUSE_MAX, LINK_READ_BYTES, RECONNECT_MAX, REFUSED_MAX, RESUME_PAUSE,
};
use crate::link::Link;
use crate::sessions::Reply;

/// A stream under way: the half that is read, and the task that writes the other.
pub(crate) struct Inward {
    stream: ReadHalf<Box<dyn Duplex>>,
    writer: JoinHandle<()>,
}

/// Starts on a stream.
pub(crate) fn begin(link: &Arc<Link>, stream: Box<dyn Duplex>) -> Inward {
    let (inward, outward) = tokio::io::split(stream);
    link.begin(Box::new(outward));
    Inward { stream: inward, writer: tokio::spawn(write(Arc::clone(link))) }
}

/// Reads until the link ends.
pub(crate) async fn run(link: Arc<Link>, mut inward: Inward, dial: Option<Arc<dyn Dial>>) {
    loop {
        tokio::select! {
            loss = read_replies(&link, inward.stream) => link.interrupt(loss),
            () = link.interrupted() => {}
        }
        // It lets go of its half of the stream.
        let _ = inward.writer.await;
        let (loss, is_missed) = link.take_incident();
        let Some(dial) = dial.as_ref().filter(|_| is_missed && loss.can_be_mended()) else {
            return link.lose(loss);
        };
        match dial_again(&link, dial).await {
            Ok(stream) => inward = begin(&link, stream),
            Err(error) => return link.lose(LinkLoss::Unreachable(error)),
        }
    }
}

async fn dial_again(link: &Link, dial: &Arc<dyn Dial>) -> io::Result<Box<dyn Duplex>> {
    let started = Instant::now();
    let mut refused = None;
    let mut pause = DIAL_PAUSE;
    loop {
        let attempt = tokio::time::timeout(DIAL_MAX, dial.dial()).await;
        let error = match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let is_refusal =
            matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset);
        refused = if is_refusal { refused.or_else(|| Some(Instant::now())) } else { None };
        if started.elapsed() > RECONNECT_MAX
            || refused.is_some_and(|since| since.elapsed() > REFUSED_MAX)
            || link.is_closing()
        {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(DIAL_PAUSE_MAX);
    }
}

async fn read_replies(link: &Arc<Link>, mut stream: impl AsyncRead + Unpin) -> LinkLoss {
    let decoder = Decoder::new(SQL_FRAME_BYTES_MAX);
    let mut input = BytesMut::with_capacity(LINK_READ_BYTES);
    let (mut replies, mut wakers) = (Vec::new(), Vec::new());
    loop {
        input.reserve(LINK_READ_BYTES);
        match stream.read_buf(&mut input).await {
            Ok(0) => return LinkLoss::Closed,
            Ok(_) => {}
            Err(error) => return LinkLoss::Io(error),
        }
        loop {
            let frame = match decoder.decode(&mut input) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return LinkLoss::Frame(error),
            };
            let (session, sequence) = (frame.header.session, frame.header.sequence);
            match parse(frame) {
                // An error that belongs to no request is about the link as a whole.
                Ok(Reply::Error(error)) if sequence == 0 => return LinkLoss::Refused(error),
                Ok(reply) => replies.push((session, sequence, reply)),
                Err(loss) => return loss,
            }
        }
        for session in link.deliver(&mut replies, &mut wakers) {
            let link = Arc::clone(link);
            tokio::spawn(async move {
                tokio::time::sleep(RESUME_PAUSE).await;
                link.retry(session);
            });
        }
    }
}

fn parse(frame: Frame) -> Result<Reply, LinkLoss> {
    let kind = Kind::from_wire(frame.header.kind).ok_or(LinkLoss::Kind(frame.header.kind))?;
    let body = frame.body;
    let damaged = |source| LinkLoss::Body { kind, source };
    Ok(match kind {
        Kind::Opened => Reply::Opened(message::Opened::decode(body).map_err(damaged)?),
        Kind::Result => Reply::Result(message::Result::decode(body).map_err(damaged)?),
        Kind::BatchResult => Reply::Batch(message::BatchResult::decode(body).map_err(damaged)?),
        Kind::Described => Reply::Described(message::Described::decode(body).map_err(damaged)?),
        Kind::Closed => Reply::Closed,
        Kind::Pong => Reply::Pong,
        Kind::Error => Reply::Error(SqlError::from(message::Error::decode(body).map_err(damaged)?)),
        Kind::TextWanted => Reply::TextWanted,
        _ => return Err(LinkLoss::Kind(frame.header.kind)),
    })
}

/// Writes until the stream or the link ends, then ends the stream.
async fn write(link: Arc<Link>) {
    let mut yielded = false;
    let outcome = poll_fn(|cx| link.poll_write(&mut yielded, cx)).await;
    if let Err(loss) = outcome {
        link.interrupt(loss);
    }
    poll_fn(|cx| link.poll_let_go(cx)).await;
}
