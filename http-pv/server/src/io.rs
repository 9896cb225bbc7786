//! Connections: one whose first bytes were read already, and how one is ended.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use crate::limits::{LEAVE_WITHIN_MAX, READ_BYTES};

/// A connection of which something was read and is to be read again.
pub(crate) struct Reread<IO> {
    first: Bytes,
    io: IO,
}

impl<IO> Reread<IO> {
    pub(crate) fn new(first: Bytes, io: IO) -> Self {
        Self { first, io }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Reread<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let length = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..length]);
        self.first.advance(length);
        if self.first.is_empty() {
            // The memory is not needed any more.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Reread<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Says that nothing more is written, and reads on for a little: to close while something has come that was not read
/// would take from the client what was written last (RFC 9112, section 9.6).
pub(crate) async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO, bytes_max: usize) {
    let reading = async {
        // It may be gone.
        let _ = io.shutdown().await;
        let mut left = bytes_max;
        while let Ok(piece) = some(io).await {
            left = left.saturating_sub(piece.len());
            if piece.is_empty() || left == 0 {
                return;
            }
        }
    };
    let _ = timeout(LEAVE_WITHIN_MAX, reading).await;
}

/// Reads what has come, up to [`READ_BYTES`]; nothing of it if the connection has ended.
pub(crate) async fn some<IO: AsyncRead + Unpin>(io: &mut IO) -> io::Result<Bytes> {
    std::future::poll_fn(|cx| {
        // On the stack, and only for as long as there is something to read: a connection that waits has no buffer.
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut piece = ReadBuf::uninit(&mut space);
        Pin::new(&mut *io).poll_read(cx, &mut piece).map_ok(|()| Bytes::copy_from_slice(piece.filled()))
    })
    .await
}
