//! One connection: requests one after the other, in the order they came.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf, split};
use tokio::sync::watch;
use tokio::time::timeout;
use vamos_http_message::Body;

use super::answer::{Asked, Output};
use super::content::{Broken, Reader, Sender, pair};
use super::head::{self, Framing, Head};
use super::input::Input;
use super::refusal::{Refusal, refused};
use crate::limits::Limits;
use crate::{Handler, Peer, Upgrade};

/// What becomes of the connection after a request.
enum Next {
    Request,
    Close,
}

struct Connection<'a, IO, H> {
    input: Input<ReadHalf<IO>>,
    output: Output<WriteHalf<IO>>,
    peer: Peer,
    handler: &'a H,
    limits: &'a Limits,
    draining: watch::Receiver<bool>,
}

pub(crate) async fn serve<IO, H>(
    io: IO,
    peer: Peer,
    handler: &H,
    limits: &Limits,
    draining: watch::Receiver<bool>,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let (source, sink) = split(io);
    let (input, output) = (Input::new(source), Output::new(sink, limits.write_pause_max));
    let mut connection = Connection { input, output, peer, handler, limits, draining };
    // A client that goes away is no news.
    while let Ok(Next::Request) = connection.exchange().await {}
    connection.output.shut_down().await;
}

impl<IO, H> Connection<'_, IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    async fn exchange(&mut self) -> io::Result<Next> {
        let head = match self.head().await? {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(Next::Close),
            Err(refusal) => return self.refuse(refusal).await,
        };
        let Head { mut request, framing, keep_alive, expects_continue, upgrade } = head;
        let asked = Asked {
            is_head: Asked::is_head(request.method()),
            version: request.version(),
            trailers: request.headers().get_all(http::header::TE).iter().any(|te| {
                te.to_str().is_ok_and(|te| te.split(',').any(|te| te.trim().eq_ignore_ascii_case("trailers")))
            }),
            keep_alive: keep_alive && !*self.draining.borrow(),
        };
        request.extensions_mut().insert(self.peer.clone());
        if let Some(protocol) = upgrade {
            request.extensions_mut().insert(Upgrade(protocol.clone()));
            return self.perhaps_switch(request, &protocol, asked).await;
        }
        let Some(length) = known(framing) else {
            return self.with_body(request, framing, None, expects_continue, asked).await;
        };
        if length > 0 {
            return self.with_body(request, framing, Some(length), expects_continue, asked).await;
        }
        let response = self.handler.handle(request.map(|()| Body::Empty)).await;
        Ok(if self.output.answer(response, asked).await? { Next::Request } else { Next::Close })
    }

    /// The next head, `None` if the client has no more to ask.
    async fn head(&mut self) -> io::Result<Result<Option<Head>, Refusal>> {
        let (mut looked, mut passed_over) = (0, false);
        self.input.rest();
        if self.input.bytes.is_empty() {
            let more = tokio::select! {
                more = timeout(self.limits.idle_max, self.input.more()) => more,
                // What has been asked already is answered; nothing has.
                _ = self.draining.wait_for(|draining| *draining) => return Ok(Ok(None)),
            };
            if !more.unwrap_or(Ok(false))? {
                return Ok(Ok(None));
            }
        }
        let late = tokio::time::Instant::now() + self.limits.head_within;
        loop {
            // One empty line before a request is nothing (RFC 9112, section 2.2).
            if !passed_over && self.input.bytes.starts_with(b"\r\n") {
                let _ = self.input.bytes.split_to(2);
                passed_over = true;
            }
            let half_a_line = !passed_over && self.input.bytes == b"\r"[..];
            if let Some(end) = head::end(&self.input.bytes, looked) {
                if end > self.limits.head_bytes_max {
                    return Ok(Err(too_large()));
                }
                let bytes = self.input.bytes.split_to(end);
                return Ok(head::parse(&bytes, self.peer.tls).map(Some));
            }
            if self.input.bytes.len() > self.limits.head_bytes_max {
                return Ok(Err(too_large()));
            }
            if !half_a_line && let Some(refusal) = head::hopeless(&self.input.bytes) {
                return Ok(Err(refusal));
            }
            looked = if half_a_line { 0 } else { self.input.bytes.len() };
            match tokio::time::timeout_at(late, self.input.more()).await {
                Ok(Ok(true)) => {}
                // Half a head is nobody's request.
                Ok(Ok(false)) => return Ok(Ok(None)),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(Err(refused(StatusCode::REQUEST_TIMEOUT, "the head does not come"))),
            }
        }
    }

    async fn refuse(&mut self, refusal: Refusal) -> io::Result<Next> {
        self.handler.refused(&self.peer, refusal);
        let mut response = Response::new(Body::from(format!("{refusal}\n")));
        *response.status_mut() = refusal.status;
        let asked =
            Asked { is_head: false, version: http::Version::HTTP_11, trailers: false, keep_alive: false };
        self.output.answer(response, asked).await?;
        self.linger().await;
        Ok(Next::Close)
    }

    /// Reads on for a little, so that what the client still sends does not take our answer from it (RFC 9112, section
    /// 9.6).
    async fn linger(&mut self) {
        self.output.shut_down().await;
        let mut left = self.limits.drained_bytes_max;
        let mut reading = async || {
            while left > 0 && matches!(self.input.more().await, Ok(true)) {
                left = left.saturating_sub(self.input.bytes.len());
                self.input.bytes.clear();
            }
        };
        let _ = timeout(Duration::from_secs(2), reading()).await;
    }

    /// A request whose body comes while it is handled, and perhaps while it is answered.
    async fn with_body(
        &mut self,
        request: Request<()>,
        framing: Framing,
        length: Option<u64>,
        expects_continue: bool,
        asked: Asked,
    ) -> io::Result<Next> {
        let mut reader = Reader::new(framing);
        let (sender, body) = pair(length);
        let pause_max = self.limits.body_pause_max;
        let mut waits = expects_continue;
        let mut pumping = true;
        let response = {
            let mut handling = std::pin::pin!(self.handler.handle(request.map(|()| body)));
            loop {
                tokio::select! {
                    biased;
                    response = &mut handling => break Ok(response),
                    broken = pump(&mut self.input, &mut reader, &sender, pause_max), if !waits && pumping => {
                        pumping = false;
                        match broken {
                            Some(Broken::Gone) => return Err(io::ErrorKind::UnexpectedEof.into()),
                            Some(Broken::Refused(refusal)) => break Err(refusal),
                            None => {}
                        }
                    }
                    () = sender.wanted(), if waits => {
                        waits = false;
                        self.output.go_on().await?;
                    }
                }
            }
        };
        let response = match response {
            Ok(response) => response,
            Err(refusal) => return self.refuse(refusal).await,
        };
        // A body that was never asked for does not come, or comes late: nobody can tell.
        let asked = Asked { keep_alive: asked.keep_alive && !waits, ..asked };
        let keep_alive = {
            let mut answering = std::pin::pin!(self.output.answer(response, asked));
            loop {
                tokio::select! {
                    biased;
                    kept = &mut answering => break kept?,
                    _ = pump(&mut self.input, &mut reader, &sender, pause_max), if !waits && pumping => pumping = false,
                }
            }
        };
        drop(sender);
        if !keep_alive {
            self.linger().await;
            return Ok(Next::Close);
        }
        let drained = reader.drain(&mut self.input, pause_max, self.limits.drained_bytes_max).await;
        Ok(if drained { Next::Request } else { Next::Close })
    }

    /// A request that wishes the connection to become something else. What follows it is looked at once that is known.
    async fn perhaps_switch(
        &mut self,
        request: Request<()>,
        protocol: &http::HeaderValue,
        asked: Asked,
    ) -> io::Result<Next> {
        let (sender, body) = pair(None);
        let response = self.handler.handle(request.map(|()| body)).await;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(if self.output.answer(response, asked).await? { Next::Request } else { Next::Close });
        }
        let (head, mut body) = response.into_parts();
        self.output.switch(head, protocol).await?;
        let (input, output) = (&mut self.input, &mut self.output);
        let inward = async {
            loop {
                if !input.bytes.is_empty() {
                    let piece = input.bytes.split().freeze();
                    sender.send(Ok(Some(Frame::data(piece)))).await;
                }
                if !sender.ready().await {
                    break;
                }
                match input.more().await {
                    Ok(true) => {}
                    Ok(false) => {
                        sender.send(Ok(None)).await;
                        break;
                    }
                    Err(_) => {
                        sender.send(Err(Broken::Gone)).await;
                        break;
                    }
                }
            }
            // The other direction may go on.
            std::future::pending::<()>().await;
        };
        let outward = async {
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let frame = frame.map_err(io::Error::other)?;
                if let Ok(data) = frame.into_data() {
                    output.write(data).await?;
                }
            }
            io::Result::Ok(())
        };
        tokio::select! {
            done = outward => done?,
            () = inward => {}
        }
        Ok(Next::Close)
    }
}

/// Moves the body from the connection to whoever reads it, until its end or its break, which is returned.
async fn pump<R: AsyncRead + Unpin>(
    input: &mut Input<R>,
    reader: &mut Reader,
    sender: &Sender,
    pause_max: Duration,
) -> Option<Broken> {
    loop {
        // Nothing is read that nobody has room for.
        if !sender.ready().await {
            return None;
        }
        match reader.next(input, pause_max).await {
            Ok(Some(frame)) => sender.send(Ok(Some(frame))).await,
            Ok(None) => {
                sender.send(Ok(None)).await;
                return None;
            }
            Err(broken) => {
                sender.send(Err(broken)).await;
                return Some(broken);
            }
        }
    }
}

fn known(framing: Framing) -> Option<u64> {
    match framing {
        Framing::None => Some(0),
        Framing::Length(length) => Some(length),
        Framing::Chunked => None,
    }
}

fn too_large() -> Refusal {
    refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too large")
}
