//! Leaving the host's namespaces, and the fork that makes the confined process pid 1 of its own.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Leaves every namespace but the user's: vamosd starts cells as root, so none is needed to gain the right,
/// and a user namespace would only widen the kernel surface a cell can reach.
pub(crate) fn leave() -> io::Result<String> {
    let flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    // SAFETY: the flags do not include CLONE_FILES, the only one that could make a descriptor of
    // another thread dangle.
    unsafe { unshare_unsafe(flags) }?;
    Ok("own mount, pid, network, ipc, uts and cgroup namespaces".into())
}

/// The process that was started, after the fork.
#[derive(Debug)]
pub struct Parent {
    /// The confined child, as seen from here.
    pub child: i32,
    /// Its pidfd, for whoever is to wait for it.
    pub pidfd: OwnedFd,
    /// Closed by this process' exit, which lets the child go on.
    _gate: OwnedFd,
}

/// Holds the child back until the parent has exited, so that the two never write to a socket at once.
pub(crate) struct Gate(OwnedFd);

impl Gate {
    pub(crate) fn wait_for_parent_exit(self) {
        // The end of the pipe is the signal; an error would mean the same.
        let _ = File::from(self.0).read(&mut [0]);
    }
}

pub(crate) enum Fork {
    Parent(Parent),
    Child(Gate),
}

/// Splits the process in two.
pub(crate) fn fork() -> io::Result<Fork> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the contract of `enter` is that only this thread exists, so the child inherits no lock
    // that another thread holds and may allocate like any process.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(writer);
            Ok(Fork::Child(Gate(reader)))
        }
        child => {
            let pid = Pid::from_raw(child).ok_or(io::ErrorKind::InvalidData)?;
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            Ok(Fork::Parent(Parent { child, pidfd, _gate: writer }))
        }
    }
}
