//! rlimits. Address space is not limited: guest memory is mapped here, however large the guest is.

#![allow(unsafe_code)]

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Limits of the kernel's resources for one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Descriptors open at once.
    pub open_files: u64,
    /// Threads of the identity, this process' included.
    pub threads: u64,
    /// Largest file, bytes. Beyond it a write fails with EFBIG.
    pub file_bytes: u64,
}

/// Lowers the limits, soft and hard.
pub(crate) fn apply(limits: &ResourceLimits) -> io::Result<String> {
    ignore_excess()?;
    let wanted = [
        (Resource::Nofile, limits.open_files),
        (Resource::Nproc, limits.threads),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ];
    for (resource, limit) in wanted {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    let ResourceLimits { open_files, threads, file_bytes } = limits;
    Ok(format!("{open_files} descriptors, {threads} threads, files of {file_bytes} bytes, no core dump"))
}

/// A file that would become too large is an error of the write, not the end of the process.
fn ignore_excess() -> io::Result<()> {
    // SAFETY: no handler of anybody's runs: the signal's effect is to be none.
    match unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
