//! The first words of a process, before it has a runtime.

use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use vamos_proto::cell::{CellMessageError, LENGTH_BYTES, body_length, encode};
use vamos_proto::envelope::Envelope;
use vamos_sandbox::passing;

use crate::ChannelError;

/// Receives the first message and all descriptors that come with it. `None`: it is one of a newer other side.
///
/// # Errors
/// [`ChannelError`].
pub fn receive<In: Envelope>(
    mut socket: &UnixStream,
) -> Result<(Option<In::Message>, Vec<OwnedFd>), ChannelError> {
    let (mut length, mut fds) = ([0; LENGTH_BYTES], Vec::new());
    // They come with the first byte.
    let first = passing::receive(socket, &mut length[..1], &mut fds)?;
    socket.read_exact(&mut length[first..])?;
    let mut body = vec![0; body_length(length)?];
    socket.read_exact(&mut body)?;
    let envelope = In::decode(&*body).map_err(CellMessageError::from)?;
    Ok((envelope.open(), fds))
}

/// Sends one short message, `fds` with its first byte.
///
/// # Errors
/// [`ChannelError`].
pub fn send<Out: Envelope>(
    socket: &UnixStream,
    message: Out::Message,
    fds: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let wire = encode(&Out::seal(message))?;
    let sent = passing::send(socket, &wire, fds)?;
    // A few bytes on an empty socket are never cut.
    if sent == wire.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero).into()) }
}
