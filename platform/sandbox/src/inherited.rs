//! What a freshly started process does with the descriptors it was started with.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

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
