//! HTTP/1.1 as bytes on a socket: what is answered, what is refused, and what follows a refusal.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vamos_http_message::Body;
use vamos_http_server::limits::Limits;
use vamos_http_server::{Handler, Peer, Refusal, Upgrade, serve};

/// Answers with what it was asked, and remembers it.
#[derive(Clone, Default)]
struct Echo {
    asked: Arc<Mutex<Vec<String>>>,
    refused: Arc<Mutex<Vec<Refusal>>>,
}

impl Handler for Echo {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        assert!(request.extensions().get::<Peer>().is_some());
        self.asked.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
        if let Some(Upgrade(protocol)) = request.extensions().get::<Upgrade>().cloned() {
            if protocol == "h2c" {
                return Response::new("stays".into());
            }
            let mut response = Response::new(request.into_body());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            return response;
        }
        match request.uri().path() {
            "/ignore" => Response::new("ignored".into()),
            "/stream" => Response::new(request.into_body()),
            "/empty" => {
                let mut response = Response::new("a body it must not have".into());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            "/short" => {
                let cut = vec![Ok(Frame::data(Bytes::from_static(b"abc"))), Err("gone")];
                Response::new(Body::stream(http_body_util::StreamBody::new(Frames(cut))))
            }
            "/trailers" => {
                let mut fields = HeaderMap::new();
                fields.insert("x-sum", "1".parse().unwrap());
                let frames = vec![Ok(Frame::data(Bytes::from_static(b"abc"))), Ok(Frame::trailers(fields))];
                Response::new(Body::stream(http_body_util::StreamBody::new(Frames(frames))))
            }
            _ => {
                let method = request.method().clone();
                let Ok(body) = request.into_body().collect().await else {
                    return Response::new("broken".into());
                };
                let body = body.to_bytes();
                let text =
                    if body.is_empty() { method.to_string() } else { format!("{method} {}", body.len()) };
                let mut response = Response::new(Body::from(text));
                response.headers_mut().insert(CONTENT_TYPE, "text/plain".parse().unwrap());
                response
            }
        }
    }

    fn refused(&self, _peer: &Peer, refusal: Refusal) {
        self.refused.lock().unwrap().push(refusal);
    }
}

struct Frames(Vec<Result<Frame<Bytes>, &'static str>>);

impl futures::Stream for Frames {
    type Item = Result<Frame<Bytes>, &'static str>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready((!self.0.is_empty()).then(|| self.0.remove(0)))
    }
}

struct Served {
    client: DuplexStream,
    echo: Echo,
    draining: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

fn served(limits: Limits) -> Served {
    let (client, server) = duplex(1 << 20);
    let (echo, (draining, watched)) = (Echo::default(), watch::channel(false));
    let handler = echo.clone();
    let serving = tokio::spawn(async move {
        let peer = Peer { address: "192.0.2.1:1234".parse().unwrap(), tls: false };
        serve(server, peer, &handler, &limits, watched).await;
    });
    Served { client, echo, draining, serving }
}

/// What is answered to `wire` until the connection ends, which it must.
async fn answers(wire: &[u8]) -> (String, Echo) {
    let mut served = served(Limits::default());
    served.client.write_all(wire).await.unwrap();
    served.client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    served.client.read_to_end(&mut answer).await.unwrap();
    served.serving.await.unwrap();
    (String::from_utf8_lossy(&answer).into_owned(), served.echo)
}

fn statuses(answer: &str) -> Vec<&str> {
    answer.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect()
}

#[tokio::test]
async fn requests_are_answered_in_their_order() {
    let wire = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\
        \r\nPOST /x HTTP/1.1\r\nhost: a\r\nContent-Length: 5\r\n\r\nhello\
        PUT /y HTTP/1.1\r\nHost:a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
        HEAD /z HTTP/1.1\r\nHost: a\r\n\r\n\
        GET /empty HTTP/1.1\r\nHost: a\r\n\r\n\
        OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n\
        GET /never HTTP/1.1\r\nHost: a\r\n\r\n";
    let (answer, echo) = answers(wire).await;
    assert_eq!(statuses(&answer), ["200", "200", "200", "200", "204", "200"], "{answer}");
    assert!(
        answer.contains("\r\n\r\nGETHTTP")
            && answer.contains("\r\n\r\nPOST 5HTTP")
            && answer.contains("PUT 3HTTP")
    );
    assert!(answer.ends_with("connection: close\r\n\r\nOPTIONS"), "{answer}");
    assert!(!answer.contains("must not have"));
    let asked = [
        "GET http://a/",
        "POST http://a/x",
        "PUT http://a/y",
        "HEAD http://a/z",
        "GET http://a/empty",
        "OPTIONS http://a",
    ];
    let got = echo.asked.lock().unwrap();
    assert!(got.iter().zip(asked).all(|(got, asked)| got.starts_with(asked)) && got.len() == 6, "{got:?}");
}

/// A request line, `Host: a`, the given fields and rest, and another request behind it, which must not be answered.
async fn refused(line: &str, fields: &str, rest: &str) -> (String, Echo) {
    let wire = format!("{line}\r\nHost: a\r\n{fields}\r\n{rest}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    answers(wire.as_bytes()).await
}

#[tokio::test]
async fn h54_what_has_two_meanings_has_none() {
    let post = "POST / HTTP/1.1";
    let bodies: &[(&str, &str)] = &[
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
        ("Content-Length: 5, 5\r\n", "hello"),
        ("Content-Length: +5\r\n", "hello"),
        ("Content-Length: -5\r\n", "hello"),
        ("Content-Length: 0x5\r\n", "hello"),
        ("Content-Length: 5 5\r\n", "hello"),
        ("Content-Length:\r\n", ""),
        ("Content-Length: 18446744073709551616\r\n", ""),
        ("Content-Length: 5a\r\n", "hello"),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: identity, chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: identity\r\n", ""),
        ("Transfer-Encoding:\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"),
        ("X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("X: y\r\n\tz\r\n", ""),
        ("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("X: y\r\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("X: \0\r\n", ""),
        ("X: a\x01b\r\n", ""),
        (": empty\r\n", ""),
        ("no colon\r\n", ""),
        ("X y: z\r\n", ""),
        ("X(y): z\r\n", ""),
        ("Host: b\r\n", ""),
        ("Host: a\r\n", ""),
        ("Expect: 200-ok\r\n", ""),
        ("Transfer-Encoding: chunked\r\n", "x\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabcd\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "11111111111111111\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 3\r\n\r\n"),
    ];
    for (fields, rest) in bodies {
        let (answer, echo) = refused(post, fields, rest).await;
        let status = statuses(&answer);
        assert!(
            status.len() == 1 && matches!(status[0], "400" | "417" | "501"),
            "{fields:?} {rest:?}: {answer}"
        );
        assert!(answer.contains("connection: close"), "{fields:?}");
        assert!(!echo.asked.lock().unwrap().iter().any(|asked| asked.contains("smuggled")), "{fields:?}");
        assert_eq!(echo.refused.lock().unwrap().len(), 1, "{fields:?}");
        let seen = echo.asked.lock().unwrap().len();
        assert!(seen == 0 || *fields == "Transfer-Encoding: chunked\r\n", "{fields:?} reached the handler");
    }
    for line in [
        "GET  / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /",
        "GET\t/ HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET / HTTP/01.1",
        "G@T / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /../x HTTP/1.1",
        "GET //x HTTP/1.1",
        "GET http://b/ HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "",
        "\r\n\r\nGET / HTTP/1.1",
    ] {
        let (answer, echo) = refused(line, "", "").await;
        assert_eq!(statuses(&answer), ["400"], "{line:?}: {answer}");
        assert!(echo.asked.lock().unwrap().is_empty(), "{line:?}");
    }
    for (line, status) in [
        ("GET / HTTP/2.0", "505"),
        ("GET / HTTP/1.2", "505"),
        ("CONNECT a:443 HTTP/1.1", "501"),
        (&format!("GET /{} HTTP/1.1", "x".repeat(9000)), "414"),
    ] {
        let (answer, echo) = refused(line, "", "").await;
        assert_eq!(statuses(&answer), [status], "{line:?}");
        assert!(echo.asked.lock().unwrap().is_empty());
    }
    let (answer, _) = refused("GET / HTTP/1.1", &"X: y\r\n".repeat(101), "").await;
    assert_eq!(statuses(&answer), ["431"]);
    let (answer, _) = refused("GET / HTTP/1.1", &format!("X: {}\r\n", "y".repeat(33 << 10)), "").await;
    assert_eq!(statuses(&answer), ["431"]);
    for wire in [
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let (answer, echo) = answers(wire.as_bytes()).await;
        assert_eq!(statuses(&answer), ["400"], "{wire:?}");
        assert!(echo.asked.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn h55_nothing_behind_an_upgrade_is_read_before_its_answer() {
    let wish = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade:";
    let (answer, echo) =
        answers(format!("{wish} websocket\r\n\r\nGET /in HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
    assert!(
        answer
            .starts_with("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
    );
    assert!(answer.ends_with("\r\n\r\nGET /in HTTP/1.1\r\nHost: a\r\n\r\n"), "echoed, not asked: {answer}");
    assert_eq!(echo.asked.lock().unwrap().len(), 1);
    let (answer, echo) =
        answers(format!("{wish} h2c\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
    assert_eq!(statuses(&answer), ["200", "200"], "refused, the connection stays what it was");
    assert_eq!(echo.asked.lock().unwrap().len(), 2);
    // One with a body, or two wishes, is none.
    for fields in [
        "Upgrade: websocket, h2c\r\n",
        "Upgrade: a\r\nUpgrade: b\r\n",
        "Upgrade: websocket\r\nContent-Length: 1\r\n",
    ] {
        let wire = format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{fields}\r\nz");
        let (answer, _) = answers(wire.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{fields}");
    }
}

#[tokio::test]
async fn h56_a_body_that_nobody_reads_is_drained_or_ends_the_connection() {
    let small =
        "POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(statuses(&answers(small.as_bytes()).await.0), ["200", "200"]);
    let large = "x".repeat(300 << 10);
    let large = format!(
        "POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{large}GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        large.len()
    );
    let (answer, echo) = answers(large.as_bytes()).await;
    assert_eq!(statuses(&answer), ["200"]);
    assert_eq!(echo.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_body_is_asked_for_when_it_is_wanted() {
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n";
    let mut wants = served(Limits::default());
    wants.client.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    wants.client.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    wants.client.write_all(b"abc").await.unwrap();
    wants.client.shutdown().await.unwrap();
    let mut answer = String::new();
    wants.client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("POST 3"), "{answer}");
    // Nobody reads it: nobody says that it is wanted, and nobody knows whether it comes.
    let (answer, _) = answers(head.replace("/x", "/ignore").as_bytes()).await;
    assert_eq!(statuses(&answer), ["200"]);
    assert!(answer.contains("connection: close"));
}

#[tokio::test]
async fn answers_that_come_bit_by_bit_end_as_they_should() {
    let ask = |path: &str, version: &str, more: &str| {
        format!("POST {path} HTTP/{version}\r\nHost: a\r\n{more}Content-Length: 3\r\n\r\nabc")
    };
    let (answer, _) = answers(ask("/trailers", "1.1", "TE: trailers\r\n").as_bytes()).await;
    assert!(answer.ends_with("\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"), "{answer}");
    let (answer, _) = answers(ask("/trailers", "1.1", "").as_bytes()).await;
    assert!(answer.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{answer}");
    let (answer, _) = answers(ask("/trailers", "1.0", "").as_bytes()).await;
    assert!(answer.contains("connection: close") && answer.ends_with("\r\n\r\nabc"), "{answer}");
    let (answer, _) = answers(ask("/stream", "1.1", "").as_bytes()).await;
    assert!(answer.contains("content-length: 3") && answer.ends_with("\r\n\r\nabc"), "{answer}");
    let (answer, _) = answers(ask("/short", "1.1", "").as_bytes()).await;
    assert!(!answer.ends_with("0\r\n\r\n"), "what is cut must not look whole: {answer}");
}

#[tokio::test(start_paused = true)]
async fn slow_clients_are_let_go() {
    let limits = Limits::default();
    let mut idle = served(limits);
    let mut slow = served(limits);
    slow.client.write_all(b"GET / HT").await.unwrap();
    let mut stuck = served(limits);
    stuck.client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na").await.unwrap();
    let mut answer = String::new();
    slow.client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(statuses(&answer), ["408"]);
    answer.clear();
    stuck.client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(statuses(&answer), ["408"]);
    answer.clear();
    idle.client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "");
    // One that does not read its answer.
    let limits = Limits { write_pause_max: Duration::from_secs(1), ..limits };
    let (mut client, server) = duplex(16);
    let (_draining, watched) = watch::channel(false);
    let serving = tokio::spawn(async move {
        let peer = Peer { address: "192.0.2.1:1".parse().unwrap(), tls: false };
        serve(server, peer, &Echo::default(), &limits, watched).await;
    });
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_drain_lets_what_was_asked_finish() {
    let mut idle = served(Limits::default());
    let mut busy = served(Limits::default());
    busy.client.write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na").await.unwrap();
    while busy.echo.asked.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    idle.draining.send_replace(true);
    busy.draining.send_replace(true);
    let mut answer = String::new();
    idle.client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "");
    busy.client.write_all(b"bc").await.unwrap();
    busy.client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("POST 3"), "{answer}");
}

mod cuts {
    use proptest::prelude::*;

    use super::*;

    const WIRES: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nA: b\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\nGET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(wire in 0..WIRES.len(), cuts in proptest::collection::vec(1_usize..200, 1..6)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let wire = WIRES[wire].as_bytes();
                let (whole, _) = answers(wire).await;
                let mut served = served(Limits::default());
                let mut from = 0;
                for cut in cuts {
                    let to = (from + cut).min(wire.len());
                    if served.client.write_all(&wire[from..to]).await.is_err() { break }
                    from = to;
                    for _ in 0..4 { tokio::task::yield_now().await; }
                }
                let _ = served.client.write_all(&wire[from..]).await;
                let _ = served.client.shutdown().await;
                let mut answer = Vec::new();
                served.client.read_to_end(&mut answer).await.unwrap();
                assert_eq!(statuses(&whole), statuses(&String::from_utf8_lossy(&answer)));
            });
        }
    }
}
