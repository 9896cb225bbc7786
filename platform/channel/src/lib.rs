//! The private channel between vamosd and a process that it has started, a cell or the edge: whole messages both ways,
//! some with descriptors, over one Unix stream.
//!
//! Its first message is exchanged before there is a runtime ([`blocking`]), the others with one ([`Channel`]).

pub mod blocking;
mod stream;

pub use stream::{Channel, Receiver, Sender};

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use vamos_proto::cell::CellMessageError;

/// Descriptors that came and belong to no message yet; more are not waited for.
const UNCLAIMED_FDS_MAX: usize = vamos_sandbox::limits::PASSED_FDS_MAX;

/// Why a channel cannot be used any further.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// It broke.
    #[error("use the private channel")]
    Io(#[from] io::Error),
    /// What came, or was to go, is no message.
    #[error(transparent)]
    Message(#[from] CellMessageError),
    /// Descriptors came that nobody asked for.
    #[error("descriptors came over the private channel that belong to no message")]
    Descriptors,
}

/// The two ends of a new link between two processes that vamosd has started: a socket whose every packet is one message.
///
/// # Errors
/// As `socketpair(2)`.
pub fn link() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}
