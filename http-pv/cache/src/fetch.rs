//! A request, answered from what is kept or by its server.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::header::{
    AGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::{Body as _, Frame};
use tokio::time::timeout;
use vamos_http_message::part::{Asked, CONDITIONS, Part, Representation};
use vamos_http_message::{Body, BodyError};

use crate::limits::FLIGHT_WAIT_MAX;
use crate::scope::{Flight, Lead, Scope, Turn, filling};
use crate::stored::{Received, Stored, Terms, Use, Wishes};

/// Who answers what is not kept.
pub type Origin =
    Arc<dyn Fn(Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

/// What is the time.
pub type Clock = fn() -> SystemTime;

/// How a request was answered (RFC 9211).
const STATUS: HeaderName = HeaderName::from_static("cache-status");

/// How often a request that waits for others looks again.
const LOOKS_MAX: usize = 3;

/// Answers `request`, whose URI is whole, from `scope` or by `origin`. Needs a tokio runtime.
pub async fn fetch(
    scope: &Arc<Scope>,
    clock: Clock,
    request: Request<Body>,
    origin: &Origin,
) -> Response<Body> {
    let reads = *request.method() == Method::GET || *request.method() == Method::HEAD;
    if !reads || !request.body().is_end_stream() {
        return pass_on(scope, request, origin).await;
    }
    let (head, _) = request.into_parts();
    let fetch = Fetch {
        scope,
        clock,
        origin,
        key: key_of(&head.uri),
        wishes: Wishes::of(&head.headers),
        asked: Asked::of_head(&head.method, &head.headers),
        request: head,
    };
    fetch.answer().await
}

/// A request that is not for a cache. One that changes something voids what is kept of it (RFC 9111, section 4.4).
async fn pass_on(scope: &Arc<Scope>, request: Request<Body>, origin: &Origin) -> Response<Body> {
    let (safe, uri) = (request.method().is_safe(), request.uri().clone());
    let response = origin(request).await;
    if !safe && (response.status().is_success() || response.status().is_redirection()) {
        scope.forget(&key_of(&uri));
        for name in [LOCATION, CONTENT_LOCATION] {
            if let Some(named) = response.headers().get(&name).and_then(|value| resolved(&uri, value)) {
                scope.forget(&named.parse().map_or_else(|_| named.as_str().into(), |uri| key_of(&uri)));
            }
        }
    }
    response
}

/// What answers are kept under: a URI whose host has one spelling (RFC 9110, section 4.2.3).
pub(crate) fn key_of(uri: &Uri) -> Arc<str> {
    let scheme = uri.scheme_str().unwrap_or("http");
    let usual = if scheme == "https" { 443 } else { 80 };
    let host = uri.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    match uri.port_u16().filter(|port| *port != usual) {
        Some(port) => format!("{scheme}://{host}:{port}{target}").into(),
        None => format!("{scheme}://{host}{target}").into(),
    }
}

/// What a reference of an answer names, if it is of the same origin.
fn resolved(base: &Uri, reference: &HeaderValue) -> Option<String> {
    let reference = reference.to_str().ok()?;
    let origin = format!("{}://{}", base.scheme_str()?, base.authority()?);
    if let Some(rest) = reference.strip_prefix(&origin) {
        return (rest.is_empty() || rest.starts_with(['/', '?'])).then(|| reference.to_owned());
    }
    if reference.starts_with('/') && !reference.starts_with("//") {
        return Some(format!("{origin}{reference}"));
    }
    if reference.contains("://") || reference.starts_with("//") || reference.contains("..") {
        return None;
    }
    let path = base.path();
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    Some(format!("{origin}{directory}/{reference}"))
}

struct Fetch<'a> {
    scope: &'a Arc<Scope>,
    clock: Clock,
    origin: &'a Origin,
    key: Arc<str>,
    wishes: Wishes,
    asked: Asked,
    request: http::request::Parts,
}

impl Fetch<'_> {
    async fn answer(self) -> Response<Body> {
        for _ in 0..LOOKS_MAX {
            let now = (self.clock)();
            let kept = self.scope.find(&self.key, &self.request.headers);
            if let Some(stored) = &kept {
                match stored.usable(&self.wishes, now) {
                    Use::Fresh => return self.hit(stored, now, "hit"),
                    Use::StaleAccepted => return self.hit(stored, now, "hit; detail=stale"),
                    Use::StaleMeanwhile => {
                        self.renew(stored);
                        return self.hit(stored, now, "hit; detail=stale-while-revalidate");
                    }
                    Use::Validate => {}
                }
            }
            if self.wishes.only_if_cached() {
                let mut response = Response::new(Body::Empty);
                *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
                return response;
            }
            // A part that is not here, and what has no content, is not worth others' wait.
            if self.request.method == Method::HEAD || self.request.headers.contains_key(RANGE) {
                return self.miss(self.whole_request(), "fwd=bypass").await;
            }
            match self.scope.turn(&self.key) {
                Turn::Lead(lead) => return self.lead(lead, kept).await,
                Turn::Pass => return self.miss(self.whole_request(), "fwd=miss; detail=pass").await,
                Turn::Wait(mut flight) => {
                    let news = timeout(FLIGHT_WAIT_MAX, flight.wait_for(|f| !matches!(f, Flight::UnderWay)));
                    let news = news.await.ok().and_then(|news| news.ok().map(|news| news.clone()));
                    match news {
                        Some(Flight::Fills(filling)) if filling.head.answers(&self.request.headers) => {
                            self.scope.hits.fetch_add(1, Relaxed);
                            let body = filling.fill.body();
                            return self.of(&filling.head, body, None, "hit; detail=collapsed");
                        }
                        Some(Flight::Passed) => break,
                        _ => {}
                    }
                }
            }
        }
        self.miss(self.whole_request(), "fwd=miss; detail=busy").await
    }

    /// The request as the client sent it.
    fn whole_request(&self) -> Request<Body> {
        Request::from_parts(self.request.clone(), Body::Empty)
    }

    async fn miss(&self, request: Request<Body>, how: &'static str) -> Response<Body> {
        self.scope.misses.fetch_add(1, Relaxed);
        let mut response = (self.origin)(request).await;
        say(response.headers_mut(), how);
        response
    }

    fn hit(&self, stored: &Stored, now: SystemTime, how: &'static str) -> Response<Body> {
        self.scope.hits.fetch_add(1, Relaxed);
        self.of(stored, stored.body.clone().into(), Some(now), how)
    }

    /// What of a kept answer this request asks for.
    fn of(&self, stored: &Stored, body: Body, now: Option<SystemTime>, how: &'static str) -> Response<Body> {
        let length = body.size_hint().exact().unwrap_or_default();
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = stored.status;
        *response.headers_mut() = stored.fields.clone();
        let fields = response.headers_mut();
        if let Some(now) = now {
            fields.insert(AGE, stored.age(now).as_secs().into());
        }
        say(fields, how);
        let there = Representation { tag: stored.tag.as_deref(), modified: stored.modified, length };
        let part = if stored.status == StatusCode::OK { self.asked.part(&there) } else { Part::Whole };
        let whole = matches!(body, Body::Full(_) | Body::Empty);
        match part {
            Part::Range(range) if whole => {
                let Body::Full(bytes) = body else { return response };
                let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                if let Ok(value) = HeaderValue::try_from(text) {
                    response.headers_mut().insert(CONTENT_RANGE, value);
                }
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                // No more than the length of what is there.
                *response.body_mut() = bytes.slice(range.start as usize..range.end as usize).into();
            }
            // A range of what is still on its way is sent whole, as if none had been asked for.
            Part::Whole | Part::Range(_) if self.asked.is_head() => {
                response.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
            Part::Whole | Part::Range(_) => *response.body_mut() = body,
            Part::NotModified => *response.status_mut() = StatusCode::NOT_MODIFIED,
            Part::PreconditionFailed => *response.status_mut() = StatusCode::PRECONDITION_FAILED,
            Part::Unsatisfiable => {
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{length}")) {
                    response.headers_mut().insert(CONTENT_RANGE, value);
                }
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            }
        }
        response
    }

    /// Fetches another in the background, unless somebody does.
    fn renew(&self, stored: &Arc<Stored>) {
        if stored.renewing.swap(true, AcqRel) {
            return;
        }
        let Turn::Lead(lead) = self.scope.turn(&self.key) else { return };
        let (origin, clock, stored) = (self.origin.clone(), self.clock, stored.clone());
        let request = self.request.clone();
        tokio::spawn(async move {
            let asked = clock();
            let response = origin(conditional(&request, Some(&stored))).await;
            let received = clock();
            // What fails is tried again by the next.
            stored.renewing.store(false, std::sync::atomic::Ordering::Release);
            if response.status().is_server_error() {
                return;
            }
            let filled = settle(lead, &request, Some(&stored), response, (asked, received));
            // What is on its way is read to its end.
            drop(filled);
        });
    }

    /// Asks the server, for itself and for all who wait.
    async fn lead(&self, lead: Lead, kept: Option<Arc<Stored>>) -> Response<Body> {
        self.scope.misses.fetch_add(1, Relaxed);
        let asked = (self.clock)();
        let mut response = (self.origin)(conditional(&self.request, kept.as_deref())).await;
        let received = (self.clock)();
        let failed = [500, 502, 503, 504].contains(&response.status().as_u16());
        if let Some(stored) = kept.as_ref().filter(|_| failed)
            && stored.is_good_in_need(&self.wishes, received)
        {
            lead.landed();
            return self.of(stored, stored.body.clone().into(), Some(received), "hit; detail=stale-if-error");
        }
        if response.status() == StatusCode::NOT_MODIFIED
            && let Some(stored) = &kept
        {
            let news = Received { status: StatusCode::OK, fields: response.headers(), asked, received };
            if let Some(renewed) = stored.renewed(&self.request.method, &self.request.headers, &news) {
                let answer = self.of(
                    &renewed,
                    renewed.body.clone().into(),
                    Some(received),
                    "hit; fwd=stale; fwd-status=304",
                );
                lead.scope().keep(lead.key(), renewed);
                lead.landed();
                return answer;
            }
            // Not of this one, or not to be kept any longer: whole, then.
            lead.scope().forget(lead.key());
            response = (self.origin)(conditional(&self.request, None)).await;
        }
        match settle(lead, &self.request, kept.as_deref(), response, (asked, received)) {
            Settled::Filling(filling) => {
                let body = filling.fill.body();
                self.of(&filling.head, body, None, "fwd=miss; stored")
            }
            Settled::Own(mut response, how) => {
                let status = response.status();
                say(response.headers_mut(), how);
                // The client's own conditions were not sent on.
                let tag = response
                    .headers()
                    .get(http::header::ETAG)
                    .and_then(|tag| tag.to_str().ok())
                    .map(str::to_owned);
                let length = response.body().size_hint().exact().unwrap_or_default();
                let there = Representation { tag: tag.as_deref(), modified: None, length };
                if status == StatusCode::OK && self.asked.part(&there) == Part::NotModified {
                    *response.status_mut() = StatusCode::NOT_MODIFIED;
                    *response.body_mut() = Body::Empty;
                    response.headers_mut().remove(CONTENT_LENGTH);
                }
                response
            }
        }
    }
}

/// The request as the server is asked: for all of it, or whether it is what is kept.
fn conditional(request: &http::request::Parts, kept: Option<&Stored>) -> Request<Body> {
    let mut request = Request::from_parts(request.clone(), Body::Empty);
    for name in CONDITIONS {
        request.headers_mut().remove(name);
    }
    for (name, value) in kept.map(Stored::conditions).unwrap_or_default() {
        request.headers_mut().insert(name, value);
    }
    request
}

/// What became of an answer of the server.
enum Settled {
    /// It is on its way to whoever wants it.
    Filling(Arc<crate::scope::Filling>),
    /// It is for the one who asked; how it is told.
    Own(Response<Body>, &'static str),
}

/// Keeps an answer if it may be kept, and tells those who wait.
fn settle(
    lead: Lead,
    request: &http::request::Parts,
    kept: Option<&Stored>,
    mut response: Response<Body>,
    (asked, received): (SystemTime, SystemTime),
) -> Settled {
    let answer = Received { status: response.status(), fields: response.headers(), asked, received };
    let Some(terms) = Terms::of(&request.method, &request.headers, &answer) else {
        if response.status() == StatusCode::NOT_MODIFIED {
            // Of a renewal in the background.
            if let Some(renewed) =
                kept.and_then(|kept| kept.renewed(&request.method, &request.headers, &answer))
            {
                lead.scope().keep(lead.key(), renewed);
            }
            lead.landed();
            return Settled::Own(response, "fwd=stale");
        }
        if kept.is_some() && !response.status().is_server_error() {
            // What it was is not what it is.
            lead.scope().forget(lead.key());
        }
        lead.passed();
        return Settled::Own(response, "fwd=miss");
    };
    let most = lead.scope().largest();
    let said = response.headers().get(CONTENT_LENGTH).and_then(|said| said.to_str().ok()?.parse().ok());
    match response.body().size_hint().exact().or(said) {
        Some(length) if length <= most => {
            let filling = filling(terms.clone(), &answer, length);
            lead.fills(filling.clone());
            let (head, body) = response.into_parts();
            let (filled, status) = (filling.clone(), head.status);
            tokio::spawn(async move {
                if let Some(whole) = filled.fill.read(body).await {
                    let answer = Received { status, fields: &head.headers, asked, received };
                    lead.scope().keep(lead.key(), Stored::new(terms, &answer, whole));
                }
                lead.landed();
            });
            Settled::Filling(filling)
        }
        Some(_) => {
            lead.passed();
            Settled::Own(response, "fwd=miss; detail=too-large")
        }
        None => {
            // Nobody knows how much will come: it is kept if it was not too much.
            let body = std::mem::take(response.body_mut());
            let fields = response.headers().clone();
            let keeping = Keeping {
                scope: lead.scope().clone(),
                key: lead.key().clone(),
                status: response.status(),
                fields,
                times: (asked, received),
                terms,
                most,
            };
            *response.body_mut() = Body::stream(Tee { body, copy: Some((BytesMut::new(), keeping)) });
            lead.passed();
            Settled::Own(response, "fwd=miss; stored")
        }
    }
}

struct Keeping {
    scope: Arc<Scope>,
    key: Arc<str>,
    status: StatusCode,
    fields: HeaderMap,
    times: (SystemTime, SystemTime),
    terms: Terms,
    most: u64,
}

/// A body of which a copy is kept if it comes to its end.
struct Tee {
    body: Body,
    copy: Option<(BytesMut, Keeping)>,
}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some((copy, keeping))) = (frame.data_ref(), &mut self.copy) {
                    copy.extend_from_slice(data);
                    if copy.len() as u64 > keeping.most {
                        self.copy = None;
                    }
                }
            }
            Some(Err(_)) => self.copy = None,
            None => {
                if let Some((copy, keeping)) = self.copy.take() {
                    let (asked, received) = keeping.times;
                    let answer =
                        Received { status: keeping.status, fields: &keeping.fields, asked, received };
                    keeping.scope.keep(&keeping.key, Stored::new(keeping.terms, &answer, copy.freeze()));
                }
            }
        }
        Poll::Ready(frame)
    }
}

fn say(fields: &mut HeaderMap, how: &'static str) {
    let said = match how {
        "hit" => HeaderValue::from_static("vamos; hit"),
        _ => HeaderValue::try_from(format!("vamos; {how}")).unwrap_or(HeaderValue::from_static("vamos")),
    };
    fields.append(STATUS, said);
}
