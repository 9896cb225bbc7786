//! Accepting connections of the control plane so that nothing ends the loop: not a lack of descriptors, not a
//! client that vanishes, not too many of them.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::unfold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tonic::transport::server::Connected;
use tracing::warn;

use crate::limits::{ACCEPT_PAUSE, CONTROL_CONNECTIONS_MAX};

/// What accepts connections.
pub(super) trait Listen: Send + 'static {
    /// A connection.
    type Stream: Send;
    /// Waits for one.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listen for UnixListener {
    type Stream = UnixStream;
    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

impl Listen for TcpListener {
    type Stream = TcpStream;
    async fn accept(&self) -> io::Result<TcpStream> {
        Ok(TcpListener::accept(self).await?.0)
    }
}

/// The connections a listener accepts, for ever; no more than [`CONTROL_CONNECTIONS_MAX`] at once, the others
/// wait to be accepted.
pub(super) fn connections<L: Listen + Sync>(
    listener: L,
) -> impl Stream<Item = Result<Connection<L::Stream>, Infallible>> {
    let places = Arc::new(Semaphore::new(CONTROL_CONNECTIONS_MAX));
    unfold((listener, places), |(listener, places)| async {
        // The semaphore is never closed.
        let place = places.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok(stream) => return Some((Ok(Connection { stream, _place: place }), (listener, places))),
                Err(error) => {
                    warn!(%error, "cannot accept a client of the control plane now");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// A connection and its place among the [`CONTROL_CONNECTIONS_MAX`].
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    _place: OwnedSemaphorePermit,
}

impl<S: Connected> Connected for Connection<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
