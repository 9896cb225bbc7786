//! The connector between an edge (hyper's HTTP/2 client) and real servers (hyper's, and bare sockets that misbehave).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{CONNECTION, HOST, HeaderValue, TE, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::net::TcpListener;
use tokio::sync::watch;
use vamos_http_connector::{Forward, REASON, Upstream, serve};
use vamos_http_message::{Body, BodyError};

/// A stream that counts what is written to it, and how often.
struct Counted(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Relaxed);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct Edge {
    sender: SendRequest<Body>,
    writes: Arc<AtomicUsize>,
    drain: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<Result<(), hyper::Error>>,
}

/// An edge joined to the server at `upstream`.
async fn edge(upstream: &str) -> Edge {
    let (host, guest) = duplex(1 << 20);
    let (writes, (drain, drained)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let forward = Forward::new(Upstream::new(upstream, "", "").unwrap());
    let serving = tokio::spawn(serve(Counted(guest, writes.clone()), forward, drained));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(host)).await.unwrap();
    tokio::spawn(connection);
    Edge { sender, writes, drain, serving }
}

fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://example.org{path}")).body(Body::Empty).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

type Answered = Result<Response<Body>, Infallible>;

/// A server that says what it was asked, and echoes bodies.
async fn answers(request: Request<Incoming>) -> Answered {
    let (head, body) = request.into_parts();
    let reply = |body: Body| Ok(Response::new(body));
    match head.uri.path() {
        "/about" => {
            let mut said = format!("{} {} {:?}", head.method, head.uri, head.version);
            for (name, value) in &head.headers {
                said += &format!("\n{name}: {}", value.to_str().unwrap());
            }
            reply(said.into())
        }
        "/echo" => reply(Body::stream(body)),
        "/big" => {
            let pieces = stream::repeat(Bytes::from(vec![b'x'; 64 << 10])).take(512);
            let pieces = pieces.map(|piece| Ok::<_, BodyError>(Frame::data(piece)));
            reply(Body::stream(StreamBody::new(pieces)))
        }
        "/small" => reply(Bytes::from(vec![b'y'; 1024]).into()),
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [Frame::data(Bytes::from("data")), Frame::trailers(trailers)];
            let frames = stream::iter(frames).map(Ok::<_, BodyError>);
            let mut response = Response::new(Body::stream(StreamBody::new(frames)));
            response.headers_mut().insert("trailer", HeaderValue::from_static("grpc-status"));
            Ok(response)
        }
        "/events" => {
            let events = stream::iter(["one", "two"]).enumerate().then(|(at, event)| async move {
                if at > 0 {
                    std::future::pending::<()>().await;
                }
                Ok::<_, BodyError>(Frame::data(Bytes::from(event)))
            });
            let mut response = Response::new(Body::stream(StreamBody::new(events)));
            response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
            Ok(response)
        }
        "/hop" => {
            let mut response = Response::new(Body::from("x"));
            for (name, value) in [("keep-alive", "timeout=9"), ("connection", "x-mine"), ("x-mine", "1")] {
                response.headers_mut().append(name, HeaderValue::from_static(value));
            }
            response.headers_mut().append("vamos-reason", HeaderValue::from_static("claimed"));
            Ok(response)
        }
        _ => {
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok(response)
        }
    }
}

/// A server of HTTP/1.1 on loopback, and how many connections it took.
async fn server() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = connections.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Relaxed);
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answers));
            tokio::spawn(serving);
        }
    });
    (address, connections)
}

/// A server that answers its nth connection with the nth text, however wrong, and closes it.
async fn scripted(script: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answer in script {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_server_sees_an_ordinary_request_and_its_answer_comes_back() {
    let (address, connections) = server().await;
    let mut edge = edge(&format!("http://{address}")).await;
    let mut request = get("/about?a=b");
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
    let said = text(edge.sender.send_request(request).await.unwrap()).await;
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("GET /about?a=b HTTP/1.1"));
    assert!(said.contains("host: example.org") && said.contains("x-forwarded-for: 192.0.2.1"), "{said}");
    assert!(!said.contains("connection"), "{said}");
    let sent = Bytes::from(vec![b'z'; 300 << 10]);
    let pieces: Vec<_> =
        sent.chunks(10_000).map(|piece| Ok::<_, BodyError>(Frame::data(sent.slice_ref(piece)))).collect();
    let request =
        Request::post("http://example.org/echo").body(Body::stream(StreamBody::new(stream::iter(pieces))));
    let response = edge.sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), sent);
    let response = edge.sender.send_request(get("/hop")).await.unwrap();
    assert!(response.headers().iter().all(|(name, _)| ["content-length", "date"].contains(&name.as_str())));
    assert_eq!(edge.sender.send_request(get("/none")).await.unwrap().status(), StatusCode::NOT_FOUND);
    let head = Request::head("http://example.org/small").body(Body::Empty).unwrap();
    assert_eq!(edge.sender.send_request(head).await.unwrap().headers()["content-length"], "1024");
    assert_eq!(connections.load(Relaxed), 1, "one after the other, over one connection");
}

#[tokio::test]
async fn a_small_answer_is_one_write() {
    let (address, _) = server().await;
    let mut edge = edge(&format!("http://{address}")).await;
    text(edge.sender.send_request(get("/small")).await.unwrap()).await;
    let before = edge.writes.load(Relaxed);
    for _ in 0..100 {
        assert_eq!(text(edge.sender.send_request(get("/small")).await.unwrap()).await.len(), 1024);
    }
    let writes = edge.writes.load(Relaxed) - before;
    assert!(writes <= 102, "{writes} writes for 100 answers");
}

#[tokio::test]
async fn large_answers_trailers_and_events_come_as_they_are_made() {
    let (address, _) = server().await;
    let mut edge = edge(&format!("http://{address}")).await;
    let mut body = edge.sender.send_request(get("/big")).await.unwrap().into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(length, 32 << 20);
    let mut request = get("/trailers");
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    let collected = edge.sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    let mut events = edge.sender.send_request(get("/events")).await.unwrap().into_body();
    let first = tokio::time::timeout(Duration::from_secs(5), events.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "one");
}

#[tokio::test]
async fn requests_at_once_have_connections_of_their_own_and_keep_them() {
    let (address, connections) = server().await;
    let edge = edge(&format!("http://{address}")).await;
    for _ in 0..3 {
        let all = (0..32).map(|_| {
            let mut sender = edge.sender.clone();
            async move { text(sender.send_request(get("/small")).await.unwrap()).await.len() }
        });
        assert!(futures::future::join_all(all).await.iter().all(|length| *length == 1024));
    }
    assert!(connections.load(Relaxed) <= 33, "{connections:?}");
}

#[tokio::test]
async fn a_server_that_is_gone_or_answers_nonsense_is_told_from_one_that_answers() {
    const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let address = scripted(&[
        WHOLE,
        WHOLE,
        "",
        "HTTP/1.1 nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
    ])
    .await;
    let mut edge = edge(&format!("http://{address}")).await;
    // A connection that the server closed after its answer costs the next request nothing.
    for _ in 0..2 {
        assert_eq!(text(edge.sender.send_request(get("/")).await.unwrap()).await, "ok");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..3 {
        let response = edge.sender.send_request(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(response.headers()[REASON], "upstream-broke");
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let response = edge.sender.send_request(get("/")).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()[REASON]),
        (StatusCode::SERVICE_UNAVAILABLE, &HeaderValue::from_static("upstream-refused"))
    );
}

#[tokio::test]
async fn a_stream_becomes_a_websocket_when_the_server_agrees() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let upgraded = service_fn(|mut request: Request<Incoming>| async move {
            assert_eq!(
                (request.method(), &request.headers()[UPGRADE]),
                (&Method::GET, &HeaderValue::from_static("websocket"))
            );
            assert!(
                request.headers().contains_key("sec-websocket-key")
                    && request.headers()[HOST] == "example.org"
            );
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                let mut heard = [0; 5];
                stream.read_exact(&mut heard).await.unwrap();
                stream.write_all(&heard.map(|byte| byte.to_ascii_uppercase())).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            let response =
                Response::builder().status(101).header(CONNECTION, "upgrade").header(UPGRADE, "websocket");
            Ok::<_, Infallible>(response.body(String::new()).unwrap())
        });
        let (stream, _) = listener.accept().await.unwrap();
        let server = hyper::server::conn::http1::Builder::new();
        let _ = server.serve_connection(TokioIo::new(stream), upgraded).with_upgrades().await;
    });
    let mut edge = edge(&format!("http://{address}")).await;
    let mut request = Request::connect("http://example.org/chat").body(Body::Empty).unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let mut response = edge.sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"HELLO");
}

#[tokio::test]
async fn a_server_of_http2_is_spoken_to_in_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.serve_connection(TokioIo::new(stream), service_fn(answers)).await
    });
    let mut edge = edge(&format!("h2c://{address}")).await;
    let said = text(edge.sender.send_request(get("/about")).await.unwrap()).await;
    assert!(said.starts_with("GET http://example.org/about HTTP/2.0"), "{said}");
    let collected =
        edge.sender.send_request(get("/trailers")).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn what_is_under_way_is_finished_when_the_guest_ends() {
    let (address, _) = server().await;
    let mut edge = edge(&format!("http://{address}")).await;
    let mut body = edge.sender.send_request(get("/big")).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    edge.drain.send_replace(true);
    let begun = Instant::now();
    assert_eq!(first + body.collect().await.unwrap().to_bytes().len(), 32 << 20);
    edge.serving.await.unwrap().unwrap();
    assert!(edge.sender.send_request(get("/small")).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(10));
}
