//! The host's end of a stream, as a service sees it: reads and writes the table of streams, and
//! leaves the rings to the ring task.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vamos_vsock::StreamId;

use crate::transport::Streams;

/// See the module. Dropping it closes the stream.
pub(crate) struct DeviceStream {
    streams: Arc<Streams>,
    id: StreamId,
}

impl DeviceStream {
    pub(crate) fn new(streams: Arc<Streams>, id: StreamId) -> Self {
        Self { streams, id }
    }
}

impl Drop for DeviceStream {
    fn drop(&mut self) {
        self.streams.lock().close(self.id);
    }
}

impl AsyncRead for DeviceStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut streams = self.streams.lock();
        let size = streams.read_size(self.id).min(buf.remaining());
        let polled = streams.poll_read(self.id, cx, buf.initialize_unfilled_to(size));
        polled.map(|outcome| Ok(outcome.map(|bytes| buf.advance(bytes))?))
    }
}

impl AsyncWrite for DeviceStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.streams.lock().poll_write(self.id, cx, buf).map_err(Into::into)
    }

    /// Always ready: everything written during one turn of the services leaves together, at once.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.streams.lock().poll_shutdown(self.id, cx).map_err(Into::into)
    }
}
