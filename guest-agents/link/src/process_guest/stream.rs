//! One stream of a process guest.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vamos_vsock::StreamId;

use super::Attached;

/// A stream to a service, over the rings of a [`ProcessGuest`](super::ProcessGuest).
#[derive(Debug)]
pub struct ProcessStream {
    guest: Arc<Attached>,
    id: StreamId,
}

impl ProcessStream {
    pub(super) fn new(guest: Arc<Attached>, id: StreamId) -> Self {
        Self { guest, id }
    }
}

impl AsyncRead for ProcessStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut driver = self.guest.lock();
        let read = ready!(driver.mux.poll_read(self.id, cx, buf.initialize_unfilled()))?;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ProcessStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(ready!(self.guest.lock().mux.poll_write(self.id, cx, buf))?))
    }

    /// Hands what was written to the device, as far as there is credit; never waits.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.guest.lock().pump();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut driver = self.guest.lock();
        let shut = driver.mux.poll_shutdown(self.id, cx);
        driver.pump();
        Poll::Ready(Ok(ready!(shut)?))
    }
}

impl Drop for ProcessStream {
    fn drop(&mut self) {
        let mut driver = self.guest.lock();
        driver.mux.close(self.id);
        driver.pump();
    }
}
