//! A guest, or a client, that does not keep to the rules: others do not notice.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vamos_link::{Channel, Stream};
use vamos_proto::id::VsockPort;

use crate::support::{Client, Web};

/// Longest that a request to the good guest may take beside all this.
const UNDISTURBED_MAX: Duration = Duration::from_secs(1);

fn to_evil(path: &str) -> Request<String> {
    Request::get(path).header("host", "evil.example").body(String::new()).unwrap()
}

async fn undisturbed(client: Client) {
    let begun = Instant::now();
    assert_eq!(client.get("/").await, (StatusCode::OK, "hello".to_owned()));
    assert!(begun.elapsed() < UNDISTURBED_MAX, "{:?}", begun.elapsed());
}

/// A stream that the edge has taken.
async fn stream(channel: &Channel) -> Stream {
    channel.open(VsockPort::FIRST_BINDING).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_sends_garbage_harms_itself() {
    let web = Web::start().await;
    let (client, guest) = (web.client().await, web.attach("evil").await);
    let settings: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let goaway: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let headers_of_nothing: &[u8] = &[0, 0, 1, 1, 5, 0, 0, 0, 9, 0x88];
    for garbage in [
        &b"HTTP/1.1 200 OK\r\n\r\n"[..],
        &[0xff; 4096],
        &[&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..], &[0; 64]].concat(),
        &[settings, headers_of_nothing].concat(),
        &[settings, goaway].concat(),
        &[settings, settings, settings].concat(),
        b"",
    ] {
        let mut bad = stream(&guest).await;
        bad.write_all(garbage).await.unwrap();
        bad.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        undisturbed(client).await;
        drop(bad);
    }
    let response = client.send(to_evil("/")).await.unwrap();
    assert!(response.status().is_server_error(), "{}", response.status());
    assert!(response.headers().contains_key("vamos-reason"));
    undisturbed(client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_answers_wrongly_late_or_never_is_alone_with_it() {
    let web = Web::start().await;
    let (client, guest) = (web.client().await, web.attach("evil").await);
    let good = stream(&guest).await;
    tokio::spawn(async move {
        let answer = service_fn(|request: Request<Incoming>| async move {
            let frames = |pieces: Vec<Result<&'static str, std::io::Error>>| {
                let frames = pieces.into_iter().map(|piece| piece.map(|text| Frame::data(Bytes::from(text))));
                StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>())).boxed_unsync()
            };
            let whole = |text: &'static str| {
                Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
            };
            let mut response = Response::new(whole("fine"));
            match request.uri().path() {
                "/never" => std::future::pending().await,
                "/breaks" => {
                    *response.body_mut() =
                        frames(vec![Ok("some"), Err(std::io::ErrorKind::BrokenPipe.into())])
                }
                "/head" => {
                    let long = http::HeaderValue::from_str(&"x".repeat(16_000)).unwrap();
                    for number in 0..8 {
                        let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
                        response.headers_mut().insert(name, long.clone());
                    }
                }
                "/claims" => {
                    for (name, value) in
                        [("transfer-encoding", "chunked"), ("connection", "close"), ("keep-alive", "x")]
                    {
                        // What HTTP/2 forbids, the library takes out or refuses.
                        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
                    }
                }
                _ => {}
            }
            Ok::<_, Infallible>(response)
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(good), answer).await;
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.send(to_evil("/")).await.unwrap().status(), StatusCode::OK);
    let never: Vec<_> =
        (0..50).map(|_| tokio::spawn(async move { client.send(to_evil("/never")).await })).collect();
    undisturbed(client).await;
    let broken = client.send(to_evil("/breaks")).await;
    // It must not look whole, however far it came.
    let looks_whole = match broken {
        Ok(response) => response.status() == StatusCode::OK && response.into_body().collect().await.is_ok(),
        Err(_) => false,
    };
    assert!(!looks_whole);
    let head = client.send(to_evil("/head")).await.unwrap();
    assert!(head.status().is_server_error(), "{}", head.status());
    let claims = client.send(to_evil("/claims")).await.unwrap();
    assert!(!claims.headers().contains_key("keep-alive"), "{claims:?}");
    undisturbed(client).await;
    never.iter().for_each(|one| one.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_nobodys_trouble() {
    let web = Web::start().await;
    let client = web.client().await;
    let mut slow = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(client.address).await.unwrap();
        let begun = match number % 3 {
            0 => "GET / HTT",
            1 => "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx",
            // Asks for much and reads nothing.
            _ => "GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
        };
        stream.write_all(begun.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    for _ in 0..20 {
        undisturbed(client).await;
    }
    // One that is there when it matters is served.
    let mut first = slow.swap_remove(0);
    first.write_all(b"P/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    first.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}
