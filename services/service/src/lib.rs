//! What a service is to the platform: something that serves one [`ByteStream`] at a time for one VM.
//!
//! A service knows nothing of vsock, rings or guests' memory; it is tested on a socket pair. Who the
//! client is comes from [`VmContext`] alone, which the cell fills in from its own identity.

pub mod metered;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vamos_proto::id::VmId;

/// The VM a stream belongs to.
#[derive(Debug, Clone)]
pub struct VmContext {
    /// The operator's name of the VM.
    pub vm: VmId,
    /// Changes when the VM is cloned or restored from a snapshot.
    pub generation: u64,
}

/// What a stream must be able to do.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One ordered stream of bytes in each direction, with backpressure and half-close: what a guest
/// opened, without saying how it got here.
pub struct ByteStream(Box<dyn Io>);

impl ByteStream {
    /// A stream over anything that reads and writes.
    pub fn new(io: impl Io + 'static) -> Self {
        Self(Box::new(io))
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteStream")
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Why a service ended a stream. The guest sees a reset; the operator sees this, in the log.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The stream broke.
    #[error("read or write a stream")]
    Stream(#[from] io::Error),
    /// The guest broke the protocol.
    #[error("guest broke the {protocol} protocol: {reason}")]
    Protocol {
        /// Which protocol.
        protocol: &'static str,
        /// What it did.
        reason: String,
    },
    /// The guest asked for more than its binding allows.
    #[error("quota exceeded: {0}")]
    Quota(String),
}

/// A future that serves one stream to its end.
pub type Serving = Pin<Box<dyn Future<Output = Result<(), ServiceError>> + Send>>;

/// Something the host offers on a vsock port.
pub trait Service: Send + Sync + 'static {
    /// Kind of the service, as in a binding: `sql`, `http`, ...
    fn kind(&self) -> &'static str;

    /// Serves one stream until either side ends it. Must not block the thread it is polled on.
    fn serve(self: Arc<Self>, stream: ByteStream, vm: Arc<VmContext>) -> Serving;
}
