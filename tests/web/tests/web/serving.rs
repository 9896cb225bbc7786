//! What clients are answered, and what the guest's server is asked.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vamos_proto::control::{PurgeRequest, RemoveRouteRequest, purge_request};
use vamos_proto::edge::{Route, Target};

use crate::support::{Web, text};

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_in_and_answers_come_out() {
    let web = Web::start().await;
    let client = web.client().await;
    assert_eq!(client.get("/").await, (StatusCode::OK, "hello".to_owned()));
    assert_eq!(client.get("/none").await.0, StatusCode::NOT_FOUND);
    let request = Request::get("/about?a=b")
        .header("host", "example.org")
        .header("x-forwarded-for", "192.0.2.9")
        .header("connection", "x-secret")
        .header("x-secret", "1");
    let said = text(client.send(request.body(String::new()).unwrap()).await.unwrap()).await;
    assert!(said.starts_with("GET /about?a=b\n"), "{said}");
    for expected in ["host: example.org", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http"] {
        assert!(said.contains(expected), "{said}");
    }
    assert!(!said.contains("192.0.2.9") && !said.contains("x-secret"), "{said}");
    let sent = "x".repeat(1 << 20);
    let request = Request::post("/echo").header("host", "example.org").body(sent.clone()).unwrap();
    assert_eq!(text(client.send(request).await.unwrap()).await, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_goes_through_to_the_guest() {
    let web = Web::start().await;
    let client = web.client().await;
    let request = Request::get("/chat")
        .header("host", "example.org")
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13");
    let mut response = client.send(request.body(String::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    for word in ["hello", "again"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, word.to_ascii_uppercase().as_bytes());
    }
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_change_while_clients_are_served() {
    let web = Web::start().await;
    let client = web.client().await;
    let gone = Route {
        host: "other.example".into(),
        prefix: "/".into(),
        targets: vec![Target { vm: "gone".into(), binding: "site".into(), weight: 1 }],
        ..Route::default()
    };
    web.control().set_route(gone).await.unwrap();
    let request = || Request::get("/").header("host", "other.example").body(String::new()).unwrap();
    let begun = std::time::Instant::now();
    let response = client.send(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["vamos-reason"], "vm-not-there");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(client.get("/").await.0, StatusCode::OK, "another route is not disturbed");
    let other = RemoveRouteRequest { host: "other.example".into(), prefix: "/".into() };
    web.control().remove_route(other.clone()).await.unwrap();
    assert_eq!(client.send(request()).await.unwrap().status(), StatusCode::OK, "the default takes it");
    assert!(web.control().remove_route(other.clone()).await.is_err());
    let only = Route {
        host: "safe.example".into(),
        prefix: "/".into(),
        targets: vec![Target { vm: "web".into(), binding: "site".into(), weight: 1 }],
        https_only: true,
        request_bytes_max: 10,
        ..Route::default()
    };
    web.control().set_route(only.clone()).await.unwrap();
    let request = Request::get("/a?b").header("host", "safe.example:8080").body(String::new()).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
    assert_eq!(response.headers()["location"], "https://safe.example/a?b");
    web.control().set_route(Route { https_only: false, ..only }).await.unwrap();
    let asked = web.server.asked.load(Relaxed);
    let request = Request::post("/echo").header("host", "safe.example").body("x".repeat(11)).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(web.server.asked.load(Relaxed), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_logged_and_counted() {
    let web = Web::start().await;
    let client = web.client().await;
    client.get("/big").await;
    for wrong in ["GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "GET /\\x HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut raw = TcpStream::connect(client.address).await.unwrap();
        raw.write_all(wrong.as_bytes()).await.unwrap();
        let mut refused = String::new();
        raw.read_to_string(&mut refused).await.unwrap();
        assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    }
    let stats = web.stats().await;
    assert_eq!(
        (stats.malformed, stats.targets.iter().map(|target| target.requests).sum::<u64>()),
        (2, 1),
        "{stats:?}"
    );
    assert!(web.target("web").await.latency_p50_us > 0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let log = std::fs::read_to_string(web.path("state/access.log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let big = lines.iter().find(|line| line["path"] == "/big").unwrap();
    assert_eq!((&big["status"], &big["bytes"], &big["vm"]), (&200.into(), &(8 << 20).into(), &"web".into()));
    assert_eq!((&big["client"], &big["complete"]), (&"127.0.0.1".into(), &true.into()));
    assert_eq!(lines.iter().filter(|line| line["status"] == 400).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_costs_the_guest_nothing_until_it_is_purged() {
    let web = Web::start().await;
    let route = Route {
        host: "*".into(),
        prefix: "/".into(),
        targets: vec![Target { vm: "web".into(), binding: "site".into(), weight: 1 }],
        cache_bytes: 1 << 20,
        ..Route::default()
    };
    web.control().set_route(route).await.unwrap();
    let client = web.client().await;
    let (_, first) = client.get("/cached").await;
    let before = web.transitions().await;
    for _ in 0..100 {
        assert_eq!(client.get("/cached").await.1, first);
    }
    assert_eq!(web.transitions().await, before, "a hit is no transition");
    let stats = web.target("web").await;
    assert_eq!((stats.cache_hits, stats.cache_misses, stats.cached_objects), (100, 1, 1), "{stats:?}");
    let purge = |what| PurgeRequest { vm: "web".into(), service: String::new(), what: Some(what) };
    let mut last = first;
    for what in [
        purge_request::What::Url("http://example.org/cached".into()),
        purge_request::What::Tag("pages".into()),
        purge_request::What::All(true),
    ] {
        web.control().purge(purge(what)).await.unwrap();
        let (_, next) = client.get("/cached").await;
        assert_ne!(next, last);
        assert_eq!(client.get("/cached").await.1, next);
        last = next;
    }
    web.control().purge(purge(purge_request::What::Tag("none".into()))).await.unwrap();
    assert_eq!(client.get("/cached").await.1, last);
    let nothing = PurgeRequest { vm: "web".into(), service: String::new(), what: None };
    assert!(web.control().purge(nothing).await.is_err());
}

/// Most transitions of a request whose client waits for it alone: the request's and the answer's.
const TRANSITIONS_ALONE_MAX: f64 = 2.0;

/// The same of many clients at once, who share them.
const TRANSITIONS_SHARED_MAX: f64 = 0.5;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_costs_two_transitions_and_less_when_there_are_many() {
    const REQUESTS: u64 = 320;
    let web = Web::start().await;
    let client = web.client().await;
    client.get("/").await;
    let before = web.transitions().await;
    for _ in 0..REQUESTS {
        client.get("/").await;
    }
    let alone = (web.transitions().await - before) as f64 / REQUESTS as f64;
    let before = web.transitions().await;
    let all = (0..64).map(|_| {
        tokio::spawn(async move {
            for _ in 0..20 {
                assert_eq!(client.get("/").await.0, StatusCode::OK);
            }
        })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    let shared = (web.transitions().await - before) as f64 / 1280.0;
    println!("transitions a request: {alone:.3} alone, {shared:.3} among 64");
    assert!(alone <= TRANSITIONS_ALONE_MAX, "{alone} transitions a request");
    assert!(shared <= TRANSITIONS_SHARED_MAX, "{shared} transitions a request of 64 clients");
}
