//! The control socket: hands one whole message at a time to the `vhost` crate's parser.
//!
//! That parser reads with blocking calls and tries again on every soft error, so an incomplete
//! message, or one with more file descriptors than it has room for, would stop the ring thread.
//! Hence it is called only when everything it is going to read is already there.

use std::io::{IoSliceMut, Result as IoResult};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use vhost::vhost_user::{BackendReqHandler, Error as VhostError};

use crate::control::Control;
use crate::limits::{CONTROL_MESSAGE_BYTES_MAX, CONTROL_MESSAGE_FDS_MAX};

/// Bytes of a vhost-user message header: request, flags, size of the body; `u32` each.
const HEADER_BYTES: usize = 12;

/// How the front-end ended the conversation.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket broke.
    #[error("read the control socket")]
    Socket(#[source] rustix::io::Errno),
    /// More descriptors than a message may have.
    #[error("a control message with more than {CONTROL_MESSAGE_FDS_MAX} file descriptors")]
    TooManyFds,
    /// The front-end asks and does not read the answers.
    #[error("the front-end does not read its replies")]
    RepliesNotRead,
    /// Not vhost-user, or the end came in mid-message.
    #[error("parse a control message")]
    Message(#[source] VhostError),
}

/// What [`ControlSocket::handle_available`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handled {
    /// So many messages, and there may be more later.
    Messages(usize),
    /// The front-end has hung up.
    HungUp,
}

enum Arrived {
    Whole,
    Part,
    End,
}

/// See the module.
pub(crate) struct ControlSocket {
    socket: UnixStream,
    handler: BackendReqHandler<Mutex<Control>>,
    control: Arc<Mutex<Control>>,
}

impl ControlSocket {
    pub(crate) fn new(socket: UnixStream, control: Control) -> IoResult<Self> {
        socket.set_nonblocking(false)?;
        let control = Arc::new(Mutex::new(control));
        let handler = BackendReqHandler::from_stream(socket.try_clone()?, Arc::clone(&control));
        Ok(Self { socket, handler, control })
    }

    /// The same open file under its own number, for the event loop.
    pub(crate) fn pollable(&self) -> IoResult<OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }

    /// The device; the lock is never contended.
    pub(crate) fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles every whole message that has arrived. `closed`: no more will arrive.
    ///
    /// # Errors
    /// The conversation cannot go on. A request that was refused is not an error: the front-end
    /// has been told, and the device is as it was.
    pub(crate) fn handle_available(&mut self, closed: bool) -> Result<Handled, ControlError> {
        let mut messages = 0;
        loop {
            match self.arrived()? {
                Arrived::End => return Ok(Handled::HungUp),
                Arrived::Part if closed => return Err(ControlError::Message(VhostError::PartialMessage)),
                Arrived::Part => return Ok(Handled::Messages(messages)),
                Arrived::Whole => {}
            }
            if !self.replies_fit()? {
                return Err(ControlError::RepliesNotRead);
            }
            match self.handler.handle_request() {
                Ok(()) => {}
                Err(error) if is_refusal(&error) => {
                    let control = self.control();
                    crate::Counters::add(&control.transport.counters().protocol_errors, 1);
                    tracing::warn!(%error, "refuse a vhost-user request");
                }
                Err(VhostError::Disconnected) => return Ok(Handled::HungUp),
                Err(error) => return Err(ControlError::Message(error)),
            }
            messages += 1;
            crate::Counters::add(&self.control().transport.counters().control_messages, 1);
        }
    }

    /// Looks at the front of the socket without taking anything.
    fn arrived(&self) -> Result<Arrived, ControlError> {
        let mut header = [0; HEADER_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CONTROL_MESSAGE_FDS_MAX + 1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let peeked = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut header)], &mut ancillary, flags);
        let peeked = match peeked {
            Ok(peeked) => peeked,
            Err(rustix::io::Errno::AGAIN) => return Ok(Arrived::Part),
            Err(rustix::io::Errno::CONNRESET) => return Ok(Arrived::End),
            Err(error) => return Err(ControlError::Socket(error)),
        };
        // Peeking at descriptors duplicates them: they are closed here.
        let fds: usize = ancillary
            .drain()
            .map(|message| if let RecvAncillaryMessage::ScmRights(fds) = message { fds.count() } else { 0 })
            .sum();
        if fds > CONTROL_MESSAGE_FDS_MAX {
            return Err(ControlError::TooManyFds);
        }
        match peeked.bytes {
            0 => return Ok(Arrived::End),
            bytes if bytes < HEADER_BYTES => return Ok(Arrived::Part),
            _ => {}
        }
        let body = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
        if body > CONTROL_MESSAGE_BYTES_MAX {
            // The parser refuses it by its header alone.
            return Ok(Arrived::Whole);
        }
        let waiting = rustix::io::ioctl_fionread(&self.socket).map_err(ControlError::Socket)?;
        Ok(if waiting >= (HEADER_BYTES + body) as u64 { Arrived::Whole } else { Arrived::Part })
    }

    /// Whether there is room for a reply: there is, unless thousands have not been read.
    fn replies_fit(&self) -> Result<bool, ControlError> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        poll(&mut fds, Some(&now)).map_err(ControlError::Socket)?;
        Ok(fds[0].revents().intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR))
    }
}

/// Whether only the request failed: it was read to its end, and the front-end has its answer.
fn is_refusal(error: &VhostError) -> bool {
    matches!(
        error,
        VhostError::InvalidParam
            | VhostError::InvalidOperation(_)
            | VhostError::InactiveFeature(_)
            | VhostError::InactiveOperation(_)
            | VhostError::ReqHandlerError(_)
    )
}
