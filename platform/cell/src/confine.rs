//! From the start message to the far side of the walls. Blocking, single-threaded.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use prost::Message;
use vamos_proto::cell::{
    CellMessageError, Forked, FromCell, LENGTH_BYTES, Refused, Start, ToCell, body_length, encode, from_cell,
    to_cell,
};
use vamos_sandbox::{Enforcement, EnterError, Entered, Parent, Plan, Report, ResourceLimits, enter, passing};

/// Why a cell cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The channel broke.
    #[error("use the control channel")]
    Channel(#[from] io::Error),
    /// What came is no message.
    #[error(transparent)]
    Message(#[from] CellMessageError),
    /// The first message must be `Start`.
    #[error("the first message must be Start")]
    NotStart,
}

/// Which of the two processes this is after the walls went up.
#[derive(Debug)]
pub enum Confinement {
    /// Outside: [`announce`] the child and exit.
    Parent(Parent),
    /// Inside.
    Confined(Report),
}

/// Receives the first message and the descriptors it carries.
///
/// # Errors
/// [`StartError`]; nothing can be done then.
pub fn receive_start(mut socket: &UnixStream) -> Result<(Start, Vec<OwnedFd>), StartError> {
    let (mut length, mut fds) = ([0; LENGTH_BYTES], Vec::new());
    // They come with the first byte.
    let first = passing::receive(socket, &mut length[..1], &mut fds)?;
    socket.read_exact(&mut length[first..])?;
    let mut body = vec![0; body_length(length)?];
    socket.read_exact(&mut body)?;
    let message = ToCell::decode(&*body).map_err(CellMessageError::from)?.message;
    match message {
        Some(to_cell::Message::Start(start)) => Ok((start, fds)),
        _ => Err(StartError::NotStart),
    }
}

/// Puts up the walls around a child of this process.
///
/// # Errors
/// A wall is missing and the start message wants all of them.
pub fn confine(start: &Start) -> Result<Confinement, EnterError> {
    // The first look at the clock asks the kernel where its clocks are, which is not allowed later.
    crate::lease::since_boot();
    // Should the walls leave the root as it is, the volume is where the process stands.
    rustix::process::chdir(&*start.volume).map_err(|error| EnterError::Fork(error.into()))?;
    let limits = start.limits.unwrap_or_default();
    let plan = Plan {
        volume: PathBuf::from(&start.volume),
        uid: start.uid,
        gid: start.gid,
        enforcement: if start.best_effort { Enforcement::BestEffort } else { Enforcement::Strict },
        limits: ResourceLimits {
            open_files: limits.open_files,
            threads: limits.threads,
            file_bytes: limits.file_bytes,
        },
        without: Vec::new(),
    };
    Ok(match enter(&plan)? {
        Entered::Parent(parent) => Confinement::Parent(parent),
        Entered::Confined(report) => Confinement::Confined(report),
    })
}

/// Tells vamosd about the child; the caller exits next, which lets the child go on.
///
/// # Errors
/// The channel broke.
pub fn announce(socket: &UnixStream, parent: Parent) -> Result<(), StartError> {
    let forked = from_cell::Message::Forked(Forked { pid: parent.child as u32 });
    let wire = encode(&FromCell { message: Some(forked) })?;
    let sent = passing::send(socket, &wire, &[parent.pidfd.as_fd()])?;
    // A few bytes on an empty socket are never cut.
    if sent == wire.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero).into()) }
}

/// Tells vamosd why there will be no cell.
///
/// # Errors
/// The channel broke.
pub fn refuse(socket: &UnixStream, reason: &str) -> Result<(), StartError> {
    let refused = from_cell::Message::Refused(Refused { reason: reason.to_owned() });
    passing::send(socket, &encode(&FromCell { message: Some(refused) })?, &[])?;
    Ok(())
}
