//! What HTTP/2 writes in pieces, a head and what comes with it, goes to the host in one: each write costs a transition.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::WRITE_BYTES_MAX;

/// A stream whose vectored writes are one write each.
pub(crate) struct Whole<IO> {
    stream: IO,
    piece: Vec<u8>,
}

impl<IO> Whole<IO> {
    pub(crate) fn new(stream: IO) -> Self {
        Self { stream, piece: Vec::new() }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Whole<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Whole<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let [only] = bufs {
            return Pin::new(&mut this.stream).poll_write(cx, only);
        }
        this.piece.clear();
        for slice in bufs {
            let room = WRITE_BYTES_MAX - this.piece.len();
            this.piece.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        // What is not taken is offered again.
        Pin::new(&mut this.stream).poll_write(cx, &this.piece)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
