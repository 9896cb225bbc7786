//! A strict HTTP server for what faces the world: a request has one meaning or it is refused, and nothing of a refused
//! one reaches a [`Handler`].
//!
//! Serves one connection at a time; whoever accepts it decides on which thread. Knows nothing of routes or guests.

pub mod limits;

mod h1;
mod target;
pub mod tls;

use std::net::SocketAddr;

use http::{HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use vamos_http_message::Body;

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
#[derive(Debug, Clone)]
pub struct Upgrade(pub HeaderValue);

/// Serves one connection to its end. Once `draining` is true, it takes no further request.
pub async fn serve<IO, H>(io: IO, peer: Peer, handler: &H, limits: &Limits, draining: watch::Receiver<bool>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    h1::connection::serve(io, peer, handler, limits, draining).await;
}
