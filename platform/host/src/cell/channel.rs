//! vamosd's end of the private channel to one cell.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net;
use std::sync::Arc;

use prost::Message;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use vamos_proto::cell::{
    CellMessageError, FromCell, LENGTH_BYTES, ToCell, body_length, encode, from_cell, to_cell,
};
use vamos_sandbox::passing;

/// Descriptors a cell may have sent that nobody took yet; it has business sending one.
const UNCLAIMED_FDS_MAX: usize = 4;

/// Why the channel cannot be used any further.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// It broke.
    #[error("use the channel to the cell")]
    Io(#[from] io::Error),
    /// The cell sent something that is not a message.
    #[error(transparent)]
    Message(#[from] CellMessageError),
    /// The cell sent descriptors nobody asked for.
    #[error("the cell sent more than {UNCLAIMED_FDS_MAX} descriptors that nobody asked for")]
    Descriptors,
}

/// What can be sent with, by several tasks.
#[derive(Debug, Clone)]
pub struct CellSender {
    socket: Arc<UnixStream>,
    turn: Arc<Mutex<()>>,
}

impl CellSender {
    /// Sends one message, `fds` with its first byte.
    ///
    /// # Errors
    /// [`ChannelError`]; the cell is as good as gone.
    pub async fn send(&self, message: to_cell::Message, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let wire = encode(&ToCell { message: Some(message) })?;
        let _turn = self.turn.lock().await;
        let (mut sent, mut fds) = (0, fds);
        while sent < wire.len() {
            let piece = || passing::send(&self.socket, &wire[sent..], fds);
            sent += self.socket.async_io(Interest::WRITABLE, piece).await?;
            fds = &[];
        }
        Ok(())
    }
}

/// The channel. Its end is the end of the cell: nothing else holds the other side.
#[derive(Debug)]
pub struct CellChannel {
    sender: CellSender,
    input: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl CellChannel {
    /// Takes over one end of a socket pair.
    ///
    /// # Errors
    /// If it cannot be registered with the runtime.
    pub fn new(socket: net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UnixStream::from_std(socket)?);
        let sender = CellSender { socket, turn: Arc::default() };
        Ok(Self { sender, input: Vec::new(), fds: VecDeque::new() })
    }

    /// Sends one message, `fds` with its first byte.
    ///
    /// # Errors
    /// [`ChannelError`]; the cell is as good as gone.
    pub async fn send(&self, message: to_cell::Message, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.sender.send(message, fds).await
    }

    /// A sender of its own.
    pub fn sender(&self) -> CellSender {
        self.sender.clone()
    }

    /// The next message, `None` when the cell has ended. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// [`ChannelError`]; the cell cannot be understood any more.
    pub async fn receive(&mut self) -> Result<Option<from_cell::Message>, ChannelError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let (mut piece, mut fds) = ([0; 4096], Vec::new());
            let (socket, piece_ref) = (&self.sender.socket, &mut piece);
            let count =
                socket.async_io(Interest::READABLE, || passing::receive(socket, piece_ref, &mut fds)).await?;
            if count == 0 {
                return Ok(None);
            }
            self.input.extend_from_slice(&piece[..count]);
            self.fds.extend(fds);
            if self.fds.len() > UNCLAIMED_FDS_MAX {
                return Err(ChannelError::Descriptors);
            }
        }
    }

    fn take(&mut self) -> Result<Option<from_cell::Message>, ChannelError> {
        loop {
            let Some(wire) = self.input.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
            let end = LENGTH_BYTES + body_length(*wire)?;
            if self.input.len() < end {
                return Ok(None);
            }
            let decoded = FromCell::decode(&self.input[LENGTH_BYTES..end]).map_err(CellMessageError::from)?;
            self.input.drain(..end);
            // A message of a newer cell, without a meaning here, is skipped.
            if let Some(message) = decoded.message {
                return Ok(Some(message));
            }
        }
    }

    /// The oldest descriptor the cell sent that was not taken yet.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }
}
