//! From the start message to the far side of the walls. Blocking, single-threaded.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use vamos_channel::{ChannelError, blocking};
use vamos_proto::cell::{Forked, FromCell, Refused, Start, ToCell, from_cell, to_cell};
use vamos_sandbox::{Enforcement, EnterError, Entered, Parent, Plan, Profile, Report, ResourceLimits, enter};

/// Why a cell cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
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
pub fn receive_start(socket: &UnixStream) -> Result<(Start, Vec<OwnedFd>), StartError> {
    match blocking::receive::<ToCell>(socket)? {
        (Some(to_cell::Message::Start(start)), fds) => Ok((start, fds)),
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
        profile: Profile::Cell,
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
    Ok(blocking::send::<FromCell>(socket, forked, &[parent.pidfd.as_fd()])?)
}

/// Tells vamosd why there will be no cell.
///
/// # Errors
/// The channel broke.
pub fn refuse(socket: &UnixStream, reason: &str) -> Result<(), StartError> {
    let refused = from_cell::Message::Refused(Refused { reason: reason.to_owned() });
    Ok(blocking::send::<FromCell>(socket, refused, &[])?)
}
