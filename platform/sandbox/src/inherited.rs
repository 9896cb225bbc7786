//! What a freshly started process does with the descriptors it was started with.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// The socket that was given as standard input: the channel to whoever started this process.
///
/// # Errors
/// If standard input cannot be duplicated.
pub fn control_socket() -> io::Result<UnixStream> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// Closes every descriptor above the three standard ones: nothing else was meant for this process.
/// The first call of `main`.
///
/// # Errors
/// As `close_range(2)`.
pub fn close_others() -> io::Result<()> {
    // SAFETY: called first in main, before this process has opened anything, so no object owns any of
    // the closed numbers.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where a program that follows another in the same process finds what was left open: `name=number` pairs, and
/// the process they are for, so that a child that inherits the variable does not believe it.
const VARIABLE: &str = "VAMOS_INHERITED";

/// Descriptors that pass, by name, from one program to the next in a process.
#[derive(Debug, Default)]
pub struct Inherited(BTreeMap<String, OwnedFd>);

impl Inherited {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the one of this name.
    pub fn remove(&mut self, name: &str) -> Option<OwnedFd> {
        self.0.remove(name)
    }

    /// Adds one.
    pub fn insert(&mut self, name: &str, fd: OwnedFd) {
        self.0.insert(name.into(), fd);
    }

    /// Leaves them open for `command`, which is to follow this program in its process, and tells it.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn pass_on(&self, command: &mut Command) -> io::Result<()> {
        let mut pairs = vec![format!("pid={}", std::process::id())];
        for (name, fd) in &self.0 {
            fcntl_setfd(fd, FdFlags::empty())?;
            pairs.push(format!("{name}={}", fd.as_raw_fd()));
        }
        command.env(VARIABLE, pairs.join(" "));
        Ok(())
    }

    /// Undoes that: there is no such program.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn keep_back(&self) -> io::Result<()> {
        Ok(self.0.values().try_for_each(|fd| fcntl_setfd(fd, FdFlags::CLOEXEC))?)
    }
}

/// What the program before this one left open, once. The first call of a life, before anything is opened.
///
/// # Errors
/// The variable names what is not open.
pub fn take() -> io::Result<Inherited> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let mut inherited = Inherited::default();
    let text = env::var(VARIABLE).unwrap_or_default();
    let mut pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
    let own = std::process::id().to_string();
    if pairs.next() != Some(("pid", &own)) || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(inherited);
    }
    for (name, number) in pairs {
        let number = number.parse::<u16>().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the program before this one left this number open for it alone, it is taken once, and
        // nothing has been opened that could have been given it; should it not be open, the next line fails.
        let fd = unsafe { OwnedFd::from_raw_fd(RawFd::from(number)) };
        fcntl_getfd(&fd)?;
        fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        inherited.insert(name, fd);
    }
    Ok(inherited)
}
