//! The channel once there is a runtime.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::Mutex;
use vamos_proto::cell::{CellMessageError, LENGTH_BYTES, body_length, encode};
use vamos_proto::envelope::Envelope;
use vamos_sandbox::passing;

use crate::{ChannelError, UNCLAIMED_FDS_MAX};

/// What is read at once, bytes.
const READ_BYTES: usize = 16 << 10;

/// What can be sent with, by several tasks.
pub struct Sender<Out> {
    socket: Arc<UnixStream>,
    turn: Arc<Mutex<()>>,
    what: PhantomData<fn(Out)>,
}

impl<Out> Clone for Sender<Out> {
    fn clone(&self) -> Self {
        Self { socket: self.socket.clone(), turn: self.turn.clone(), what: PhantomData }
    }
}

impl<Out> fmt::Debug for Sender<Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.socket).finish()
    }
}

impl<Out: Envelope> Sender<Out> {
    /// Sends one message, `fds` with its first byte.
    ///
    /// # Errors
    /// [`ChannelError`]; the other side is as good as gone.
    pub async fn send(&self, message: Out::Message, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let wire = encode(&Out::seal(message))?;
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

/// What can be received with.
#[derive(Debug)]
pub struct Receiver<In> {
    socket: Arc<UnixStream>,
    input: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    what: PhantomData<fn() -> In>,
}

impl<In: Envelope> Receiver<In> {
    /// The next message and the descriptors it carries, `None` when the other side has ended. Nothing is lost when
    /// the future is dropped.
    ///
    /// # Errors
    /// [`ChannelError`]: the channel cannot be used any further.
    pub async fn receive(&mut self) -> Result<Option<(In::Message, Vec<OwnedFd>)>, ChannelError> {
        loop {
            if let Some(message) = self.take()? {
                // Some carry descriptors, and what comes next is not waited for: those that have come so far are
                // this one's.
                let carried = In::descriptors(&message).min(self.fds.len());
                return Ok(Some((message, self.fds.drain(..carried).collect())));
            }
            if self.fds.len() > UNCLAIMED_FDS_MAX {
                return Err(ChannelError::Descriptors);
            }
            let (mut piece, mut fds) = ([0; READ_BYTES], Vec::new());
            let take = || passing::receive(&self.socket, &mut piece, &mut fds);
            let received = self.socket.async_io(Interest::READABLE, take).await?;
            if received == 0 {
                return Ok(None);
            }
            self.input.extend_from_slice(&piece[..received]);
            self.fds.extend(fds);
        }
    }

    fn take(&mut self) -> Result<Option<In::Message>, ChannelError> {
        while let Some(length) = self.input.first_chunk::<LENGTH_BYTES>() {
            let end = LENGTH_BYTES + body_length(*length)?;
            if self.input.len() < end {
                break;
            }
            let decoded = In::decode(&self.input[LENGTH_BYTES..end]).map_err(CellMessageError::from)?;
            self.input.drain(..end);
            // One of a newer other side, without a meaning here, is passed over.
            if let Some(message) = decoded.open() {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}

/// The whole channel. Its end is the end of the other process: nothing else holds the other side.
#[derive(Debug)]
pub struct Channel<Out, In> {
    sender: Sender<Out>,
    receiver: Receiver<In>,
}

impl<Out: Envelope, In: Envelope> Channel<Out, In> {
    /// Takes over one end of a socket pair.
    ///
    /// # Errors
    /// If it cannot be watched by the runtime.
    pub fn new(socket: net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UnixStream::from_std(socket)?);
        let sender = Sender { socket: socket.clone(), turn: Arc::default(), what: PhantomData };
        let receiver = Receiver { socket, input: Vec::new(), fds: VecDeque::new(), what: PhantomData };
        Ok(Self { sender, receiver })
    }

    /// Who is at the other side.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn peer(&self) -> io::Result<UCred> {
        self.sender.socket.peer_cred()
    }

    /// Sends one message, `fds` with its first byte.
    ///
    /// # Errors
    /// [`ChannelError`]; the other side is as good as gone.
    pub async fn send(&self, message: Out::Message, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.sender.send(message, fds).await
    }

    /// A sender of its own.
    pub fn sender(&self) -> Sender<Out> {
        self.sender.clone()
    }

    /// As [`Receiver::receive`].
    ///
    /// # Errors
    /// [`ChannelError`].
    pub async fn receive(&mut self) -> Result<Option<(In::Message, Vec<OwnedFd>)>, ChannelError> {
        self.receiver.receive().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use vamos_proto::cell::{Attach, Drain, Forked, FromCell, ToCell, from_cell, to_cell};

    type Vamosd = Channel<ToCell, FromCell>;
    type Cell = Channel<FromCell, ToCell>;

    fn wire(message: to_cell::Message) -> Vec<u8> {
        encode(&ToCell::seal(message)).unwrap()
    }

    #[tokio::test]
    async fn messages_and_descriptors_arrive_however_they_are_cut() {
        let (mut vamosd, cell) = net::UnixStream::pair().unwrap();
        let mut cell = Cell::new(cell).unwrap();
        let attached = to_cell::Message::Attach(Attach { attachment: 7, succeeds: true });
        let attach = wire(attached.clone());
        let passed = std::fs::File::open("/dev/null").unwrap();
        passing::send(&vamosd, &attach[..1], &[passed.as_fd(); 4]).unwrap();
        vamosd.write_all(&attach[1..]).unwrap();
        vamosd.write_all(&wire(to_cell::Message::Drain(Drain { deadline_ms: 5 }))).unwrap();
        let (message, fds) = cell.receive().await.unwrap().unwrap();
        assert_eq!((message, fds.len()), (attached, 4));
        let (message, fds) = cell.receive().await.unwrap().unwrap();
        assert_eq!((message, fds.len()), (to_cell::Message::Drain(Drain { deadline_ms: 5 }), 0));
        drop(vamosd);
        assert!(cell.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_ends_the_channel() {
        let (mut vamosd, cell) = net::UnixStream::pair().unwrap();
        let mut cell = Cell::new(cell).unwrap();
        vamosd.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(cell.receive().await, Err(ChannelError::Message(CellMessageError::TooLong(_)))));
    }

    #[tokio::test]
    async fn descriptors_of_no_message_end_the_channel() {
        let (vamosd, cell) = net::UnixStream::pair().unwrap();
        let mut cell = Cell::new(cell).unwrap();
        let passed = std::fs::File::open("/dev/null").unwrap();
        let drain = wire(to_cell::Message::Drain(Drain { deadline_ms: 5 }));
        for _ in 0..2 {
            passing::send(&vamosd, &drain, &[passed.as_fd(); 200]).unwrap();
        }
        let mut heard = Ok(None);
        for _ in 0..3 {
            heard = cell.receive().await;
        }
        assert!(matches!(heard, Err(ChannelError::Descriptors)), "{heard:?}");
    }

    #[tokio::test]
    async fn what_is_sent_can_be_received() {
        let (vamosd, cell) = net::UnixStream::pair().unwrap();
        let (mut vamosd, cell) = (Vamosd::new(vamosd).unwrap(), Cell::new(cell).unwrap());
        let passed = std::fs::File::open("/dev/null").unwrap();
        let forked = from_cell::Message::Forked(Forked { pid: 9 });
        cell.send(forked.clone(), &[passed.as_fd()]).await.unwrap();
        let (message, fds) = vamosd.receive().await.unwrap().unwrap();
        assert_eq!((message, fds.len()), (forked, 1));
    }
}
