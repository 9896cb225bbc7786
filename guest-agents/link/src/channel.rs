//! A channel and the streams it opens, whichever way they travel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_vsock::{VsockAddr, VsockStream};
use vamos_proto::id::{GuestCid, VsockPort};

use crate::process_guest::{ProcessGuest, ProcessStream};

/// A way to the host's services.
#[derive(Debug, Clone)]
pub enum Channel {
    /// Through the guest's kernel and the VM's vsock device.
    Vsock,
    /// Through rings of this process's own.
    Process(ProcessGuest),
}

impl Channel {
    /// Opens a stream to the service on `port`.
    ///
    /// # Errors
    /// `ConnectionRefused` or `ConnectionReset` when nothing answers there; others when there is no device.
    pub async fn open(&self, port: VsockPort) -> io::Result<Stream> {
        let stream = match self {
            Channel::Vsock => {
                let host = VsockAddr::new(GuestCid::HOST.0 as u32, port.0);
                Inner::Vsock(VsockStream::connect(host).await?)
            }
            Channel::Process(guest) => Inner::Process(guest.open(port).await?),
        };
        Ok(Stream(stream))
    }
}

/// One ordered stream of bytes in each direction.
///
/// Over a process guest, written bytes leave at the latest when the task yields, and at once on flush.
#[derive(Debug)]
pub struct Stream(Inner);

#[derive(Debug)]
enum Inner {
    Vsock(VsockStream),
    Process(ProcessStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Vsock(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Process(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Inner::Vsock(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Process(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Vsock(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Process(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Vsock(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Process(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
