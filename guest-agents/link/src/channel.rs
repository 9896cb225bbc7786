//! A way to the host, and a stream opened over it, whichever way it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_vsock::{VsockAddr, VsockStream};
use vamos_proto::id::{GuestCid, VsockPort};

use crate::process::{ProcessGuest, ProcessStream};

/// A way to the host.
#[derive(Debug, Clone)]
pub enum Channel {
    /// The kernel's vsock driver, host CID 2.
    Vsock,
    /// This process is the driver.
    Process(ProcessGuest),
}

impl Channel {
    /// Opens a stream to the service on `port`.
    ///
    /// # Errors
    /// `ConnectionRefused` if nothing is bound there; what the kernel says otherwise.
    pub async fn open(&self, port: VsockPort) -> io::Result<Stream> {
        match self {
            Self::Vsock => {
                let host = VsockAddr::new(GuestCid::HOST.0 as u32, port.0);
                Ok(Stream::Vsock(VsockStream::connect(host).await?))
            }
            Self::Process(guest) => Ok(Stream::Process(guest.open(port).await?)),
        }
    }
}

/// An open stream: ordered bytes both ways, each of which can be ended by itself.
#[derive(Debug)]
pub enum Stream {
    /// Through the kernel.
    Vsock(VsockStream),
    /// Through this process's own rings.
    Process(ProcessStream),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Vsock(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Process(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Vsock(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Process(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Vsock(stream) => Pin::new(stream).poll_flush(cx),
            Self::Process(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Vsock(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Process(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
