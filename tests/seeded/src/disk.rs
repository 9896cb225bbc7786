//! The C library's syncs, in this process: SQLite's and the standard library's calls end here, where they are points.
//!
//! A program's own function takes precedence over the library's of that name. What is called in its place is the
//! system call itself.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, Result};
use vamos_seam::{Point, fails};

fn synced(fd: c_int, sync: impl FnOnce(BorrowedFd<'_>) -> Result<()>) -> c_int {
    let outcome = if fails(Point::Sync) {
        Err(Errno::IO)
    } else {
        // SAFETY: the caller of `fsync` vouches for its descriptor until the call returns, as the C library wants it.
        sync(unsafe { BorrowedFd::borrow_raw(fd) })
    };
    match outcome.and_then(|()| if fails(Point::Synced) { Err(Errno::IO) } else { Ok(()) }) {
        Ok(()) => 0,
        Err(error) => {
            // SAFETY: the C library's place for the calling thread's error, which it may always write.
            unsafe { *libc::__errno_location() = error.raw_os_error() };
            -1
        }
    }
}

// SAFETY: it has the C library's signature and contract, and stands for it on purpose.
#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    synced(fd, |file| rustix::fs::fsync(file))
}

// SAFETY: as the C library's function of that name, which it replaces for all of this process.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    synced(fd, |file| rustix::fs::fdatasync(file))
}
