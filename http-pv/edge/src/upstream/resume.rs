//! An answer that goes on after its stream was lost: the rest is asked for, by range and entity tag.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use vamos_http_message::{Body, BodyError};

use super::Target;
use crate::limits::ATTEMPTS_FOR_MAX;

/// `response`, made to survive the loss of its stream if it can be told apart from any other answer: a whole one of
/// known length with a strong entity tag. `again` is the request, without a body.
pub(super) fn resumed(
    target: Arc<Target>,
    again: Request<Body>,
    response: Response<Incoming>,
) -> Response<Body> {
    let (head, body) = response.into_parts();
    let tag = head.headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")).cloned();
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let body = match (tag, length) {
        (Some(tag), Some(length)) if head.status == StatusCode::OK => {
            let (again, _) = again.into_parts();
            let wanted = Wanted { target, question: Arc::new((again.uri, again.headers)), tag, length };
            Body::stream(Resumed { wanted, received: 0, known: 0, state: State::Reading(body) })
        }
        _ => Body::stream(body),
    };
    Response::from_parts(head, body)
}

/// What is to come in the end.
#[derive(Clone)]
struct Wanted {
    target: Arc<Target>,
    question: Arc<(Uri, HeaderMap)>,
    tag: HeaderValue,
    length: u64,
}

struct Resumed {
    wanted: Wanted,
    received: u64,
    /// Bytes of the body that is being read that have come before.
    known: u64,
    state: State,
}

enum State {
    Reading(Incoming),
    Asking(Pin<Box<dyn Future<Output = Option<Rest>> + Send>>),
}

/// A body whose first bytes have come already.
struct Rest {
    body: Incoming,
    known: u64,
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Reading(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(mut data) => {
                            let known = this.known.min(data.len() as u64);
                            this.known -= known;
                            // No more than the length of what is there.
                            data.advance(known as usize);
                            this.received += data.len() as u64;
                            if !data.is_empty() {
                                return Poll::Ready(Some(Ok(Frame::data(data))));
                            }
                        }
                        Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    },
                    None if this.received >= this.wanted.length => return Poll::Ready(None),
                    None | Some(Err(_)) => {
                        this.state = State::Asking(Box::pin(ask(this.wanted.clone(), this.received)));
                    }
                },
                State::Asking(asking) => match ready!(asking.as_mut().poll(cx)) {
                    Some(rest) => (this.state, this.known) = (State::Reading(rest.body), rest.known),
                    None => {
                        return Poll::Ready(Some(Err(BodyError(
                            "the guest was lost, and what it began to send is not there any more".into(),
                        ))));
                    }
                },
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.wanted.length.saturating_sub(self.received))
    }
}

/// Asks for what comes after the first `received` bytes; `None` when that is not to be had.
async fn ask(wanted: Wanted, received: u64) -> Option<Rest> {
    let until = Instant::now() + ATTEMPTS_FOR_MAX;
    while Instant::now() < until {
        let mut sender = wanted.target.streams.next().await.ok()?;
        let mut request = Request::new(Body::Empty);
        *request.uri_mut() = wanted.question.0.clone();
        *request.headers_mut() = wanted.question.1.clone();
        request.headers_mut().insert(RANGE, HeaderValue::try_from(format!("bytes={received}-")).ok()?);
        request.headers_mut().insert(IF_RANGE, wanted.tag.clone());
        // One that is lost again is asked for again.
        let Ok(response) = sender.send_request(request).await else { continue };
        if response.headers().get(ETAG) != Some(&wanted.tag) {
            return None;
        }
        let known = match response.status() {
            StatusCode::OK => received,
            StatusCode::PARTIAL_CONTENT => {
                let last = wanted.length.checked_sub(1)?;
                let expected = format!("bytes {received}-{last}/{}", wanted.length);
                response.headers().get(CONTENT_RANGE).filter(|range| *range == expected.as_str())?;
                0
            }
            _ => return None,
        };
        return Some(Rest { body: response.into_body(), known });
    }
    None
}
