//! What a freshly started process does with the descriptors it was started with.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::num::ParseIntError;
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

/// What a service manager tells of the descriptors it has kept (sd_listen_fds(3)), numbered from 3: the process they
/// are for, how many, and their names.
const MANAGED: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Descriptors that pass, by name, from one program to the next in a process, or by way of a service manager.
#[derive(Debug, Default)]
pub struct Inherited {
    fds: BTreeMap<String, OwnedFd>,
    follows: bool,
}

impl Inherited {
    /// Whether another program has been in this process before.
    pub fn follows(&self) -> bool {
        self.follows
    }

    /// All there are.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &OwnedFd)> {
        self.fds.iter().map(|(name, fd)| (name.as_str(), fd))
    }

    /// Takes the one of this name.
    pub fn remove(&mut self, name: &str) -> Option<OwnedFd> {
        self.fds.remove(name)
    }

    /// Adds one.
    pub fn insert(&mut self, name: &str, fd: OwnedFd) {
        self.fds.insert(name.into(), fd);
    }

    /// Leaves them open for `command`, which is to follow this program in its process, and tells it.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn pass_on(&self, command: &mut Command) -> io::Result<()> {
        let mut pairs = vec![format!("pid={}", std::process::id())];
        for (name, fd) in self.iter() {
            fcntl_setfd(fd, FdFlags::empty())?;
            pairs.push(format!("{name}={}", fd.as_raw_fd()));
        }
        command.env(VARIABLE, pairs.join(" "));
        // Those numbers are others' by now.
        for name in MANAGED {
            command.env_remove(name);
        }
        Ok(())
    }

    /// Undoes that: there is no such program.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn keep_back(&self) -> io::Result<()> {
        Ok(self.fds.values().try_for_each(|fd| fcntl_setfd(fd, FdFlags::CLOEXEC))?)
    }
}

/// What the program before this one left open, or a service manager kept for it, once. The first call of a life, before
/// anything is opened.
///
/// # Errors
/// A variable names what is not open.
pub fn take() -> io::Result<Inherited> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let mut inherited = Inherited::default();
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(inherited);
    }
    let own = std::process::id().to_string();
    let text = env::var(VARIABLE).unwrap_or_default();
    let mut pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
    inherited.follows = pairs.next() == Some(("pid", &own));
    let left: Vec<(String, u16)> = if inherited.follows {
        pairs.map(|(name, number)| Ok((name.into(), number.parse()?))).collect::<Result<_, ParseIntError>>()
    } else {
        managed(&own)
    }
    .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    for (name, number) in left {
        // SAFETY: whoever started this program left this number open for it alone, it is taken once, and
        // nothing has been opened that could have been given it; should it not be open, the next line fails.
        let fd = unsafe { OwnedFd::from_raw_fd(RawFd::from(number)) };
        fcntl_getfd(&fd)?;
        fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        inherited.insert(&name, fd);
    }
    Ok(inherited)
}

/// What a service manager has kept.
fn managed(own: &str) -> Result<Vec<(String, u16)>, ParseIntError> {
    let [pid, count, names] = MANAGED.map(|name| env::var(name).unwrap_or_default());
    if pid != own {
        return Ok(Vec::new());
    }
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    Ok(names.zip(3..3_u16.saturating_add(count.parse()?)).collect())
}
