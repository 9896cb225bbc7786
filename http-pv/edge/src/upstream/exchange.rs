//! One request to a guest and its answer, whatever happens to the streams in between.
//!
//! A stream may be lost at any moment: cells are replaced. A request that its guest cannot have seen, or that may be done
//! twice, is sent again; one that may not is answered with 502 and the reason.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;
use vamos_http_message::Body;

use super::resume::resumed;
use super::{StreamError, Target};
use crate::limits::{ANSWER_WAIT_MAX, ATTEMPTS_FOR_MAX, ATTEMPTS_MAX, KEPT_BODY_BYTES_MAX};
use crate::routes::Route;

/// Names why the edge, or the guest's agent, answered in the place of the guest's server.
pub const REASON: HeaderName = HeaderName::from_static("vamos-reason");

/// Sends `request` to one of the route's targets and returns its answer, or one that says why there is none. `draw` is
/// any number. The target is among the extensions of its answer.
pub async fn exchange(route: &Route, draw: u64, request: Request<Body>) -> Response<Body> {
    let begun = Instant::now();
    let Ok(Attempted { mut request, repeatable }) = Attempted::new(request).await else {
        return failure(StatusCode::BAD_REQUEST, "body-ended");
    };
    let mut tried = Vec::new();
    let mut last = failure(StatusCode::SERVICE_UNAVAILABLE, "no-target");
    for attempt in 0..ATTEMPTS_MAX {
        let Some(target) = route.choose(draw, &tried).cloned() else { break };
        if attempt > 0 {
            target.retried.fetch_add(1, Relaxed);
        }
        let copy = duplicate(&request);
        let outcome = attempt_at(&target, request).await;
        let late = begun.elapsed() > ATTEMPTS_FOR_MAX;
        match outcome {
            Outcome::Answered(mut response) => {
                response.extensions_mut().insert(target.clone());
                // The agent answers for a server that it cannot reach: the request has not been seen.
                let unseen = response.status() == StatusCode::SERVICE_UNAVAILABLE
                    && response.headers().get(REASON).is_some_and(|reason| reason == "upstream-refused");
                if !unseen {
                    target.health.succeeded();
                    let again = copy
                        .filter(|copy| copy.method() == Method::GET && matches!(copy.body(), Body::Empty));
                    return match again {
                        Some(again) => resumed(target, again, response),
                        None => response.map(Body::stream),
                    };
                }
                target.health.failed();
                last = response.map(Body::stream);
                let Some(copy) = copy.filter(|_| !late) else { break };
                request = copy;
                tried.push(target);
            }
            Outcome::NoStream(error, unsent) => {
                target.health.failed();
                let reason = if error == StreamError::None { "vm-not-there" } else { "vm-crowded" };
                last = failure(StatusCode::SERVICE_UNAVAILABLE, reason);
                request = unsent;
                tried.push(target);
            }
            Outcome::Slow => {
                target.health.failed();
                return failure(StatusCode::GATEWAY_TIMEOUT, "no-answer");
            }
            Outcome::Unsent(unsent) if !late => request = unsent,
            Outcome::Unsent(_) => return failure(StatusCode::BAD_GATEWAY, "stream-lost"),
            Outcome::Lost { seen } => {
                last = failure(StatusCode::BAD_GATEWAY, "stream-lost");
                let again = copy.filter(|_| !late && (repeatable || !seen));
                let Some(again) = again else { return last };
                request = again;
            }
        }
    }
    last
}

/// What became of one attempt.
enum Outcome {
    Answered(Response<Incoming>),
    NoStream(StreamError, Request<Body>),
    /// The guest cannot have seen it.
    Unsent(Request<Body>),
    /// It went, and its answer did not come.
    Lost {
        /// The guest's server may have seen it.
        seen: bool,
    },
    Slow,
}

async fn attempt_at(target: &Arc<Target>, request: Request<Body>) -> Outcome {
    let mut sender = match target.streams.next().await {
        Ok(sender) => sender,
        Err(error) => return Outcome::NoStream(error, request),
    };
    match timeout(ANSWER_WAIT_MAX, sender.try_send_request(request)).await {
        Ok(Ok(response)) => Outcome::Answered(response),
        Ok(Err(mut error)) => match error.take_message() {
            Some(unsent) => Outcome::Unsent(unsent),
            None => Outcome::Lost { seen: !is_refused(error.error()) },
        },
        Err(_) => Outcome::Slow,
    }
}

/// Whether the guest's agent has said that it did not look at the request (RFC 9113, section 8.7).
fn is_refused(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_remote() && cause.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// A request, and whether it may be sent twice.
struct Attempted {
    request: Request<Body>,
    repeatable: bool,
}

impl Attempted {
    /// Reads the body of one that may be repeated, if it is small.
    async fn new(request: Request<Body>) -> Result<Self, ()> {
        let idempotent = request.method().is_idempotent();
        let small = request.body().size_hint().upper().is_some_and(|upper| upper <= KEPT_BODY_BYTES_MAX);
        let (head, body) = request.into_parts();
        let body = match body {
            Body::Stream(_) if idempotent && small => {
                let limit = usize::try_from(KEPT_BODY_BYTES_MAX).unwrap_or(usize::MAX);
                let whole = Limited::new(body, limit).collect().await.map_err(|_| ())?;
                if whole.trailers().is_some() { Body::stream(whole) } else { whole.to_bytes().into() }
            }
            body => body,
        };
        let repeatable = idempotent && !matches!(body, Body::Stream(_));
        Ok(Self { request: Request::from_parts(head, body), repeatable })
    }
}

/// Another of the same, unless its body has to be read for that.
fn duplicate(request: &Request<Body>) -> Option<Request<Body>> {
    let body = match request.body() {
        Body::Empty => Body::Empty,
        Body::Full(bytes) => Body::Full(bytes.clone()),
        Body::Stream(_) => return None,
    };
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// An answer of the edge's own.
pub(crate) fn failure(status: StatusCode, reason: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{}: {reason}\n", status.as_u16())));
    *response.status_mut() = status;
    response.headers_mut().insert(REASON, http::HeaderValue::from_static(reason));
    response
}
