//! Requests to guests whose streams come and go. The guest is an HTTP/2 server on a Unix stream, as an agent is.

use std::convert::Infallible;
use std::os::unix::net::UnixStream as BlockingStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use vamos_edge::routes::{Route, Routes};
use vamos_edge::upstream::{REASON, Target, TargetName, Targets, exchange};
use vamos_http_message::Body;
use vamos_proto::edge;

struct Site {
    targets: Targets,
    routes: Routes,
}

impl Site {
    fn new(vms: &[&str]) -> Self {
        let targets = Targets::default();
        let target = |vm: &&str| edge::Target { vm: (*vm).into(), binding: "site".into(), weight: 1 };
        let route = edge::Route {
            host: "*".into(),
            prefix: "/".into(),
            targets: vms.iter().map(target).collect(),
            ..edge::Route::default()
        };
        let routes = Routes::new(vec![route], &targets);
        Self { targets, routes }
    }

    fn route(&self) -> &Arc<Route> {
        self.routes.find("site", "/").unwrap()
    }

    fn target(&self, vm: &str) -> Arc<Target> {
        self.targets.target(TargetName { vm: vm.into(), binding: "site".into() })
    }

    async fn ask(&self, method: Method, body: Body) -> Response<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = "http://site/page".parse().unwrap();
        exchange(self.route(), 0, request).await
    }
}

/// Serves one stream of a guest until it is aborted; `answer` gets each request.
async fn guest<F, R>(target: &Target, answer: F) -> JoinHandle<()>
where
    F: Fn(Request<Incoming>) -> R + Send + Clone + 'static,
    R: Future<Output = Response<Body>> + Send,
{
    let (edge, guest) = BlockingStream::pair().unwrap();
    guest.set_nonblocking(true).unwrap();
    let guest = TokioIo::new(UnixStream::from_std(guest).unwrap());
    let serving = tokio::spawn(async move {
        let service = service_fn(move |request| {
            let answer = answer.clone();
            async move { Ok::<_, Infallible>(answer(request).await) }
        });
        // It breaks when the test wants it to.
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(guest, service).await;
    });
    target.streams.add(edge.into()).await.unwrap();
    serving
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    Response::new(request.into_body().collect().await.unwrap().to_bytes().into())
}

#[tokio::test]
async fn a_request_waits_for_a_guest_that_comes_back() {
    let site = Arc::new(Site::new(&["a"]));
    let waiting = tokio::spawn({
        let site = site.clone();
        async move { site.ask(Method::POST, "hello".into()).await }
    });
    tokio::task::yield_now().await;
    let _guest = guest(&site.target("a"), echo).await;
    assert_eq!(text(waiting.await.unwrap()).await, "hello");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_come_is_not_waited_for_twice() {
    let site = Site::new(&["a"]);
    for _ in 0..2 {
        let response = site.ask(Method::GET, Body::Empty).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[REASON], "vm-not-there");
    }
    assert!(site.target("a").streams.none_for().is_some());
}

/// A guest that begins `times` requests and is lost with each, then one that answers.
async fn lost(site: &Arc<Site>, times: usize) -> Arc<AtomicUsize> {
    let seen = Arc::new(AtomicUsize::new(0));
    let (again, count) = (site.clone(), seen.clone());
    tokio::spawn(async move {
        for _ in 0..times {
            let (arrived, count) = (Arc::new(tokio::sync::Notify::new()), count.clone());
            let told = arrived.clone();
            let dying = guest(&again.target("a"), move |request| {
                let (arrived, count) = (arrived.clone(), count.clone());
                async move {
                    request.into_body().collect().await.unwrap();
                    count.fetch_add(1, SeqCst);
                    arrived.notify_one();
                    std::future::pending().await
                }
            })
            .await;
            told.notified().await;
            dying.abort();
            let _ = dying.await;
        }
        guest(&again.target("a"), echo).await.await.unwrap();
    });
    seen
}

#[tokio::test]
async fn what_may_be_done_twice_is_sent_again_unseen() {
    for (method, body) in [(Method::GET, ""), (Method::PUT, "content"), (Method::DELETE, "")] {
        let site = Arc::new(Site::new(&["a"]));
        let seen = lost(&site, 3).await;
        let response = site.ask(method.clone(), body.into()).await;
        assert_eq!(response.status(), StatusCode::OK, "{method}");
        assert_eq!(text(response).await, body);
        assert_eq!(seen.load(SeqCst), 3);
        assert_eq!(site.target("a").stats().retried, 3);
    }
}

#[tokio::test]
async fn what_may_not_is_answered_with_the_reason() {
    let site = Arc::new(Site::new(&["a"]));
    let seen = lost(&site, 1).await;
    let response = site.ask(Method::POST, "order".into()).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.headers()[REASON], "stream-lost");
    assert_eq!(seen.load(SeqCst), 1, "an order is not placed twice");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_passed_over() {
    let site = Site::new(&["a", "b"]);
    let refuse = |_| async {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(REASON, "upstream-refused".parse().unwrap());
        response
    };
    let _a = guest(&site.target("a"), refuse).await;
    let _b = guest(&site.target("b"), echo).await;
    for _ in 0..10 {
        // Nobody has seen it, so that also an order may go elsewhere.
        assert_eq!(text(site.ask(Method::POST, "order".into()).await).await, "order");
    }
    assert!(!site.target("a").health.is_healthy());
    assert!(site.target("b").health.is_healthy());
    assert_eq!(site.target("b").stats().streams, 1);
}

/// Sends the half of `content` and is lost; knows ranges if `ranges`.
fn halves(
    request: &Request<Incoming>,
    content: &'static str,
    tag: &'static str,
    whole: bool,
    ranges: bool,
) -> Response<Body> {
    let from = request.headers().get(RANGE).filter(|_| ranges).map(|range| {
        assert_eq!(request.headers()[IF_RANGE], "\"v1\"");
        range.to_str().unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap()
    });
    let start = from.unwrap_or(0);
    let end = if whole { content.len() } else { content.len() / 2 };
    let first = [Ok::<_, Infallible>(Frame::data(Bytes::from_static(&content.as_bytes()[start..end])))];
    let stays = futures_of(first.into_iter().collect(), whole);
    let mut response = Response::new(Body::stream(StreamBody::new(stays)));
    let fields = response.headers_mut();
    fields.insert(ETAG, tag.parse().unwrap());
    fields.insert(CONTENT_LENGTH, (content.len() - start).into());
    if from.is_some() {
        let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
        fields.insert(CONTENT_RANGE, range.parse().unwrap());
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

type Frames = Vec<Result<Frame<Bytes>, Infallible>>;

/// The frames, then the end, or nothing ever.
fn futures_of(
    frames: Frames,
    ends: bool,
) -> impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
    use futures::StreamExt;
    let rest = futures::stream::once(async move { if ends { None } else { std::future::pending().await } });
    futures::stream::iter(frames).chain(rest.filter_map(|none: Option<_>| async { none }))
}

const CONTENT: &str = "the first half, and then the second one";

async fn half_then(tag: &'static str, ranges: bool) -> Result<String, String> {
    let site = Site::new(&["a"]);
    let first =
        guest(&site.target("a"), |request| async move { halves(&request, CONTENT, "\"v1\"", false, true) })
            .await;
    let mut response = site.ask(Method::GET, Body::Empty).await;
    let begun = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    first.abort();
    let _ = first.await;
    let _second =
        guest(&site.target("a"), move |request| async move { halves(&request, CONTENT, tag, true, ranges) })
            .await;
    let rest = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(String::from_utf8([begun, rest].concat()).unwrap())
}

#[tokio::test]
async fn an_answer_goes_on_where_it_was_cut_if_it_is_the_same() {
    assert_eq!(half_then("\"v1\"", true).await.unwrap(), CONTENT);
    assert_eq!(half_then("\"v1\"", false).await.unwrap(), CONTENT);
    let mixed = half_then("\"v2\"", true).await.unwrap_err();
    assert!(mixed.contains("is not there any more"), "{mixed}");
}
