//! The cell's end of its channel to vamosd, once the runtime is up.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingStream;

use bytes::{Buf, BytesMut};
use prost::Message;
use tokio::io::Interest;
use tokio::net::UnixStream;
use vamos_proto::cell::{
    CellMessageError, FromCell, LENGTH_BYTES, ToCell, body_length, encode, from_cell, to_cell,
};
use vamos_sandbox::passing;

const READ_BYTES: usize = 16 << 10;

/// Descriptors of an `Attach`: the device's socket, the roster, and the two that are kept.
const ATTACH_FDS: usize = 4;

/// The channel broke, or vamosd speaks another language.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The channel broke.
    #[error("use the control channel")]
    Channel(#[from] io::Error),
    /// What came, or was to go, is no message.
    #[error(transparent)]
    Message(#[from] CellMessageError),
}

/// Whole messages in both directions, with the descriptors they carry.
#[derive(Debug)]
pub struct Control {
    socket: UnixStream,
    input: BytesMut,
    fds: Vec<OwnedFd>,
}

impl Control {
    /// Watches `socket` on the current runtime.
    ///
    /// # Errors
    /// If the socket cannot be watched.
    pub fn new(socket: BlockingStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixStream::from_std(socket)?, input: BytesMut::new(), fds: Vec::new() })
    }

    /// The user that vamosd is. Its process has no number in this namespace.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn vamosd_uid(&self) -> io::Result<u32> {
        Ok(self.socket.peer_cred()?.uid())
    }

    /// The next message and the descriptors it carries, or `None` when vamosd has closed its end. Nothing is
    /// lost when the future is dropped.
    ///
    /// # Errors
    /// [`ControlError`]: the channel cannot be used any further.
    pub async fn receive(&mut self) -> Result<Option<(to_cell::Message, Vec<OwnedFd>)>, ControlError> {
        loop {
            if let Some(message) = self.decode()? {
                // vamosd sends some with this message alone, and waits for nothing before it sends the next:
                // what has come so far is this one's.
                let carried = match &message {
                    to_cell::Message::Attach(_) => ATTACH_FDS,
                    to_cell::Message::Edge(_) => 1,
                    to_cell::Message::Keep(keep) => keep.descriptors as usize,
                    _ => 0,
                };
                let fds = self.fds.drain(..self.fds.len().min(carried)).collect();
                return Ok(Some((message, fds)));
            }
            let mut piece = [0; READ_BYTES];
            let received = self
                .socket
                .async_io(Interest::READABLE, || passing::receive(&self.socket, &mut piece, &mut self.fds))
                .await?;
            if received == 0 {
                return Ok(None);
            }
            self.input.extend_from_slice(&piece[..received]);
        }
    }

    fn decode(&mut self) -> Result<Option<to_cell::Message>, ControlError> {
        while let Some(length) = self.input.first_chunk::<LENGTH_BYTES>() {
            let length = body_length(*length)?;
            if self.input.len() < LENGTH_BYTES + length {
                return Ok(None);
            }
            self.input.advance(LENGTH_BYTES);
            let message = ToCell::decode(self.input.split_to(length)).map_err(CellMessageError::from)?;
            // A message of a newer vamosd that this cell does not know is passed over.
            if let Some(message) = message.message {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Sends one message, `fds` with its first byte.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn send(
        &self,
        message: from_cell::Message,
        mut fds: &[BorrowedFd<'_>],
    ) -> Result<(), ControlError> {
        let wire = encode(&FromCell { message: Some(message) })?;
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let piece = || passing::send(&self.socket, rest, fds);
            let sent = self.socket.async_io(Interest::WRITABLE, piece).await?;
            rest = &rest[sent..];
            fds = &[];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use vamos_proto::cell::{Attach, Drain, Forked};

    fn wire(message: to_cell::Message) -> Vec<u8> {
        encode(&ToCell { message: Some(message) }).unwrap()
    }

    #[tokio::test]
    async fn messages_and_descriptors_arrive_however_they_are_cut() {
        let (mut vamosd, cell) = BlockingStream::pair().unwrap();
        let mut control = Control::new(cell).unwrap();
        let attached = to_cell::Message::Attach(Attach { attachment: 7, succeeds: true });
        let attach = wire(attached.clone());
        let passed = std::fs::File::open("/dev/null").unwrap();
        passing::send(&vamosd, &attach[..1], &[passed.as_fd(); ATTACH_FDS]).unwrap();
        vamosd.write_all(&attach[1..]).unwrap();
        vamosd.write_all(&wire(to_cell::Message::Drain(Drain { deadline_ms: 5 }))).unwrap();
        let (message, fds) = control.receive().await.unwrap().unwrap();
        assert_eq!(message, attached);
        assert_eq!(fds.len(), ATTACH_FDS);
        let (message, fds) = control.receive().await.unwrap().unwrap();
        assert_eq!(message, to_cell::Message::Drain(Drain { deadline_ms: 5 }));
        assert!(fds.is_empty());
        drop(vamosd);
        assert!(control.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_ends_the_channel() {
        let (mut vamosd, cell) = BlockingStream::pair().unwrap();
        let mut control = Control::new(cell).unwrap();
        vamosd.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(control.receive().await, Err(ControlError::Message(CellMessageError::TooLong(_)))));
    }

    #[tokio::test]
    async fn what_is_sent_can_be_read() {
        let (vamosd, cell) = BlockingStream::pair().unwrap();
        let control = Control::new(cell).unwrap();
        control.send(from_cell::Message::Forked(Forked { pid: 9 }), &[]).await.unwrap();
        let mut fds = Vec::new();
        let mut buffer = [0; 64];
        let received = passing::receive(&vamosd, &mut buffer, &mut fds).unwrap();
        let message = FromCell::decode(&buffer[LENGTH_BYTES..received]).unwrap();
        assert_eq!(message.message, Some(from_cell::Message::Forked(Forked { pid: 9 })));
    }
}
