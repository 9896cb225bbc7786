//! The two tasks of a link: one reads frames and delivers replies, one writes what is queued.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::BytesMut;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};
use vamos_proto::frame::{Decoder, Frame};
use vamos_sql_protocol::Kind;
use vamos_sql_protocol::limits::SQL_FRAME_BYTES_MAX;
use vamos_sql_protocol::message;

use crate::error::{LinkLoss, SqlError};
use crate::limits::LINK_READ_BYTES;
use crate::link::Link;
use crate::sessions::Reply;

/// Reads until the stream ends or the link is let go of.
pub(crate) async fn read(link: Arc<Link>, stream: impl AsyncRead + Unpin) {
    let loss = tokio::select! {
        loss = read_replies(&link, stream) => loss,
        _ = link.ended() => return,
    };
    link.lose(loss);
}

async fn read_replies(link: &Link, mut stream: impl AsyncRead + Unpin) -> LinkLoss {
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
        link.deliver(&mut replies, &mut wakers);
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

/// Writes until the link ends, then ends the stream.
pub(crate) async fn write(link: Arc<Link>) {
    let mut yielded = false;
    let outcome = poll_fn(|cx| link.poll_write(&mut yielded, cx)).await;
    if let Err(loss) = outcome {
        link.lose(loss);
    }
    poll_fn(|cx| link.poll_let_go(cx)).await;
}
