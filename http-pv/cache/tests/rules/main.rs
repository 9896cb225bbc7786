//! RFC 9111 as a table: what a server says, what clients then ask, and how often the server is asked.
//!
//! The clock is each test's own.

mod behaviour;
mod table;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use vamos_http_cache::{Origin, Scope, fetch};
use vamos_http_message::Body;

/// Tests have a clock each: every one is a thread.
mod clock {
    use super::*;

    thread_local! {
        static NOW: AtomicU64 = const { AtomicU64::new(2_000_000_000) };
    }

    pub fn now() -> SystemTime {
        NOW.with(|now| SystemTime::UNIX_EPOCH + Duration::from_secs(now.load(Relaxed)))
    }

    pub fn pass(seconds: u64) {
        NOW.with(|now| now.fetch_add(seconds, Relaxed));
    }
}

/// A server that answers in turn, and remembers what it was asked.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<VecDeque<Response<Body>>>>,
    asked: Arc<Mutex<Vec<Request<()>>>>,
}

impl Server {
    fn origin(&self) -> Origin {
        let server = self.clone();
        Arc::new(move |request| {
            let server = server.clone();
            Box::pin(async move {
                let (head, _) = request.into_parts();
                server.asked.lock().unwrap().push(Request::from_parts(head, ()));
                let answer = server.answers.lock().unwrap().pop_front();
                answer.unwrap_or_else(|| answer_of(500, &[], "nobody expected this"))
            })
        })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// `{-5}` in a field's value is the date five seconds ago.
fn fields_of(lines: &[&str]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        let mut value = value.to_owned();
        if let Some((before, rest)) = value.clone().split_once('{') {
            let (offset, after) = rest.split_once('}').unwrap();
            let offset: i64 = offset.parse().unwrap();
            let by = Duration::from_secs(offset.unsigned_abs());
            let time = if offset < 0 { clock::now() - by } else { clock::now() + by };
            value = format!("{before}{}{after}", httpdate::fmt_http_date(time));
        }
        fields.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
    }
    fields
}

fn answer_of(status: u16, lines: &[&str], body: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = fields_of(lines);
    response
}

struct Client {
    scope: Arc<Scope>,
    server: Server,
}

struct Got {
    status: u16,
    fields: HeaderMap,
    body: String,
}

impl Client {
    fn new() -> Self {
        Self { scope: Scope::new(1 << 20), server: Server::default() }
    }

    fn will_answer(&self, answer: Response<Body>) {
        self.server.answers.lock().unwrap().push_back(answer);
    }

    async fn ask(&self, method: &str, path: &str, lines: &[&str]) -> Got {
        let mut request = Request::new(Body::Empty);
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        let uri = if path.starts_with('/') { format!("http://example.org{path}") } else { path.to_owned() };
        *request.uri_mut() = uri.parse().unwrap();
        *request.headers_mut() = fields_of(lines);
        let response = fetch(&self.scope, clock::now, request, &self.server.origin()).await;
        let (head, body) = response.into_parts();
        let body = match body.collect().await {
            Ok(whole) => String::from_utf8(whole.to_bytes().to_vec()).unwrap(),
            Err(_) => "broken".to_owned(),
        };
        // What is kept is kept by another task.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        Got { status: head.status.as_u16(), fields: head.headers, body }
    }

    async fn get(&self, lines: &[&str]) -> Got {
        self.ask("GET", "/", lines).await
    }
}
