//! What can fail, and when: the n-th call of a kind, once or from then on.

use rusqlite::ffi;

use crate::disk::FileKind;

/// A call to the disk that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Opening a file that is there.
    Open,
    /// Making a file.
    Create,
    /// Removing a file.
    Delete,
    /// Looking whether a file is there.
    Access,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Cutting a file.
    Truncate,
    /// Syncing a file.
    Sync,
    /// Asking for a file's size.
    Size,
    /// Locking a file.
    Lock,
    /// Mapping shared memory.
    MapMemory,
    /// Locking shared memory.
    LockMemory,
}

/// A call to one kind of file: what a crash point is named after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Which file.
    pub file: FileKind,
    /// Which call.
    pub call: Call,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO, in any call. A write has got half of its bytes into the page cache.
    Io,
    /// ENOSPC, in what takes space. A write has got half of its bytes into the page cache.
    Full,
    /// A read that gets half of its bytes and then EIO. (SQLite's `unix` VFS reads on after a short
    /// read, so that one without an error means the end of the file.)
    ShortRead,
}

impl Fault {
    /// Whether such a call can fail so.
    pub fn hits(self, call: Call) -> bool {
        match self {
            Fault::Io => true,
            Fault::Full => matches!(call, Call::Create | Call::Write | Call::MapMemory),
            Fault::ShortRead => call == Call::Read,
        }
    }

    /// SQLite's code for it, as its `unix` VFS would give it.
    pub fn code(self, call: Call) -> i32 {
        match (self, call) {
            (Fault::Full, Call::Write) => ffi::SQLITE_FULL,
            (Fault::Full, Call::MapMemory) => ffi::SQLITE_IOERR_SHMSIZE,
            (_, Call::Open | Call::Create) => ffi::SQLITE_CANTOPEN,
            (_, Call::Delete) => ffi::SQLITE_IOERR_DELETE,
            (_, Call::Access) => ffi::SQLITE_IOERR_ACCESS,
            (_, Call::Read) => ffi::SQLITE_IOERR_READ,
            (_, Call::Write) => ffi::SQLITE_IOERR_WRITE,
            (_, Call::Truncate) => ffi::SQLITE_IOERR_TRUNCATE,
            (_, Call::Sync) => ffi::SQLITE_IOERR_FSYNC,
            (_, Call::Size) => ffi::SQLITE_IOERR_FSTAT,
            (_, Call::Lock) => ffi::SQLITE_IOERR_LOCK,
            (_, Call::MapMemory) => ffi::SQLITE_IOERR_SHMMAP,
            (_, Call::LockMemory) => ffi::SQLITE_IOERR_SHMLOCK,
        }
    }
}

/// When which fault strikes.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What happens.
    pub fault: Fault,
    /// In which calls; none: in all.
    pub point: Option<Point>,
    /// At which of those it can happen to, from 1.
    pub nth: u64,
    /// Whether at every one after it, too.
    pub persistent: bool,
}
