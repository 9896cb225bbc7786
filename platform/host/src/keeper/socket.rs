//! A vhost-user socket with its messages and descriptors, for tokio.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;
use vamos_sandbox::passing;

use super::message::{HEADER_BYTES, Header, Violation};
use crate::limits::VHOST_USER_MESSAGE_MAX;

/// A message with everything that came along.
#[derive(Debug)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// Its body, as long as the header says.
    pub body: Vec<u8>,
    /// Every descriptor that was attached to any of its bytes.
    pub fds: Vec<OwnedFd>,
}

/// Why a connection cannot be used any further.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It broke.
    #[error("use a vhost-user socket")]
    Io(#[from] io::Error),
    /// The peer does not speak the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// It ended within a message.
    #[error("hung up in the middle of a message")]
    Truncated,
    /// It started a message and did not end it.
    #[error("did not finish a message within {VHOST_USER_MESSAGE_MAX:?}")]
    Unfinished,
    /// It did not reply.
    #[error("did not reply within {0:?}")]
    Silent(Duration),
}

/// One end of a vhost-user connection.
#[derive(Debug)]
pub struct MessageSocket(UnixStream);

impl AsFd for MessageSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl MessageSocket {
    /// A socket that was just accepted.
    pub fn accepted(socket: UnixStream) -> Self {
        Self(socket)
    }

    /// Takes over a connected socket.
    ///
    /// # Errors
    /// If it cannot be made non-blocking or registered with the runtime.
    pub fn new(socket: net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(UnixStream::from_std(socket)?))
    }

    /// Whether the peer has closed its end.
    pub fn has_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// The next message, which stays in the socket until it is [taken](Self::take), with duplicates of its
    /// descriptors; `None` when the peer hung up between two. There is no limit on waiting for its first byte,
    /// and one on the rest. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// [`SocketError`]: the connection is lost.
    pub async fn peek(&self) -> Result<Option<Message>, SocketError> {
        let mut wire = [0; HEADER_BYTES];
        passing::look_from(&self.0, 0)?;
        let first = self.look(&mut wire, &mut Vec::new()).await?;
        if first == 0 {
            return Ok(None);
        }
        let whole = async {
            self.look_whole(&mut wire[first..], &mut Vec::new()).await?;
            let header = Header::decode(&wire);
            // From its first byte again: each look at a byte duplicates the descriptors that came with it.
            let (mut message, mut fds) = (vec![0; HEADER_BYTES + header.body_length()?], Vec::new());
            passing::look_from(&self.0, 0)?;
            self.look_whole(&mut message, &mut fds).await?;
            if !fds.is_empty() && !self.owns_descriptors(message.len())? {
                fds.clear();
            }
            let body = message.split_off(HEADER_BYTES);
            Ok::<_, SocketError>(Message { header, body, fds })
        };
        let message = timeout(VHOST_USER_MESSAGE_MAX, whole).await.map_err(|_| SocketError::Unfinished)??;
        Ok(Some(message))
    }

    /// Whether the descriptors that were seen with the first `bytes` bytes came with those. Who looks is shown
    /// the descriptors of what comes next when these bytes have none; but a look never goes on to further
    /// bytes behind some that have descriptors.
    fn owns_descriptors(&self, bytes: usize) -> io::Result<bool> {
        if rustix::io::ioctl_fionread(&self.0)? <= bytes as u64 {
            return Ok(true);
        }
        let mut further = vec![0; bytes + 1];
        passing::look_from(&self.0, 0)?;
        let count = passing::peek(&self.0, &mut further, &mut Vec::new())?;
        passing::look_from(&self.0, i32::try_from(bytes).unwrap_or(i32::MAX))?;
        Ok(count <= bytes)
    }

    async fn look_whole(&self, mut buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<(), SocketError> {
        while !buffer.is_empty() {
            match self.look(buffer, fds).await? {
                0 => return Err(SocketError::Truncated),
                count => buffer = &mut buffer[count..],
            }
        }
        Ok(())
    }

    async fn look(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        self.0.async_io(Interest::READABLE, || passing::peek(&self.0, buffer, fds)).await
    }

    /// Takes what was looked at last out of the socket: the message that was just peeked, or the rest of one
    /// of which a predecessor of this process has taken a part.
    ///
    /// # Errors
    /// [`SocketError`]: the connection is lost.
    pub fn take(&self) -> Result<(), SocketError> {
        let mut left = passing::looked_at(&self.0)?;
        let mut waste = vec![0; left];
        while left > 0 {
            match passing::receive(&self.0, &mut waste[..left], &mut Vec::new())? {
                0 => return Err(SocketError::Truncated),
                count => left -= count,
            }
        }
        Ok(())
    }

    /// Takes everything that has arrived.
    ///
    /// # Errors
    /// [`SocketError`]: the connection is lost.
    pub fn drain(&self) -> Result<(), SocketError> {
        let mut waste = [0; 4096];
        while self.has_arrived()? && passing::receive(&self.0, &mut waste, &mut Vec::new())? > 0 {}
        Ok(())
    }

    /// Whether there is something to take.
    ///
    /// # Errors
    /// As `ioctl(2)`.
    pub fn has_arrived(&self) -> io::Result<bool> {
        Ok(rustix::io::ioctl_fionread(&self.0)? > 0)
    }

    /// Whether the peer has not read all that was written.
    ///
    /// # Errors
    /// As `ioctl(2)`.
    pub fn has_unread(&self) -> io::Result<bool> {
        passing::has_unread(&self.0)
    }

    /// Sends a whole message, the descriptors with its first byte.
    ///
    /// # Errors
    /// [`SocketError`]: the connection is lost.
    pub async fn write(
        &self,
        header: Header,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), SocketError> {
        let mut wire = header.encode().to_vec();
        wire.extend_from_slice(body);
        let whole = async {
            let (mut sent, mut fds) = (0, fds);
            while sent < wire.len() {
                let piece = || passing::send(&self.0, &wire[sent..], fds);
                sent += self.0.async_io(Interest::WRITABLE, piece).await?;
                fds = &[];
            }
            Ok(())
        };
        timeout(VHOST_USER_MESSAGE_MAX, whole).await.map_err(|_| SocketError::Unfinished)?
    }
}
