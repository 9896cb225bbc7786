//! A process guest's end of a stream.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vamos_vsock::StreamId;

use super::Attached;

/// An open stream. Dropping it closes it; what was written before still leaves, as long as the
/// guest is attached and its runtime runs: `shutdown().await` makes sure of it.
pub struct ProcessStream {
    guest: Arc<Attached>,
    id: StreamId,
}

impl ProcessStream {
    pub(crate) fn new(guest: Arc<Attached>, id: StreamId) -> Self {
        Self { guest, id }
    }
}

impl fmt::Debug for ProcessStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessStream").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for ProcessStream {
    fn drop(&mut self) {
        self.guest.shared.streams().close(self.id);
    }
}

impl AsyncRead for ProcessStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut streams = self.guest.shared.streams();
        let size = streams.read_size(self.id).min(buf.remaining());
        let polled = streams.poll_read(self.id, cx, buf.initialize_unfilled_to(size));
        polled.map(|outcome| Ok(outcome.map(|bytes| buf.advance(bytes))?))
    }
}

impl AsyncWrite for ProcessStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.guest.shared.streams().poll_write(self.id, cx, buf).map_err(Into::into)
    }

    /// Always ready: everything written during one turn of the tasks leaves together, at once.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.guest.shared.streams().poll_shutdown(self.id, cx).map_err(Into::into)
    }
}
