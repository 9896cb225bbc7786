//! A VM's link: a socket whose every packet is one message, some with a descriptor.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use prost::Message;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::Interest;
use tokio::net::UnixStream;
use vamos_proto::edge::{OnLink, on_link};
use vamos_sandbox::passing;

use crate::limits::LINK_MESSAGE_BYTES_MAX;

/// Why a link is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It broke.
    #[error("use the link between cell and edge")]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error("decode a message of the link between cell and edge")]
    Malformed(#[from] prost::DecodeError),
}

/// One end of a link, on the runtime it was made on.
#[derive(Debug)]
pub struct LinkSocket(UnixStream);

impl LinkSocket {
    /// The two ends of a new link.
    ///
    /// # Errors
    /// As `socketpair(2)`.
    pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
    }

    /// Watches one end.
    ///
    /// # Errors
    /// If it cannot be watched.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        // A stream to the runtime, which only watches it; what is read and written are packets.
        Ok(Self(UnixStream::from_std(socket.into())?))
    }

    /// Sends one message. Waits while the other side has not read what was sent before.
    ///
    /// # Errors
    /// The link broke.
    pub async fn send(&self, message: on_link::Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let wire = OnLink { message: Some(message) }.encode_to_vec();
        if wire.len() > LINK_MESSAGE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // A packet goes as a whole or not at all.
        self.0.async_io(Interest::WRITABLE, || passing::send(&self.0, &wire, fds)).await?;
        Ok(())
    }

    /// The next message and its descriptor, `None` when the other side is gone. Nothing is lost when the future is
    /// dropped.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn receive(&self) -> Result<Option<(on_link::Message, Option<OwnedFd>)>, LinkError> {
        loop {
            let (mut packet, mut fds) = ([0; LINK_MESSAGE_BYTES_MAX], Vec::new());
            let take = || passing::receive(&self.0, &mut packet, &mut fds);
            let received = self.0.async_io(Interest::READABLE, take).await?;
            if received == 0 {
                return Ok(None);
            }
            // One of a newer other side, without a meaning here, is passed over.
            if let Some(message) = OnLink::decode(&packet[..received])?.message {
                return Ok(Some((message, fds.pop())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use vamos_proto::edge::Opened;

    use super::*;

    #[tokio::test]
    async fn messages_keep_their_descriptors_and_the_end_is_seen() {
        let (one, other) = LinkSocket::pair().unwrap();
        let (one, other) = (LinkSocket::new(one).unwrap(), LinkSocket::new(other).unwrap());
        let opened = |name: &str| on_link::Message::Opened(Opened { binding: name.into() });
        let passed = File::open("/dev/null").unwrap();
        one.send(opened("a"), &[passed.as_fd()]).await.unwrap();
        one.send(opened("b"), &[]).await.unwrap();
        let (message, fd) = other.receive().await.unwrap().unwrap();
        assert_eq!((message, fd.is_some()), (opened("a"), true));
        let (message, fd) = other.receive().await.unwrap().unwrap();
        assert_eq!((message, fd.is_some()), (opened("b"), false));
        drop(one);
        assert!(other.receive().await.unwrap().is_none());
    }
}
