//! Writing an answer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use vamos_http_message::{Body, hop};

use crate::date;
use crate::limits::COPIED_BODY_BYTES_MAX;

/// The writing half of a connection.
pub(super) struct Output<W> {
    sink: W,
    pause_max: Duration,
}

/// What an answer depends on besides itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// It has no body then, whatever it says.
    pub(super) is_head: bool,
    pub(super) version: Version,
    /// The client hears trailers.
    pub(super) trailers: bool,
    /// Another request may follow.
    pub(super) keep_alive: bool,
}

impl Asked {
    pub(super) fn is_head(method: &Method) -> bool {
        *method == Method::HEAD
    }
}

impl<W: AsyncWrite + Unpin> Output<W> {
    pub(super) fn new(sink: W, pause_max: Duration) -> Self {
        Self { sink, pause_max }
    }

    /// Writes an answer; whether another may follow.
    pub(super) async fn answer(&mut self, response: Response<Body>, asked: Asked) -> io::Result<bool> {
        let (mut head, mut body) = response.into_parts();
        hop::strip(&mut head.headers);
        let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || head.status.is_informational();
        let known = body.size_hint().exact();
        let said = head.headers.remove(CONTENT_LENGTH);
        let delimiter = match known {
            _ if head.status == StatusCode::NO_CONTENT || head.status.is_informational() => Delimiter::None,
            // What a body would have been is the handler's to say.
            _ if asked.is_head || bodiless => said.map_or(Delimiter::None, Delimiter::Said),
            Some(length) => Delimiter::Length(length),
            None if asked.version == Version::HTTP_11 => Delimiter::Chunked,
            None => Delimiter::Close,
        };
        let keep_alive = asked.keep_alive && delimiter != Delimiter::Close;
        let mut wire = BytesMut::with_capacity(512);
        put_head(&mut wire, head.status, &head.headers, &delimiter, keep_alive);
        if asked.is_head || bodiless {
            self.write(wire.freeze()).await?;
            return Ok(keep_alive);
        }
        if let Body::Full(bytes) = body {
            if bytes.len() <= COPIED_BODY_BYTES_MAX {
                wire.extend_from_slice(&bytes);
                self.write(wire.freeze()).await?;
            } else {
                self.write(wire.freeze().chain(bytes)).await?;
            }
            return Ok(keep_alive);
        }
        self.stream(wire, &mut body, &delimiter, asked.trailers).await?;
        Ok(keep_alive)
    }

    /// Writes a body as it comes. One that breaks, or is not as long as was said, ends the connection: it must not look
    /// whole.
    async fn stream(
        &mut self,
        mut wire: BytesMut,
        body: &mut Body,
        delimiter: &Delimiter,
        trailers: bool,
    ) -> io::Result<()> {
        let mut left = match delimiter {
            Delimiter::Length(length) => Some(*length),
            _ => None,
        };
        let mut last = HeaderMap::new();
        loop {
            let mut begun = false;
            let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
                std::task::Poll::Pending if !wire.is_empty() && !begun => {
                    begun = true;
                    // What there is goes out before anything is waited for.
                    std::task::Poll::Ready(None)
                }
                std::task::Poll::Pending => std::task::Poll::Pending,
                std::task::Poll::Ready(frame) => std::task::Poll::Ready(Some(frame)),
            })
            .await;
            let frame = match frame {
                None => {
                    self.write(wire.split().freeze()).await?;
                    continue;
                }
                Some(None) => break,
                Some(Some(frame)) => frame.map_err(io::Error::other)?,
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    last = frame.into_trailers().unwrap_or_default();
                    continue;
                }
            };
            if data.is_empty() {
                continue;
            }
            if let Some(left) = &mut left {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or_else(|| io::Error::other("the answer is longer than it said"))?;
            }
            let chunked = *delimiter == Delimiter::Chunked;
            if chunked {
                wire.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
            }
            let end: &[u8] = if chunked { b"\r\n" } else { b"" };
            if data.len() <= COPIED_BODY_BYTES_MAX {
                wire.extend_from_slice(&data);
                wire.extend_from_slice(end);
            } else {
                self.write(wire.split().freeze().chain(data)).await?;
                wire.extend_from_slice(end);
            }
        }
        if left.is_some_and(|left| left > 0) {
            return Err(io::Error::other("the answer is shorter than it said"));
        }
        if *delimiter == Delimiter::Chunked {
            wire.put_slice(b"0\r\n");
            if trailers {
                hop::strip(&mut last);
                put_fields(&mut wire, &last);
            }
            wire.put_slice(b"\r\n");
        }
        self.write(wire.freeze()).await
    }

    /// Tells the client that its body is wanted.
    pub(super) async fn go_on(&mut self) -> io::Result<()> {
        self.write(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n")).await
    }

    /// The connection becomes something else.
    pub(super) async fn switch(
        &mut self,
        mut head: http::response::Parts,
        protocol: &HeaderValue,
    ) -> io::Result<()> {
        hop::strip(&mut head.headers);
        let mut wire = BytesMut::with_capacity(256);
        wire.put_slice(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ");
        wire.put_slice(protocol.as_bytes());
        wire.put_slice(b"\r\n");
        put_fields(&mut wire, &head.headers);
        wire.put_slice(b"\r\n");
        self.write(wire.freeze()).await
    }

    /// Writes `bytes`, as long as some of them are taken now and then.
    pub(super) async fn write(&mut self, mut bytes: impl Buf) -> io::Result<()> {
        while bytes.has_remaining() {
            let written = timeout(self.pause_max, self.sink.write_buf(&mut bytes)).await;
            if written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        // TLS keeps what it has not sent yet.
        timeout(self.pause_max, self.sink.flush())
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    pub(super) async fn shut_down(&mut self) {
        // It may be gone.
        let _ = timeout(self.pause_max, self.sink.shutdown()).await;
    }
}

/// How the client knows where the body ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Delimiter {
    None,
    Said(HeaderValue),
    Length(u64),
    Chunked,
    Close,
}

fn put_head(
    wire: &mut BytesMut,
    status: StatusCode,
    fields: &HeaderMap,
    delimiter: &Delimiter,
    keep_alive: bool,
) {
    wire.put_slice(b"HTTP/1.1 ");
    wire.put_slice(status.as_str().as_bytes());
    wire.put_slice(b" ");
    wire.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    wire.put_slice(b"\r\n");
    put_fields(wire, fields);
    match delimiter {
        Delimiter::None | Delimiter::Close => {}
        Delimiter::Said(length) => put_field(wire, &CONTENT_LENGTH, length.as_bytes()),
        Delimiter::Length(length) => put_field(wire, &CONTENT_LENGTH, length.to_string().as_bytes()),
        Delimiter::Chunked => wire.put_slice(b"transfer-encoding: chunked\r\n"),
    }
    if !fields.contains_key(DATE) {
        wire.put_slice(b"date: ");
        date::now(|text| wire.put_slice(text.as_bytes()));
        wire.put_slice(b"\r\n");
    }
    if !keep_alive {
        wire.put_slice(b"connection: close\r\n");
    }
    wire.put_slice(b"\r\n");
}

fn put_fields(wire: &mut BytesMut, fields: &HeaderMap) {
    for (name, value) in fields {
        put_field(wire, name, value.as_bytes());
    }
}

fn put_field(wire: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    wire.reserve(name.as_str().len() + value.len() + 4);
    wire.put_slice(name.as_str().as_bytes());
    wire.put_slice(b": ");
    wire.put_slice(value);
    wire.put_slice(b"\r\n");
}
