//! What a client's request becomes: routed, limited, told who asks, sent to a guest, logged.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{HOST, HeaderValue, LOCATION, REFERER, USER_AGENT};
use http::uri::Authority;
use http::{HeaderName, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Limited;
use vamos_http_cache::{Origin, fetch};
use vamos_http_message::part::Asked;
use vamos_http_message::{Body, BodyError, hop};
use vamos_http_server::{Handler, Peer, Refusal, Upgrade};

use crate::access_log::{Entry, seconds};
use crate::forwarded;
use crate::limits::REQUEST_BYTES_MAX;
use crate::object;
use crate::routes::Route;
use crate::shared::Shared;
use crate::upstream::{REASON, Target, exchange, failure, switch};

/// Answers the requests of one thread's connections.
#[derive(Debug)]
pub struct Site {
    shared: Arc<Shared>,
    draws: RefCell<u64>,
}

impl Site {
    /// With what all threads share.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, draws: RefCell::default() }
    }

    /// A number that differs from one request to the next, for shares.
    fn draw(&self) -> u64 {
        let mut draws = self.draws.borrow_mut();
        *draws = draws.wrapping_add(1);
        // SplitMix64: neighbours end up far apart, so that bursts are shared, too.
        let mut mixed = draws.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 31)
    }

    async fn answer(&self, peer: &Peer, request: Request<Body>) -> Response<Body> {
        let Some(host) = request.uri().authority().cloned() else {
            return failure(StatusCode::BAD_REQUEST, "no-host");
        };
        let routes = self.shared.routes();
        let Some(route) = routes.find(host.as_str(), request.uri().path()) else {
            return failure(StatusCode::NOT_FOUND, "no-route");
        };
        if route.https_only && !peer.tls {
            return redirect(&host, request.uri());
        }
        let request = match prepared(peer, &host, route, request) {
            Ok(request) => request,
            Err(refused) => return *refused,
        };
        if let Some(Upgrade(protocol)) = request.extensions().get::<Upgrade>().cloned() {
            return switch(route, self.draw(), request, &protocol).await;
        }
        let draw = self.draw();
        let shared = self.shared.clone();
        let origin: Origin = Arc::new({
            let route = route.clone();
            move |request: Request<Body>| {
                let (shared, route) = (shared.clone(), route.clone());
                Box::pin(async move {
                    let asked = Asked::of(&request);
                    let response = exchange(&route, draw, request).await;
                    object::handed_off(&shared, asked, response).await
                })
            }
        });
        // The target that would be asked has what it would say.
        let target = route.choose(draw, &[]).filter(|_| route.caches);
        let Some((target, cache)) =
            target.map(|target| (target, target.cache())).filter(|(_, cache)| cache.keeps())
        else {
            return origin(request).await;
        };
        let mut response = fetch(&cache, SystemTime::now, request, &origin).await;
        response.extensions_mut().get_or_insert_with(|| target.clone());
        response
    }
}

impl Handler for Site {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let noted = Noted::of(&request);
        self.shared.counts.requests.fetch_add(1, Relaxed);
        let response = match request.extensions().get::<Peer>().cloned() {
            Some(peer) => self.answer(&peer, request).await,
            None => failure(StatusCode::INTERNAL_SERVER_ERROR, "no-peer"),
        };
        noted.follow(self.shared.clone(), response)
    }

    fn refused(&self, peer: &Peer, refusal: Refusal) {
        self.shared.counts.malformed.fetch_add(1, Relaxed);
        self.shared.log.note(&Entry {
            time: seconds(SystemTime::now()),
            client: peer.address.ip().to_canonical(),
            tls: peer.tls,
            version: "",
            host: "",
            method: "",
            path: "",
            status: refusal.status.as_u16(),
            bytes: 0,
            duration_ms: 0.0,
            complete: true,
            vm: "",
            binding: "",
            reason: &refusal.to_string(),
            user_agent: "",
            referer: "",
        });
    }
}

/// The same over TLS, at the usual port.
fn redirect(host: &Authority, uri: &Uri) -> Response<Body> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    match HeaderValue::try_from(format!("https://{}{path}", host.host())) {
        Ok(location) => drop(response.headers_mut().insert(LOCATION, location)),
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response
}

/// The request as its guest is to see it.
fn prepared(
    peer: &Peer,
    host: &Authority,
    route: &Route,
    mut request: Request<Body>,
) -> Result<Request<Body>, Box<Response<Body>>> {
    let most = match route.request_bytes_max {
        0 => REQUEST_BYTES_MAX,
        most => most,
    };
    if request.body().size_hint().lower() > most {
        return Err(failure(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large").into());
    }
    let fields = request.headers_mut();
    hop::strip(fields);
    fields.remove(HOST);
    fields.remove(REASON);
    forwarded::set(fields, peer.address, host.as_str(), peer.tls);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let limited = |body| match body {
        body @ Body::Stream(_) if body.size_hint().exact().is_none() => {
            Body::stream(Limited::new(body, most))
        }
        body => body,
    };
    Ok(if request.extensions().get::<Upgrade>().is_some() { request } else { request.map(limited) })
}

/// What the access log says of a request, before it is known what becomes of it.
struct Noted {
    begun: Instant,
    time: f64,
    peer: Option<Peer>,
    version: Version,
    method: Method,
    uri: Uri,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
}

impl Noted {
    fn of(request: &Request<Body>) -> Self {
        let field = |name: HeaderName| request.headers().get(name).cloned();
        Self {
            begun: Instant::now(),
            time: seconds(SystemTime::now()),
            peer: request.extensions().get::<Peer>().cloned(),
            version: request.version(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            user_agent: field(USER_AGENT),
            referer: field(REFERER),
        }
    }

    /// Has it logged once the answer is whole, or given up.
    fn follow(self, shared: Arc<Shared>, mut response: Response<Body>) -> Response<Body> {
        let target = response.extensions_mut().remove::<Arc<Target>>();
        let reason = response.headers().get(REASON).cloned();
        let status = response.status();
        if let Some(target) = &target {
            target.answered(status, self.begun.elapsed());
        }
        let mut entry = Unfinished { noted: self, shared, target, reason, status, bytes: 0, complete: false };
        let (head, body) = response.into_parts();
        let body = match body {
            Body::Stream(_) => Body::stream(Counted { body, entry }),
            whole => {
                entry.bytes = whole.size_hint().lower();
                entry.complete = true;
                whole
            }
        };
        Response::from_parts(head, body)
    }
}

/// An answer under way; logged when it is dropped.
struct Unfinished {
    noted: Noted,
    shared: Arc<Shared>,
    target: Option<Arc<Target>>,
    reason: Option<HeaderValue>,
    status: StatusCode,
    bytes: u64,
    complete: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let noted = &self.noted;
        let Some(peer) = &noted.peer else { return };
        let text = |field: &Option<HeaderValue>| {
            field
                .as_ref()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .unwrap_or_default()
        };
        self.shared.log.note(&Entry {
            time: noted.time,
            client: peer.address.ip().to_canonical(),
            tls: peer.tls,
            version: match noted.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            host: noted.uri.authority().map_or("", Authority::as_str),
            method: noted.method.as_str(),
            path: noted.uri.path_and_query().map_or("/", |path| path.as_str()),
            status: self.status.as_u16(),
            bytes: self.bytes,
            duration_ms: noted.begun.elapsed().as_secs_f64() * 1e3,
            complete: self.complete,
            vm: self.target.as_ref().map_or("", |target| &target.name.vm),
            binding: self.target.as_ref().map_or("", |target| &target.name.binding),
            reason: &text(&self.reason),
            user_agent: &text(&noted.user_agent),
            referer: &text(&noted.referer),
        });
    }
}

/// A body whose bytes are counted.
struct Counted {
    body: Body,
    entry: Unfinished,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.entry.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => {}
            None => self.entry.complete = true,
        }
        if self.body.is_end_stream() {
            self.entry.complete = true;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
