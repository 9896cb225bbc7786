//! Puts file descriptors under the runtime's watch, edge-triggered, for being readable.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vmm_sys_util::eventfd::EventFd;

/// What owns one descriptor, opened before and closed after it can be seen here.
pub(crate) trait OwnsDescriptor: AsRawFd {}

impl OwnsDescriptor for EventFd {}
impl OwnsDescriptor for UnixStream {}

/// `owner`, watched. Needs a runtime.
pub(crate) fn watch<T: OwnsDescriptor>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: both implementors keep one open descriptor under one number until they are dropped,
    // and `AsyncFd` owns `owner` from here on.
    let registered = unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) };
    registered.map_err(|error| error.into_parts().1)
}
