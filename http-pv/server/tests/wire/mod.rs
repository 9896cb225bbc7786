//! A client that says frames, right ones and wrong ones, and hears frames; and a handler for it to ask.
#![allow(dead_code)]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame as BodyFrame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vamos_http_message::Body;
use vamos_http_server::limits::Limits;
use vamos_http_server::{Handler, Peer, Refusal, Upgrade, serve_any};

pub mod server;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITIZED: u8 = 32;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL: u32 = 1;
pub const FLOW_CONTROL: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE: u32 = 6;
pub const REFUSED: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION: u32 = 9;
pub const CALM: u32 = 11;

/// One frame, as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A block of fields, literal and never indexed (RFC 7541, section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        let mut length = text.len();
        if length < 127 {
            bytes.push(length as u8);
        } else {
            bytes.push(127);
            length -= 127;
            while length >= 128 {
                bytes.push((length % 128 + 128) as u8);
                length /= 128;
            }
            bytes.push(length as u8);
        }
        bytes.extend(text.as_bytes());
    };
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name);
        text(&mut bytes, value);
    }
    bytes
}

/// A request's first fields, and more.
pub fn request<'a>(method: &'a str, path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<u8> {
    let mut fields = vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")];
    fields.extend(more);
    block(&fields)
}

/// A whole request on a stream.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", path, &[]))
}

/// The head of a request with a body.
pub fn post(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", path, more))
}

/// A frame of one setting.
pub fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Came {
    /// Its four bytes from `at`.
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status that a block of fields begins with, the first on a connection.
    pub fn status(&self) -> u16 {
        match self.payload[0] {
            byte @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(byte - 0x88)],
            0x48 => {
                let bits =
                    self.payload[2..].iter().take(3).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
                        << 8;
                let (mut bits, mut status) = (bits, 0);
                for _ in 0..3 {
                    // Digits as of RFC 7541, appendix B.
                    let (digit, length) = match bits >> 27 {
                        short @ 0..=2 => (short, 5),
                        _ => ((bits >> 26) - 0b011001 + 3, 6),
                    };
                    status = status * 10 + digit as u16;
                    bits <<= length;
                }
                status
            }
            other => panic!("a block that begins with {other:#x}"),
        }
    }
}

pub struct Client {
    pub io: DuplexStream,
    pub echo: Echo,
    pub draining: watch::Sender<bool>,
    pub serving: JoinHandle<()>,
}

impl Client {
    /// A connection on which nothing was said yet.
    pub fn new(limits: Limits) -> Self {
        Self::sized(limits, 1 << 20)
    }

    /// The same, with `buffered` bytes in each direction.
    pub fn sized(limits: Limits, buffered: usize) -> Self {
        let (io, server) = duplex(buffered);
        let (echo, (draining, watched)) = (Echo::default(), watch::channel(false));
        let handler = echo.clone();
        let serving = tokio::spawn(async move {
            let peer = Peer { address: "192.0.2.1:1234".parse().unwrap(), tls: false };
            serve_any(server, peer, &handler, &limits, watched).await;
        });
        Self { io, echo, draining, serving }
    }

    /// One that has begun HTTP/2 and agreed to everything.
    pub async fn begun() -> Self {
        let mut client = Self::new(Limits::default());
        client.begin().await;
        client
    }

    pub async fn begin(&mut self) {
        self.say(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, ACK, 0, &[])].concat()).await;
    }

    /// Says something, if it is still listened to.
    pub async fn say(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
    }

    /// The next frame, `None` at the end.
    pub async fn hear(&mut self) -> Option<Came> {
        let mut head = [0; 9];
        let heard = tokio::time::timeout(Duration::from_secs(200), self.io.read_exact(&mut head)).await;
        heard.expect("something is heard").ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.io.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some(Came { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of `kind`.
    pub async fn hear_of(&mut self, kind: u8) -> Came {
        loop {
            let came = self.hear().await.unwrap_or_else(|| panic!("no frame of kind {kind}"));
            if came.kind == kind {
                return came;
            }
        }
    }

    /// Why the connection is ended, which it must be.
    pub async fn ending(&mut self) -> Option<u32> {
        let mut reason = None;
        while let Some(came) = self.hear().await {
            if came.kind == GOAWAY {
                reason = Some(came.number(4));
            }
        }
        reason
    }

    /// Waits until `count` requests have come.
    pub async fn asked(&self, count: usize) {
        while self.echo.asked.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    }
}

/// Answers with what it was asked, and remembers it.
#[derive(Clone, Default)]
pub struct Echo {
    pub asked: Arc<Mutex<Vec<String>>>,
    pub refused: Arc<Mutex<Vec<Refusal>>>,
    /// Requests that are being handled.
    pub busy: Arc<AtomicUsize>,
}

struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Handler for Echo {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        assert!(request.extensions().get::<Peer>().is_some());
        self.asked.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
        self.busy.fetch_add(1, Relaxed);
        let _busy = Busy(self.busy.clone());
        if request.extensions().get::<Upgrade>().is_some_and(|Upgrade(protocol)| protocol == "websocket") {
            let mut response = Response::new(request.into_body());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            return response;
        }
        let number = || request.uri().query().and_then(|query| query.parse().ok()).unwrap_or(0);
        match request.uri().path() {
            "/hang" => std::future::pending().await,
            "/ignore" => Response::new("ignored".into()),
            "/stream" => Response::new(request.into_body()),
            "/full" => Response::new(Bytes::from(vec![b'x'; number()]).into()),
            "/pieces" => {
                let pieces =
                    (0..number()).map(|_| Ok::<_, String>(BodyFrame::data(Bytes::from_static(b"piece"))));
                Response::new(Body::stream(StreamBody::new(futures::stream::iter(pieces))))
            }
            "/short" => {
                let cut = [Ok(BodyFrame::data(Bytes::from_static(b"abc"))), Err("gone")];
                Response::new(Body::stream(StreamBody::new(futures::stream::iter(cut))))
            }
            "/trailers" => {
                let mut fields = HeaderMap::new();
                fields.insert("grpc-status", "0".parse().unwrap());
                fields.insert("connection", "close".parse().unwrap());
                let frames = [BodyFrame::data(Bytes::from_static(b"abc")), BodyFrame::trailers(fields)];
                let frames = frames.map(Ok::<_, String>);
                Response::new(Body::stream(StreamBody::new(futures::stream::iter(frames))))
            }
            "/empty" => {
                let mut response = Response::new("a body it must not have".into());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            _ => {
                let method = request.method().clone();
                let Ok(body) = request.into_body().collect().await else {
                    return Response::new("broken".into());
                };
                let trailers = body.trailers().map_or(0, HeaderMap::len);
                let body = body.to_bytes();
                Response::new(format!("{method} {} {trailers}", body.len()).into())
            }
        }
    }

    fn refused(&self, _peer: &Peer, refusal: Refusal) {
        self.refused.lock().unwrap().push(refusal);
    }
}
