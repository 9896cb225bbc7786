//! A strict HTTP server for what faces the world: a request has one meaning or it is refused, and nothing of a refused
//! one reaches a [`Handler`].
//!
//! HTTP/1.1 and HTTP/2 are the same to a handler. [`serve`] and its like serve one connection, [`accept`](accept::accept)
//! all of a thread, over TLS if they are to. Knows nothing of routes or guests.

pub mod accept;
pub mod limits;
pub mod tls;

mod date;
mod fields;
mod h1;
mod h2;
mod io;
mod target;

use std::net::SocketAddr;

use bytes::BytesMut;
use http::{HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use vamos_http_message::Body;

use self::io::Reread;
use limits::Limits;

pub use h1::refusal::Refusal;

/// What answers requests.
pub trait Handler {
    /// Answers one. Dropped when the client goes away.
    fn handle(&self, request: Request<Body>) -> impl Future<Output = Response<Body>>;

    /// A request was refused, and answered, before it was one.
    fn refused(&self, peer: &Peer, refusal: Refusal);
}

/// Who is at the other end; each request has it among its extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it speaks TLS, and so whether `https` is the scheme of its requests.
    pub tls: bool,
}

/// Among the extensions of a request that wishes the connection to become something else (RFC 9110, section 7.8), such as
/// `websocket`. If it is answered with 101, the request's body is what comes on the connection then, and the answer's
/// what goes.
///
/// In HTTP/2 it is a stream that becomes something else (RFC 8441); the request looks the same, but has no
/// `Sec-WebSocket-Key`, which only HTTP/1.1 has.
#[derive(Debug, Clone)]
pub struct Upgrade(pub HeaderValue);

/// Serves one connection of HTTP/1.1 to its end. Once `draining` is true, it takes no further request.
pub async fn serve<IO, H>(io: IO, peer: Peer, handler: &H, limits: &Limits, draining: watch::Receiver<bool>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    h1::connection::serve(io, peer, handler, limits, draining).await;
}

/// Serves one connection of HTTP/2 to its end. Once `draining` is true, the client is asked to go, and what it has asked
/// is answered.
///
/// A request that RFC 9113 calls malformed ends its stream with `PROTOCOL_ERROR`; what HTTP/1.1 would refuse too is
/// answered. A client that floods us ends its connection with `ENHANCE_YOUR_CALM`.
pub async fn serve_h2<IO, H>(
    io: IO,
    peer: Peer,
    handler: &H,
    limits: &Limits,
    draining: watch::Receiver<bool>,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    h2::connection::serve(io, peer, handler, limits, draining).await;
}

/// Serves one connection, of HTTP/2 if it begins so (RFC 9113, section 3.3), else of HTTP/1.1.
pub async fn serve_any<IO, H>(
    mut io: IO,
    peer: Peer,
    handler: &H,
    limits: &Limits,
    mut draining: watch::Receiver<bool>,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let first = tokio::select! {
        first = timeout(limits.idle_max, io::some(&mut io)) => first,
        _ = draining.wait_for(|draining| *draining) => return,
    };
    let Ok(Ok(first)) = first else { return };
    if first.is_empty() {
        return;
    }
    let mut first = BytesMut::from(first);
    // One that does not go on is told so by HTTP/1.1.
    let _ = timeout(limits.head_within, async {
        while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
            match io::some(&mut io).await {
                Ok(more) if !more.is_empty() => first.extend_from_slice(&more),
                _ => break,
            }
        }
    })
    .await;
    let is_h2 = first.starts_with(PREFACE);
    let io = Reread::new(first.freeze(), io);
    // A connection takes the memory that its version needs, not what the other would.
    if is_h2 {
        Box::pin(serve_h2(io, peer, handler, limits, draining)).await;
    } else {
        Box::pin(serve(io, peer, handler, limits, draining)).await;
    }
}

/// What a client of HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
