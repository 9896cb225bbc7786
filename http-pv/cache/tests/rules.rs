//! RFC 9111 as a table: what a server says, what clients then ask, and how often the server is asked.
//!
//! Each case is a list of steps. The clock is the test's own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use vamos_http_cache::{Origin, Purge, Scope, fetch};
use vamos_http_message::{Body, BodyError};

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
        *request.uri_mut() = format!("http://example.org{path}").parse().unwrap();
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

/// What happens between two requests, and what the second is like.
struct Case {
    name: &'static str,
    /// Of the first request.
    first: &'static [&'static str],
    status: u16,
    /// What the server answers it with.
    answer: &'static [&'static str],
    /// Seconds until the second.
    after: u64,
    second: &'static [&'static str],
    /// Whether the server is asked again.
    again: bool,
}

const fn case(
    name: &'static str,
    first: &'static [&'static str],
    status: u16,
    answer: &'static [&'static str],
    after: u64,
    second: &'static [&'static str],
    again: bool,
) -> Case {
    Case { name, first, status, answer, after, second, again }
}

const FRESH: bool = false;
const ASKS: bool = true;

const CASES: &[Case] = &[
    // Freshness (section 4.2).
    case("max-age", &[], 200, &["cache-control: max-age=60"], 59, &[], FRESH),
    case("max-age is over", &[], 200, &["cache-control: max-age=60"], 60, &[], ASKS),
    case("max-age of 0", &[], 200, &["cache-control: max-age=0"], 0, &[], ASKS),
    case("max-age in capitals", &[], 200, &["cache-control: MAX-AGE=60"], 1, &[], FRESH),
    case("max-age quoted", &[], 200, &["cache-control: max-age=\"60\""], 1, &[], FRESH),
    case("max-age that is negative", &[], 200, &["cache-control: max-age=-60"], 0, &[], ASKS),
    case("max-age that is no number", &[], 200, &["cache-control: max-age=x"], 0, &[], ASKS),
    case("max-age that is a fraction", &[], 200, &["cache-control: max-age=60.5"], 0, &[], ASKS),
    case("max-age beyond 2^31", &[], 200, &["cache-control: max-age=99999999999999"], 1000, &[], FRESH),
    case(
        "max-age twice, the first holds",
        &[],
        200,
        &["cache-control: max-age=1, max-age=60"],
        30,
        &[],
        ASKS,
    ),
    case(
        "max-age in a second line",
        &[],
        200,
        &["cache-control: x", "cache-control: max-age=60"],
        1,
        &[],
        FRESH,
    ),
    case(
        "max-age among unknown directives",
        &[],
        200,
        &["cache-control: foo, max-age=60, bar=\"a,max-age=0\""],
        1,
        &[],
        FRESH,
    ),
    case("a directive that ends like max-age", &[], 200, &["cache-control: x-max-age=60"], 0, &[], ASKS),
    case("s-maxage before max-age", &[], 200, &["cache-control: max-age=1, s-maxage=60"], 30, &[], FRESH),
    case("s-maxage of 0 before max-age", &[], 200, &["cache-control: max-age=60, s-maxage=0"], 0, &[], ASKS),
    case("max-age before Expires", &[], 200, &["cache-control: max-age=60", "expires: {-10}"], 1, &[], FRESH),
    case(
        "max-age of 0 before Expires",
        &[],
        200,
        &["cache-control: max-age=0", "expires: {60}"],
        0,
        &[],
        ASKS,
    ),
    case("Expires", &[], 200, &["date: {0}", "expires: {60}"], 59, &[], FRESH),
    case("Expires is over", &[], 200, &["date: {0}", "expires: {60}"], 60, &[], ASKS),
    case("Expires without a Date", &[], 200, &["expires: {60}"], 59, &[], FRESH),
    case("Expires that is 0", &[], 200, &["expires: 0"], 0, &[], ASKS),
    case("Expires that is no date", &[], 200, &["expires: tomorrow"], 0, &[], ASKS),
    case(
        "Expires in the old format",
        &[],
        200,
        &["expires: Saturday, 01-Jan-50 00:00:00 GMT"],
        0,
        &[],
        FRESH,
    ),
    case("Expires relative to an old Date", &[], 200, &["date: {-100}", "expires: {-50}"], 0, &[], ASKS),
    case("Age counts", &[], 200, &["cache-control: max-age=60", "age: 50"], 11, &[], ASKS),
    case("Age counts, but not too much", &[], 200, &["cache-control: max-age=60", "age: 50"], 9, &[], FRESH),
    case("Age of nonsense", &[], 200, &["cache-control: max-age=60", "age: x"], 30, &[], FRESH),
    case("Age beyond 2^31", &[], 200, &["cache-control: max-age=60", "age: 99999999999999"], 0, &[], ASKS),
    case("an old Date is age", &[], 200, &["cache-control: max-age=60", "date: {-100}"], 0, &[], ASKS),
    case(
        "a Date in the future is none",
        &[],
        200,
        &["cache-control: max-age=60", "date: {100}"],
        59,
        &[],
        FRESH,
    ),
    case("a heuristic of a tenth", &[], 200, &["date: {0}", "last-modified: {-1000}"], 99, &[], FRESH),
    case("a heuristic that is over", &[], 200, &["date: {0}", "last-modified: {-1000}"], 101, &[], ASKS),
    case(
        "a heuristic of a day at most",
        &[],
        200,
        &["date: {0}", "last-modified: {-999999999}"],
        86_401,
        &[],
        ASKS,
    ),
    case("nothing said", &[], 200, &[], 0, &[], ASKS),
    // What may be kept (section 3).
    case("no-store", &[], 200, &["cache-control: no-store, max-age=60"], 0, &[], ASKS),
    case("no-store in capitals", &[], 200, &["cache-control: No-Store, max-age=60"], 0, &[], ASKS),
    case("private", &[], 200, &["cache-control: private, max-age=60"], 0, &[], ASKS),
    case("private with fields", &[], 200, &["cache-control: private=\"x\", max-age=60"], 0, &[], ASKS),
    case("no-cache without a validator", &[], 200, &["cache-control: no-cache, max-age=60"], 0, &[], ASKS),
    case(
        "must-understand",
        &[],
        200,
        &["cache-control: no-store, must-understand, max-age=60"],
        0,
        &[],
        FRESH,
    ),
    case(
        "the client says no-store",
        &["cache-control: no-store"],
        200,
        &["cache-control: max-age=60"],
        0,
        &[],
        ASKS,
    ),
    case(
        "the client is authorized",
        &["authorization: x"],
        200,
        &["cache-control: max-age=60"],
        0,
        &["authorization: x"],
        ASKS,
    ),
    case(
        "authorized and public",
        &["authorization: x"],
        200,
        &["cache-control: public, max-age=60"],
        0,
        &["authorization: x"],
        FRESH,
    ),
    case(
        "authorized and s-maxage",
        &["authorization: x"],
        200,
        &["cache-control: s-maxage=60"],
        0,
        &["authorization: y"],
        FRESH,
    ),
    case(
        "authorized and must-revalidate",
        &["authorization: x"],
        200,
        &["cache-control: must-revalidate, max-age=60"],
        0,
        &[],
        FRESH,
    ),
    case(
        "a cookie is set",
        &[],
        200,
        &["cache-control: public, max-age=60", "set-cookie: a=b"],
        0,
        &[],
        ASKS,
    ),
    case(
        "a Pragma of the answer means nothing",
        &[],
        200,
        &["cache-control: max-age=60", "pragma: no-cache"],
        1,
        &[],
        FRESH,
    ),
    case(
        "206 is not kept",
        &[],
        206,
        &["cache-control: max-age=60", "content-range: bytes 0-1/2"],
        0,
        &[],
        ASKS,
    ),
    case(
        "200 with Content-Range is not kept",
        &[],
        200,
        &["cache-control: max-age=60", "content-range: bytes 0-1/2"],
        0,
        &[],
        ASKS,
    ),
    case("204", &[], 204, &["cache-control: max-age=60"], 1, &[], FRESH),
    case("301 with a lifetime", &[], 301, &["cache-control: max-age=60", "location: /x"], 1, &[], FRESH),
    case(
        "302 without a lifetime",
        &[],
        302,
        &["location: /x", "date: {0}", "last-modified: {-1000}"],
        0,
        &[],
        ASKS,
    ),
    case("302 with a lifetime", &[], 302, &["location: /x", "cache-control: max-age=60"], 1, &[], FRESH),
    case("404 without a lifetime", &[], 404, &["date: {0}", "last-modified: {-1000}"], 0, &[], ASKS),
    case("404 with a lifetime", &[], 404, &["cache-control: max-age=60"], 1, &[], FRESH),
    case("410 with a lifetime", &[], 410, &["cache-control: max-age=60"], 1, &[], FRESH),
    case("500 without a lifetime", &[], 500, &["date: {0}", "last-modified: {-1000}"], 0, &[], ASKS),
    case("503 with a lifetime", &[], 503, &["cache-control: max-age=60"], 1, &[], FRESH),
    case("a status nobody knows, with a lifetime", &[], 299, &["cache-control: max-age=60"], 1, &[], FRESH),
    case("a status nobody knows, without", &[], 299, &["date: {0}", "last-modified: {-1000}"], 0, &[], ASKS),
    // Vary (section 4.1).
    case(
        "Vary, the same",
        &["accept: a"],
        200,
        &["cache-control: max-age=60", "vary: accept"],
        1,
        &["accept: a"],
        FRESH,
    ),
    case(
        "Vary, another",
        &["accept: a"],
        200,
        &["cache-control: max-age=60", "vary: accept"],
        1,
        &["accept: b"],
        ASKS,
    ),
    case(
        "Vary, there and not",
        &["accept: a"],
        200,
        &["cache-control: max-age=60", "vary: accept"],
        1,
        &[],
        ASKS,
    ),
    case(
        "Vary, not and there",
        &[],
        200,
        &["cache-control: max-age=60", "vary: accept"],
        1,
        &["accept: a"],
        ASKS,
    ),
    case("Vary, neither", &[], 200, &["cache-control: max-age=60", "vary: accept"], 1, &[], FRESH),
    case(
        "Vary in capitals",
        &["accept: a"],
        200,
        &["cache-control: max-age=60", "vary: ACCEPT"],
        1,
        &["accept: a"],
        FRESH,
    ),
    case(
        "Vary on two, one differs",
        &["a: 1", "b: 1"],
        200,
        &["cache-control: max-age=60", "vary: a, b"],
        1,
        &["a: 1", "b: 2"],
        ASKS,
    ),
    case(
        "Vary on two lines",
        &["a: 1", "b: 1"],
        200,
        &["cache-control: max-age=60", "vary: a", "vary: b"],
        1,
        &["a: 1", "b: 2"],
        ASKS,
    ),
    case(
        "Vary on a field of two lines",
        &["a: 1", "a: 2"],
        200,
        &["cache-control: max-age=60", "vary: a"],
        1,
        &["a: 1, 2"],
        FRESH,
    ),
    case(
        "Vary on a field whose second line differs",
        &["a: 1", "a: 2"],
        200,
        &["cache-control: max-age=60", "vary: a"],
        1,
        &["a: 1", "a: 3"],
        ASKS,
    ),
    case("Vary: *", &[], 200, &["cache-control: max-age=60", "vary: *"], 0, &[], ASKS),
    case("Vary: * in a list", &[], 200, &["cache-control: max-age=60", "vary: accept, *"], 0, &[], ASKS),
    case(
        "another field than Vary names",
        &["b: 1"],
        200,
        &["cache-control: max-age=60", "vary: a"],
        1,
        &["b: 2"],
        FRESH,
    ),
    // What a client wishes (section 5.2.1).
    case(
        "the client says no-cache",
        &[],
        200,
        &["cache-control: max-age=60"],
        1,
        &["cache-control: no-cache"],
        ASKS,
    ),
    case(
        "the client says Pragma: no-cache",
        &[],
        200,
        &["cache-control: max-age=60"],
        1,
        &["pragma: no-cache"],
        ASKS,
    ),
    case(
        "Pragma beside Cache-Control",
        &[],
        200,
        &["cache-control: max-age=60"],
        1,
        &["pragma: no-cache", "cache-control: max-age=60"],
        FRESH,
    ),
    case(
        "the client says max-age=0",
        &[],
        200,
        &["cache-control: max-age=60"],
        1,
        &["cache-control: max-age=0"],
        ASKS,
    ),
    case(
        "the client takes what is younger",
        &[],
        200,
        &["cache-control: max-age=60"],
        10,
        &["cache-control: max-age=10"],
        FRESH,
    ),
    case(
        "the client's max-age is less than the age",
        &[],
        200,
        &["cache-control: max-age=60"],
        11,
        &["cache-control: max-age=10"],
        ASKS,
    ),
    case(
        "min-fresh that is left",
        &[],
        200,
        &["cache-control: max-age=60"],
        10,
        &["cache-control: min-fresh=50"],
        FRESH,
    ),
    case(
        "min-fresh that is not left",
        &[],
        200,
        &["cache-control: max-age=60"],
        11,
        &["cache-control: min-fresh=50"],
        ASKS,
    ),
    case(
        "max-stale",
        &[],
        200,
        &["cache-control: max-age=60", "etag: \"a\""],
        70,
        &["cache-control: max-stale"],
        FRESH,
    ),
    case(
        "max-stale that suffices",
        &[],
        200,
        &["cache-control: max-age=60"],
        70,
        &["cache-control: max-stale=10"],
        FRESH,
    ),
    case(
        "max-stale that does not",
        &[],
        200,
        &["cache-control: max-age=60"],
        71,
        &["cache-control: max-stale=10"],
        ASKS,
    ),
    case(
        "max-stale against must-revalidate",
        &[],
        200,
        &["cache-control: max-age=60, must-revalidate"],
        61,
        &["cache-control: max-stale"],
        ASKS,
    ),
    case(
        "max-stale against proxy-revalidate",
        &[],
        200,
        &["cache-control: max-age=60, proxy-revalidate"],
        61,
        &["cache-control: max-stale"],
        ASKS,
    ),
    case(
        "max-stale against s-maxage",
        &[],
        200,
        &["cache-control: s-maxage=60"],
        61,
        &["cache-control: max-stale"],
        ASKS,
    ),
    case(
        "max-stale against no-cache",
        &[],
        200,
        &["cache-control: no-cache, max-age=60", "etag: \"a\""],
        61,
        &["cache-control: max-stale"],
        ASKS,
    ),
    case(
        "proxy-revalidate while fresh",
        &[],
        200,
        &["cache-control: max-age=60, proxy-revalidate"],
        1,
        &[],
        FRESH,
    ),
    case(
        "must-revalidate while fresh",
        &[],
        200,
        &["cache-control: max-age=60, must-revalidate"],
        1,
        &[],
        FRESH,
    ),
    // Poison: what one client sends must not be what others get (threat rows 17 and 58).
    case("400 is of the request", &["x: bad"], 400, &["cache-control: max-age=60"], 0, &[], ASKS),
    case("401 is of the request", &[], 401, &["cache-control: public, max-age=60"], 0, &[], ASKS),
    case("408 is of the request", &[], 408, &["cache-control: max-age=60"], 0, &[], ASKS),
    case("413 is of the request", &[], 413, &["cache-control: max-age=60"], 0, &[], ASKS),
    case("414 is of the request", &[], 414, &["cache-control: max-age=60"], 0, &[], ASKS),
    case("429 is of the request", &[], 429, &["cache-control: max-age=60"], 0, &[], ASKS),
    case("431 is of the request", &["x: long"], 431, &["cache-control: public, max-age=60"], 0, &[], ASKS),
    case(
        "a session of many",
        &["cookie: a=1"],
        200,
        &["cache-control: max-age=60", "set-cookie: a=2", "vary: cookie"],
        0,
        &["cookie: a=1"],
        ASKS,
    ),
];

#[tokio::test]
async fn h58_a_server_is_asked_when_the_rules_say_so() {
    let mut wrong = Vec::new();
    for case in CASES {
        let client = Client::new();
        client.will_answer(answer_of(case.status, case.answer, "one"));
        client.will_answer(answer_of(200, &[], "two"));
        let first = client.get(case.first).await;
        assert_eq!(first.status, case.status, "{}", case.name);
        clock::pass(case.after);
        let second = client.get(case.second).await;
        let asked = client.server.asked() == 2;
        let expected = if case.again { "two" } else { "one" };
        if asked != case.again || (second.body != expected && case.status != 204) {
            wrong.push(format!("{}: asked again: {asked}, got {:?}", case.name, second.body));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_hit_says_how_old_it_is_and_keeps_all_fields() {
    let client = Client::new();
    let lines =
        ["cache-control: max-age=60", "date: {0}", "link: <a>", "link: <b>", "age: 5", "cache-tag: x"];
    client.will_answer(answer_of(200, &lines, "one"));
    let date = client.get(&[]).await.fields["date"].clone();
    clock::pass(10);
    let hit = client.get(&[]).await;
    assert_eq!((hit.fields["age"].to_str().unwrap(), &hit.fields["date"]), ("15", &date));
    assert_eq!(hit.fields.get_all("link").iter().count(), 2);
    assert_eq!(hit.fields["cache-status"], "vamos; hit");
    assert!(!hit.fields.contains_key("cache-tag"), "tags are between the server and the cache");
    assert_eq!(client.server.asked(), 1);
}

#[tokio::test]
async fn what_is_stale_is_validated_and_renewed() {
    let client = Client::new();
    client.will_answer(answer_of(
        200,
        &["cache-control: max-age=10", "etag: \"a\"", "x: old", "content-type: text/a"],
        "one",
    ));
    client.get(&[]).await;
    clock::pass(11);
    client.will_answer(answer_of(
        304,
        &["cache-control: max-age=60", "etag: \"a\"", "x: new", "y: more", "content-type: text/b"],
        "",
    ));
    let renewed = client.get(&["if-none-match: \"client's own\""]).await;
    assert_eq!(
        (renewed.status, renewed.body.as_str(), &renewed.fields["x"]),
        (200, "one", &HeaderValue::from_static("new"))
    );
    assert_eq!(
        (&renewed.fields["y"], &renewed.fields["content-type"]),
        (&HeaderValue::from_static("more"), &HeaderValue::from_static("text/a"))
    );
    assert_eq!(client.server.asked.lock().unwrap()[1].headers()["if-none-match"], "\"a\"");
    clock::pass(50);
    assert_eq!(client.get(&[]).await.body, "one");
    assert_eq!(client.server.asked(), 2, "it is fresh again");
    clock::pass(20);
    client.will_answer(answer_of(200, &["cache-control: max-age=60", "etag: \"b\""], "two"));
    assert_eq!(client.get(&[]).await.body, "two");
    assert_eq!(client.get(&[]).await.body, "two");
    assert_eq!(client.server.asked(), 3);
    // A 304 about something else is not believed.
    clock::pass(70);
    client.will_answer(answer_of(304, &["etag: \"z\""], ""));
    client.will_answer(answer_of(200, &["cache-control: max-age=60"], "three"));
    assert_eq!(client.get(&[]).await.body, "three");
}

#[tokio::test]
async fn conditions_and_ranges_are_answered_from_what_is_kept() {
    let client = Client::new();
    let lines = ["cache-control: max-age=60", "etag: \"a\"", "last-modified: {-1000}"];
    client.will_answer(answer_of(200, &lines, "0123456789"));
    client.get(&[]).await;
    for (lines, status, body) in [
        (&["if-none-match: \"a\""][..], 304, ""),
        (&["if-none-match: W/\"a\""], 304, ""),
        (&["if-none-match: \"b\", \"a\""], 304, ""),
        (&["if-none-match: *"], 304, ""),
        (&["if-none-match: \"b\""], 200, "0123456789"),
        (&["if-modified-since: {-1000}"], 304, ""),
        (&["if-modified-since: {-2000}"], 200, "0123456789"),
        (&["if-none-match: \"b\"", "if-modified-since: {0}"], 200, "0123456789"),
        (&["range: bytes=2-4"], 206, "234"),
        (&["range: bytes=-3"], 206, "789"),
        (&["range: bytes=7-"], 206, "789"),
        (&["range: bytes=20-"], 416, ""),
        (&["range: bytes=2-4", "if-range: \"a\""], 206, "234"),
        (&["range: bytes=2-4", "if-range: \"b\""], 200, "0123456789"),
        (&["range: bytes=0-1,3-4"], 200, "0123456789"),
    ] {
        let got = client.get(lines).await;
        assert_eq!((got.status, got.body.as_str()), (status, body), "{lines:?}");
    }
    let head = client.ask("HEAD", "/", &[]).await;
    assert_eq!(
        (head.status, head.body.as_str(), &head.fields["content-length"]),
        (200, "", &HeaderValue::from_static("10"))
    );
    assert_eq!(client.server.asked(), 1);
    // A condition of the first client is not the server's: all is fetched, and the client told what it asked.
    let client = Client::new();
    client.will_answer(answer_of(200, &lines, "all"));
    assert_eq!(client.get(&["if-none-match: \"a\""]).await.status, 304);
    assert!(!client.server.asked.lock().unwrap()[0].headers().contains_key("if-none-match"));
    assert_eq!(client.get(&[]).await.body, "all");
    // A range of what is not kept is the server's affair.
    let client = Client::new();
    client.will_answer(answer_of(206, &["cache-control: max-age=60", "content-range: bytes 0-0/3"], "a"));
    assert_eq!(client.get(&["range: bytes=0-0"]).await.status, 206);
    client.will_answer(answer_of(200, &["cache-control: max-age=60"], "abc"));
    assert_eq!(client.get(&[]).await.body, "abc");
}

#[tokio::test]
async fn stale_answers_are_sent_while_another_is_fetched_or_none_is_to_be_had() {
    let client = Client::new();
    client.will_answer(answer_of(200, &["cache-control: max-age=10, stale-while-revalidate=30"], "one"));
    client.get(&[]).await;
    clock::pass(20);
    client.will_answer(answer_of(200, &["cache-control: max-age=10"], "two"));
    assert_eq!(client.get(&[]).await.body, "one");
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.get(&[]).await.body, "two");
    assert_eq!(client.server.asked(), 2);

    let client = Client::new();
    client.will_answer(answer_of(200, &["cache-control: max-age=10, stale-while-revalidate=30"], "one"));
    client.get(&[]).await;
    clock::pass(41);
    client.will_answer(answer_of(200, &["cache-control: max-age=10"], "two"));
    assert_eq!(client.get(&[]).await.body, "two", "too late for that");

    for (directives, status, after, expected) in [
        ("max-age=10, stale-if-error=60", 503, 20, "one"),
        ("max-age=10, stale-if-error=60", 500, 20, "one"),
        ("max-age=10, stale-if-error=60", 404, 20, "failed"),
        ("max-age=10, stale-if-error=60", 503, 71, "failed"),
        ("max-age=10, stale-if-error=60, must-revalidate", 503, 20, "failed"),
        ("max-age=10", 503, 20, "failed"),
    ] {
        let client = Client::new();
        client.will_answer(answer_of(200, &[&format!("cache-control: {directives}"), "etag: \"a\""], "one"));
        client.get(&[]).await;
        clock::pass(after);
        client.will_answer(answer_of(status, &[], "failed"));
        assert_eq!(client.get(&[]).await.body, expected, "{directives} {status} after {after}");
    }
}

#[tokio::test]
async fn what_changes_something_voids_what_was_kept() {
    for (method, status, more, void) in [
        ("POST", 200, None, true),
        ("PUT", 204, None, true),
        ("DELETE", 200, None, true),
        ("PATCH", 302, None, true),
        ("UNKNOWN", 200, None, true),
        ("POST", 404, None, false),
        ("POST", 500, None, false),
        ("OPTIONS", 200, None, false),
        ("POST", 201, Some("location: /"), true),
    ] {
        let client = Client::new();
        client.will_answer(answer_of(200, &["cache-control: max-age=60"], "one"));
        client.get(&[]).await;
        let lines: Vec<&str> = more.into_iter().collect();
        client.will_answer(answer_of(status, &lines, ""));
        client.ask(method, if more.is_some() { "/other" } else { "/" }, &[]).await;
        client.will_answer(answer_of(200, &[], "two"));
        let expected = if void { "two" } else { "one" };
        assert_eq!(client.get(&[]).await.body, expected, "{method} {status}");
    }
    let client = Client::new();
    client.will_answer(answer_of(200, &["cache-control: max-age=60"], "one"));
    client.get(&[]).await;
    client.will_answer(answer_of(
        201,
        &["location: http://other.example/", "content-location: //other.example/"],
        "",
    ));
    client.ask("POST", "/x", &[]).await;
    assert_eq!(client.get(&[]).await.body, "one", "of another origin nobody voids anything");
}

#[tokio::test]
async fn tags_and_urls_are_purged_and_tenants_share_nothing() {
    let client = Client::new();
    for (path, tags) in [("/a", "cache-tag: one, two"), ("/b", "surrogate-key: two three"), ("/c", "x: two")]
    {
        client.will_answer(answer_of(200, &["cache-control: max-age=60", tags], "kept"));
        client.ask("GET", path, &[]).await;
    }
    assert_eq!(client.scope.stats().objects, 3);
    assert_eq!(client.scope.purge(Purge::Tag("one")), 1);
    assert_eq!(client.scope.purge(Purge::Tag("two")), 1);
    assert_eq!(client.scope.purge(Purge::Url("http://example.org/none")), 0);
    assert_eq!(client.scope.purge(Purge::Url("http://example.org/c")), 1);
    assert_eq!(client.scope.stats().objects, 0);
    // The same URL of another tenant is another answer.
    client.will_answer(answer_of(200, &["cache-control: max-age=60"], "mine"));
    client.get(&[]).await;
    let other = Client::new();
    other.will_answer(answer_of(200, &["cache-control: max-age=60"], "yours"));
    assert_eq!(other.get(&[]).await.body, "yours");
    assert_eq!(client.get(&[]).await.body, "mine");
}

#[tokio::test]
async fn only_if_cached_asks_nobody() {
    let client = Client::new();
    assert_eq!(client.get(&["cache-control: only-if-cached"]).await.status, 504);
    assert_eq!(client.server.asked(), 0);
    client.will_answer(answer_of(200, &["cache-control: max-age=60"], "one"));
    client.get(&[]).await;
    assert_eq!(client.get(&["cache-control: only-if-cached"]).await.body, "one");
}

fn in_pieces(pieces: Vec<Result<&'static str, &'static str>>, lines: &[&str]) -> Response<Body> {
    let frames = pieces.into_iter().map(|piece| {
        piece.map(|text| Frame::data(Bytes::from(text))).map_err(|error| BodyError(error.into()))
    });
    let mut response = Response::new(Body::stream(StreamBody::new(stream::iter(frames.collect::<Vec<_>>()))));
    *response.headers_mut() = fields_of(lines);
    response
}

#[tokio::test]
async fn what_breaks_off_is_not_kept() {
    for lines in [&["cache-control: max-age=60", "content-length: 6"][..], &["cache-control: max-age=60"]] {
        let client = Client::new();
        client.will_answer(in_pieces(vec![Ok("abc"), Err("gone")], lines));
        assert_eq!(client.get(&[]).await.body, "broken");
        client.will_answer(answer_of(200, &["cache-control: max-age=60"], "whole"));
        assert_eq!(client.get(&[]).await.body, "whole", "{lines:?}");
    }
    // Shorter than it was said to be.
    let client = Client::new();
    client.will_answer(in_pieces(vec![Ok("abc")], &["cache-control: max-age=60", "content-length: 6"]));
    assert_eq!(client.get(&[]).await.body, "broken");
    assert_eq!(client.scope.stats().objects, 0);
    // Of unknown length, and whole.
    let client = Client::new();
    client.will_answer(in_pieces(vec![Ok("abc"), Ok("def")], &["cache-control: max-age=60"]));
    assert_eq!(client.get(&[]).await.body, "abcdef");
    assert_eq!(client.get(&[]).await.body, "abcdef");
    assert_eq!(client.server.asked(), 1);
}

#[tokio::test]
async fn many_who_ask_at_once_are_one_for_the_server() {
    let client = Client::new();
    let (release, released) = tokio::sync::watch::channel(false);
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let origin: Origin = Arc::new(move |_| {
        let (mut released, counted) = (released.clone(), counted.clone());
        Box::pin(async move {
            counted.fetch_add(1, Relaxed);
            released.wait_for(|released| *released).await.unwrap();
            in_pieces(vec![Ok("abc"), Ok("def")], &["cache-control: max-age=60", "content-length: 6"])
        })
    });
    let all: Vec<_> = (0..50)
        .map(|_| {
            let (scope, origin) = (client.scope.clone(), origin.clone());
            tokio::spawn(async move {
                let request = Request::get("http://example.org/").body(Body::Empty).unwrap();
                let response = fetch(&scope, clock::now, request, &origin).await;
                response.into_body().collect().await.unwrap().to_bytes()
            })
        })
        .collect();
    // One of them goes away, whoever it is: nobody else suffers.
    tokio::task::yield_now().await;
    release.send_replace(true);
    for one in all {
        assert_eq!(one.await.unwrap(), "abcdef");
    }
    assert_eq!(asked.load(Relaxed), 1);
    let stats = client.scope.stats();
    assert_eq!((stats.hits, stats.misses, stats.objects), (49, 1, 1));
}

#[tokio::test]
async fn a_leader_that_goes_away_leaves_the_answer_to_the_others() {
    let client = Client::new();
    client.will_answer(in_pieces(
        vec![Ok("abc"), Ok("def")],
        &["cache-control: max-age=60", "content-length: 6"],
    ));
    let request = Request::get("http://example.org/").body(Body::Empty).unwrap();
    let response = fetch(&client.scope, clock::now, request, &client.server.origin()).await;
    drop(response);
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.get(&[]).await.body, "abcdef");
    assert_eq!(client.server.asked(), 1);
}

#[tokio::test]
async fn room_is_never_exceeded() {
    let client = Client { scope: Scope::new(100_000), server: Server::default() };
    let content: &'static str = "x".repeat(10_000).leak();
    for number in 0..200 {
        client.will_answer(answer_of(200, &["cache-control: max-age=60"], content));
        client.ask("GET", &format!("/{number}"), &[]).await;
        assert!(client.scope.stats().bytes <= 100_000, "{:?}", client.scope.stats());
    }
    assert!(client.scope.stats().objects >= 5, "{:?}", client.scope.stats());
    let large: &'static str = "x".repeat(50_000).leak();
    for _ in 0..2 {
        client.will_answer(answer_of(200, &["cache-control: max-age=60"], large));
        assert_eq!(client.ask("GET", "/large", &[]).await.body.len(), 50_000);
    }
    let nothing = Client { scope: Scope::new(0), server: Server::default() };
    assert!(!nothing.scope.keeps());
}
