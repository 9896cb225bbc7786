//! Sending an answer on its stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use ::h2::server::SendResponse;
use ::h2::{Reason, SendStream};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as _, Frame};
use tokio::time::timeout;
use vamos_http_message::{Body, BodyError, hop};

use crate::date;
use crate::limits::{COPIED_BODY_BYTES_MAX, GATHERED_BYTES_MAX};

/// What a WebSocket is agreed to with in HTTP/1.1, and not here (RFC 8441, section 5).
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// What an answer depends on besides itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct To {
    /// It has no body then, whatever it says.
    pub(super) is_head: bool,
    /// The stream becomes something else if the answer is 101.
    pub(super) upgrade: bool,
}

/// Sends an answer, as long as the client takes some of it now and then. Whatever goes wrong ends the stream.
pub(super) async fn answer(
    respond: &mut SendResponse<Bytes>,
    response: Response<Body>,
    to: To,
    pause_max: Duration,
) {
    let (mut head, body) = response.into_parts();
    let switched = to.upgrade && head.status == StatusCode::SWITCHING_PROTOCOLS;
    hop::strip(&mut head.headers);
    let said = head.headers.remove(CONTENT_LENGTH);
    let status = match head.status {
        _ if switched => {
            head.headers.remove(SEC_WEBSOCKET_ACCEPT);
            StatusCode::OK
        }
        // To the client this would mean that the stream is what it wished for.
        status if to.upgrade && status.is_success() => StatusCode::NOT_IMPLEMENTED,
        // None is an answer.
        status if status.is_informational() => StatusCode::INTERNAL_SERVER_ERROR,
        status => status,
    };
    let known = if switched { None } else { body.size_hint().exact() };
    let bodiless = to.is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = match known {
        _ if status == StatusCode::NO_CONTENT || switched => None,
        // What a body would have been is the handler's to say.
        _ if bodiless => said,
        known => known.map(HeaderValue::from),
    };
    if let Some(length) = length {
        head.headers.insert(CONTENT_LENGTH, length);
    }
    if !head.headers.contains_key(DATE)
        && let Ok(now) = date::now(HeaderValue::from_str)
    {
        head.headers.insert(DATE, now);
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = head.headers;
    let ends = bodiless || (!switched && body.is_end_stream());
    // A client that has gone needs no answer.
    let Ok(stream) = respond.send_response(response, ends) else { return };
    if ends {
        return;
    }
    let mut output = Output { stream, pause_max, left: known };
    if let Err(Stopped(reason)) = output.body(body).await {
        output.stream.send_reset(reason);
    }
}

/// The stream ends before the answer.
struct Stopped(Reason);

impl From<::h2::Error> for Stopped {
    fn from(_: ::h2::Error) -> Self {
        Self(Reason::CANCEL)
    }
}

/// What there is next of a body.
enum Next {
    Frame(Option<Result<Frame<Bytes>, BodyError>>),
    /// Nothing for now.
    Later,
    /// Nobody who wants it.
    Gone,
}

struct Output {
    stream: SendStream<Bytes>,
    pause_max: Duration,
    /// What is to come yet, if that is known.
    left: Option<u64>,
}

impl Output {
    async fn body(&mut self, mut body: Body) -> Result<(), Stopped> {
        if let Body::Full(whole) = body {
            return self.data(whole, true).await;
        }
        let mut gathered = BytesMut::new();
        loop {
            let frame = match self.next(&mut body, !gathered.is_empty()).await {
                Next::Gone => return Err(Stopped(Reason::CANCEL)),
                Next::Later => {
                    self.data(gathered.split().freeze(), false).await?;
                    continue;
                }
                Next::Frame(None) => return self.data(gathered.freeze(), true).await,
                // What is cut must not look whole.
                Next::Frame(Some(Err(_))) => return Err(Stopped(Reason::INTERNAL_ERROR)),
                Next::Frame(Some(Ok(frame))) => frame,
            };
            match frame.into_data() {
                Ok(data) if data.len() <= COPIED_BODY_BYTES_MAX => gathered.extend_from_slice(&data),
                Ok(data) => {
                    self.data(gathered.split().freeze(), false).await?;
                    let ends = body.is_end_stream();
                    self.data(data, ends).await?;
                    if ends {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    hop::strip(&mut trailers);
                    return self.end(gathered.freeze(), trailers).await;
                }
            }
            if gathered.len() >= GATHERED_BYTES_MAX {
                self.data(gathered.split().freeze(), false).await?;
            }
        }
    }

    async fn next(&mut self, body: &mut Body, gathered: bool) -> Next {
        poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Next::Frame(frame)),
            // What there is goes out before anything is waited for.
            Poll::Pending if gathered => Poll::Ready(Next::Later),
            Poll::Pending => self.stream.poll_reset(cx).map(|_| Next::Gone),
        })
        .await
    }

    /// Sends `data` in as few frames as the client's windows allow. `ends` is whether it is the last.
    async fn data(&mut self, mut data: Bytes, ends: bool) -> Result<(), Stopped> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(data.len() as u64).ok_or(Stopped(Reason::INTERNAL_ERROR))?;
            if ends && *left > 0 {
                return Err(Stopped(Reason::INTERNAL_ERROR));
            }
        }
        if data.is_empty() {
            return if ends { Ok(self.stream.send_data(data, true)?) } else { Ok(()) };
        }
        while !data.is_empty() {
            self.stream.reserve_capacity(data.len());
            let mut room = self.stream.capacity();
            if room == 0 {
                let come = timeout(self.pause_max, poll_fn(|cx| self.stream.poll_capacity(cx))).await;
                match come {
                    Ok(Some(come)) => room = come?,
                    Ok(None) | Err(_) => return Err(Stopped(Reason::CANCEL)),
                }
            }
            let piece = data.split_to(room.min(data.len()));
            if !piece.is_empty() {
                self.stream.send_data(piece, ends && data.is_empty())?;
            }
        }
        Ok(())
    }

    async fn end(&mut self, last: Bytes, trailers: HeaderMap) -> Result<(), Stopped> {
        if trailers.is_empty() {
            return self.data(last, true).await;
        }
        self.data(last, false).await?;
        if self.left.is_some_and(|left| left > 0) {
            return Err(Stopped(Reason::INTERNAL_ERROR));
        }
        Ok(self.stream.send_trailers(trailers)?)
    }
}
