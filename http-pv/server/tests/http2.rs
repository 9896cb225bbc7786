//! HTTP/2 as clients speak it that others wrote: bodies, trailers, WebSocket, drain.

mod wire;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::DuplexStream;
use vamos_http_server::limits::Limits;
use wire::{
    Client, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, WINDOW, frame, get, post, setting,
};

/// Takes the connection out of `client`, for another to speak on it.
fn taken(client: &mut Client) -> DuplexStream {
    std::mem::replace(&mut client.io, tokio::io::duplex(1).0)
}

/// The client of the `h2` crate.
async fn speaking(client: &mut Client) -> SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(4 << 20);
    let (sender, connection) = builder.handshake(taken(client)).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

fn asking(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://a{path}")).body(()).unwrap()
}

/// Sends all of `data` as the windows allow.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, ends: bool) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        let piece = data.split_to(room.min(data.len()));
        let last = data.is_empty();
        stream.send_data(piece, ends && last).unwrap();
    }
}

async fn whole(answer: ResponseFuture) -> (Response<()>, BytesMut, Option<HeaderMap>) {
    let (head, mut body) = answer.await.unwrap().into_parts();
    let mut content = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        content.extend_from_slice(&data);
    }
    (Response::from_parts(head, ()), content, body.trailers().await.unwrap())
}

#[tokio::test]
async fn hyper_s_client_is_served() {
    let mut client = Client::new(Limits::default());
    let io = TokioIo::new(taken(&mut client));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let asked = (0..100).map(|at| {
        let request =
            Request::post("http://example.org/x").body(Full::new(Bytes::from(vec![b'x'; at]))).unwrap();
        sender.send_request(request)
    });
    for (at, answer) in join_all(asked).await.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
        assert!(answer.headers().contains_key("date"));
        let said = answer.headers()["content-length"].clone();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, format!("POST {at} 0"));
        assert_eq!(said, body.len().to_string());
    }
    assert_eq!(client.echo.asked.lock().unwrap()[0], "POST http://example.org/x");
    drop(sender);
    client.serving.await.unwrap();
}

#[tokio::test]
async fn http_1_is_served_where_http_2_would_be() {
    let mut client = Client::new(Limits::default());
    let io = TokioIo::new(taken(&mut client));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let request = Request::get("/x").header("host", "a").body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.version(), Version::HTTP_11);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "GET 0 0");
    }
}

#[tokio::test]
async fn large_bodies_pass_both_ways_at_once() {
    let mut client = Client::new(Limits::default());
    let sender = speaking(&mut client).await;
    let streams = (0..4_u8).map(|at| {
        let mut sender = sender.clone();
        async move {
            let content: Bytes =
                (0..8 << 20).map(|byte: u32| (byte % 251) as u8 ^ at).collect::<Vec<_>>().into();
            let (answer, mut body) = sender.send_request(asking(Method::POST, "/stream"), false).unwrap();
            let sending = send(&mut body, content.clone(), true);
            let ((), (head, echoed, _)) = tokio::join!(sending, whole(answer));
            assert_eq!(head.status(), 200);
            assert!(echoed == content);
        }
    });
    join_all(streams).await;
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let mut client = Client::new(Limits::default());
    let mut sender = speaking(&mut client).await;
    let (answer, mut body) = sender.send_request(asking(Method::POST, "/x"), false).unwrap();
    body.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let mut fields = HeaderMap::new();
    fields.insert("x-sum", "1".parse().unwrap());
    body.send_trailers(fields).unwrap();
    assert_eq!(whole(answer).await.1, "POST 3 1");
    let (answer, _) = sender.send_request(asking(Method::GET, "/trailers"), true).unwrap();
    let (_, body, trailers) = whole(answer).await;
    let trailers = trailers.unwrap();
    assert_eq!(body, "abc");
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers.len(), 1, "what is the connection's does not pass");
}

#[tokio::test]
async fn answers_end_as_they_should() {
    let mut client = Client::new(Limits::default());
    let mut sender = speaking(&mut client).await;
    for (method, path, status, length, body) in [
        (Method::GET, "/full?5", 200, Some("5"), "xxxxx"),
        (Method::HEAD, "/full?5", 200, None, ""),
        (Method::GET, "/empty", 204, None, ""),
        (Method::GET, "/full?0", 200, Some("0"), ""),
        (Method::GET, "/pieces?3", 200, None, "piecepiecepiece"),
        (Method::GET, "/pieces?0", 200, None, ""),
    ] {
        let (answer, _) = sender.send_request(asking(method.clone(), path), true).unwrap();
        let (head, content, _) = whole(answer).await;
        let said = head.headers().get("content-length").map(|length| length.to_str().unwrap());
        assert_eq!((head.status().as_u16(), said), (status, length), "{method} {path}");
        assert_eq!(content, body, "{method} {path}");
    }
    // What is cut does not look whole.
    let (answer, _) = sender.send_request(asking(Method::GET, "/short"), true).unwrap();
    let reason = match answer.await {
        Err(error) => error.reason(),
        Ok(answer) => {
            let mut body = answer.into_body();
            let mut reason = None;
            while let Some(data) = body.data().await {
                reason = data.err().and_then(|error| error.reason());
            }
            reason
        }
    };
    assert_eq!(reason, Some(Reason::INTERNAL_ERROR));
    // A body that nobody reads is not asked for any further, and the answer comes.
    let (answer, mut body) = sender.send_request(asking(Method::POST, "/ignore"), false).unwrap();
    let (_, content, _) = whole(answer).await;
    assert_eq!(content, "ignored");
    assert_eq!(std::future::poll_fn(|cx| body.poll_reset(cx)).await.unwrap(), Reason::NO_ERROR);
}

#[tokio::test]
async fn a_body_is_asked_for_when_it_is_wanted() {
    let mut client = Client::new(Limits::default());
    let mut sender = speaking(&mut client).await;
    let mut request = asking(Method::POST, "/x");
    request.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (mut answer, mut body) = sender.send_request(request, false).unwrap();
    let go_on = std::future::poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!(go_on.status(), StatusCode::CONTINUE);
    send(&mut body, Bytes::from_static(b"abc"), true).await;
    assert_eq!(whole(answer).await.1, "POST 3 0");
}

fn connecting(protocol: &'static str, path: &str) -> Request<()> {
    let mut request = asking(Method::CONNECT, path);
    request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
    request
}

async fn next(body: &mut RecvStream) -> Bytes {
    let data = body.data().await.unwrap().unwrap();
    body.flow_control().release_capacity(data.len()).unwrap();
    data
}

#[tokio::test]
async fn a_stream_becomes_a_websocket() {
    let mut client = Client::new(Limits::default());
    let mut sender = speaking(&mut client).await;
    // The server has said that it may: its settings came with the answer to this.
    let (answer, _) = sender.send_request(asking(Method::GET, "/x"), true).unwrap();
    whole(answer).await;
    assert!(sender.is_extended_connect_protocol_enabled());
    let (answer, mut to) = sender.send_request(connecting("websocket", "/chat?a"), false).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("content-length"));
    let mut from = answer.into_body();
    for text in ["one", "two", "three"] {
        to.send_data(Bytes::from_static(text.as_bytes()), false).unwrap();
        assert_eq!(next(&mut from).await, text);
    }
    to.send_data(Bytes::from_static(b"last"), true).unwrap();
    assert_eq!(next(&mut from).await, "last");
    assert!(from.data().await.is_none_or(|data| data.unwrap().is_empty()));
    assert_eq!(client.echo.asked.lock().unwrap()[1], "GET http://a/chat?a");
    // A handler that does not know the protocol must not look as if it did.
    let (answer, _to) = sender.send_request(connecting("other", "/ignore"), false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 501);
}

#[tokio::test]
async fn a_whole_body_takes_as_few_frames_as_it_can() {
    let mut client = Client::new(Limits::default());
    client.begin().await;
    client.say(&[get(1, "/full?60000"), get(3, "/pieces?4000"), get(5, "/full?10")].concat()).await;
    let (mut sizes, mut ended) = ([vec![], vec![], vec![]], 0);
    while ended < 3 {
        let came = client.hear_of(DATA).await;
        sizes[came.stream as usize / 2].push(came.payload.len());
        ended += u32::from(came.flags & END_STREAM);
        let length = came.payload.len() as u32;
        if length > 0 {
            client.say(&frame(WINDOW, 0, 0, &length.to_be_bytes())).await;
        }
    }
    assert_eq!(sizes[0], [16_384, 16_384, 16_384, 10_848]);
    assert_eq!(sizes[1].iter().sum::<usize>(), 20_000);
    assert!(sizes[1].len() <= 3, "pieces of five bytes are sent together: {:?}", sizes[1]);
    assert_eq!(sizes[2], [10], "the last frame of content is the end");
}

#[tokio::test]
async fn windows_are_kept_to() {
    let mut client = Client::new(Limits::default());
    client.say(&[PREFACE, &setting(4, 3), &get(1, "/full?8")].concat()).await;
    assert_eq!(client.hear_of(DATA).await.payload, b"xxx");
    client.say(&frame(WINDOW, 0, 1, &1_u32.to_be_bytes())).await;
    assert_eq!(client.hear_of(DATA).await.payload, b"x");
    // A window may become less than nothing (section 6.9.2).
    client
        .say(&[setting(4, 0), frame(WINDOW, 0, 1, &3_u32.to_be_bytes()), frame(PING, 0, 0, &[1; 8])].concat())
        .await;
    loop {
        let came = client.hear().await.unwrap();
        assert_ne!(came.kind, DATA);
        if came.kind == PING {
            break;
        }
    }
    client.say(&frame(WINDOW, 0, 1, &4_u32.to_be_bytes())).await;
    let mut left = 4;
    while left > 0 {
        left -= client.hear_of(DATA).await.payload.len();
    }
}

#[tokio::test]
async fn a_body_that_nobody_reads_holds_up_its_client_only() {
    let mut client = Client::new(Limits::default());
    let sender = speaking(&mut client).await;
    let (_answer, mut body) = sender.clone().send_request(asking(Method::POST, "/hang"), false).unwrap();
    let stuck = send(&mut body, vec![0; 1 << 20].into(), true);
    assert!(tokio::time::timeout(Duration::from_millis(100), stuck).await.is_err());
    let (answer, mut body) = sender.clone().send_request(asking(Method::POST, "/x"), false).unwrap();
    send(&mut body, vec![0; 1 << 20].into(), true).await;
    assert_eq!(whole(answer).await.1, format!("POST {} 0", 1 << 20));
}

#[tokio::test]
async fn a_client_that_goes_ends_what_it_asked() {
    let mut client = Client::new(Limits::default());
    let mut sender = speaking(&mut client).await;
    let (answer, mut one) = sender.send_request(asking(Method::GET, "/hang"), true).unwrap();
    let (other, _two) = sender.send_request(asking(Method::GET, "/hang"), true).unwrap();
    client.asked(2).await;
    one.send_reset(Reason::CANCEL);
    drop(answer);
    while client.echo.busy.load(Relaxed) == 2 {
        tokio::task::yield_now().await;
    }
    drop((sender, other, one, _two));
    client.serving.await.unwrap();
    assert_eq!(client.echo.busy.load(Relaxed), 0);
}

#[tokio::test]
async fn a_drain_lets_what_was_asked_finish() {
    let mut client = Client::begun().await;
    client.say(&post(1, "/x", &[])).await;
    client.asked(1).await;
    client.draining.send_replace(true);
    let going = client.hear_of(GOAWAY).await;
    assert_eq!((going.number(0), going.number(4)), (u32::MAX >> 1, 0));
    // What was on its way is heard, too.
    client.say(&get(3, "/y")).await;
    let ping = client.hear_of(PING).await;
    client.say(&frame(PING, 1, 0, &ping.payload)).await;
    let mut last = None;
    let mut answers = 0;
    let content = frame(DATA, END_STREAM, 1, b"abc");
    client.say(&content).await;
    while let Some(came) = client.hear().await {
        answers += u32::from(came.kind == HEADERS && came.flags & END_HEADERS != 0);
        if came.kind == GOAWAY {
            last = Some((came.number(0), came.number(4)));
        }
    }
    assert_eq!(answers, 2);
    assert_eq!(last, Some((3, 0)), "what was not heard may be asked elsewhere");
    drop(client.io);
    client.serving.await.unwrap();
}

#[tokio::test]
async fn a_drain_does_not_wait_for_who_is_silent() {
    let mut client = Client::begun().await;
    client.hear().await;
    let before = std::time::Instant::now();
    client.draining.send_replace(true);
    assert_eq!(client.ending().await, Some(0));
    assert!(before.elapsed() < Duration::from_secs(4));
}
