//! A file of a disk as a connection holds it: SQLite's file methods, in safe terms. An `Err` is one of
//! SQLite's result codes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rusqlite::ffi;

use crate::disk::{Disk, FileKind, Files, Inode, Lie};
use crate::fault::{Call, Fault};
use crate::locks::{Holder, Level, Region};

/// SQLite's result code.
pub(crate) type Code = i32;

/// An open file.
pub(crate) struct OpenFile {
    disk: Arc<Disk>,
    inode: Inode,
    holder: Holder,
    kind: FileKind,
    has_name: bool,
    /// The directory is to be synced after the file: it was opened as one that may have to be made.
    owes_directory: bool,
    shares_memory: bool,
}

impl OpenFile {
    /// Opens a file, or makes it; without a name, one that nobody else sees.
    pub(crate) fn open(disk: &Arc<Disk>, name: Option<&str>, create: bool) -> Result<Self, Code> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut files = disk.files();
        let found = name.and_then(|name| files.names.get(name).copied());
        let call = if found.is_some() { Call::Open } else { Call::Create };
        let kind = name.map_or(FileKind::Journal, FileKind::of);
        fail(&mut files, kind, call)?;
        let inode = match found {
            Some(inode) => inode,
            None if create || name.is_none() => files.create(name),
            None => return Err(ffi::SQLITE_CANTOPEN),
        };
        files.opened();
        drop(files);
        Ok(Self {
            disk: disk.clone(),
            inode,
            holder: NEXT.fetch_add(1, Relaxed),
            kind,
            has_name: name.is_some(),
            owes_directory: name.is_some() && create && kind != FileKind::Database,
            shares_memory: false,
        })
    }

    /// Whether a pragma of the engine's is to go unheard.
    pub(crate) fn ignores(&self, pragma: &str) -> bool {
        matches!(self.disk.lie(), Some(Lie::Settings { unheard, .. }) if unheard == pragma)
    }

    /// Fills `into`; what is beyond the file's end reads as zero, with an error.
    pub(crate) fn read(&self, at: usize, into: &mut [u8]) -> Result<(), Code> {
        let mut files = self.disk.files();
        let fault = files.strike(self.kind, Call::Read);
        let content = files.contents.get(&self.inode);
        let wanted = if fault == Some(Fault::ShortRead) { into.len() / 2 } else { into.len() };
        let got = content.map_or(0, |content| content.read(at, &mut into[..wanted]));
        if let Some(fault) = fault {
            return Err(fault.code(Call::Read));
        }
        if got < into.len() {
            into[got..].fill(0);
            return Err(ffi::SQLITE_IOERR_SHORT_READ);
        }
        Ok(())
    }

    pub(crate) fn write(&self, at: usize, data: &[u8]) -> Result<(), Code> {
        let mut files = self.disk.files();
        match files.strike(self.kind, Call::Write) {
            None => {
                files.write(self.inode, at, data);
                Ok(())
            }
            Some(fault) => {
                files.write(self.inode, at, &data[..data.len() / 2]);
                Err(fault.code(Call::Write))
            }
        }
    }

    pub(crate) fn truncate(&self, len: usize) -> Result<(), Code> {
        let mut files = self.disk.files();
        fail(&mut files, self.kind, Call::Truncate)?;
        files.truncate(self.inode, len);
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<(), Code> {
        let mut files = self.disk.files();
        if let Err(code) = fail(&mut files, self.kind, Call::Sync) {
            files.sync_failed(self.inode);
            return Err(code);
        }
        files.sync(self.inode, self.kind, self.disk.lie());
        if std::mem::take(&mut self.owes_directory) {
            files.sync_directory(self.disk.lie());
        }
        Ok(())
    }

    pub(crate) fn size(&self) -> Result<usize, Code> {
        let mut files = self.disk.files();
        fail(&mut files, self.kind, Call::Size)?;
        Ok(files.contents.get(&self.inode).map_or(0, |content| content.len()))
    }

    pub(crate) fn lock(&self, level: Level) -> Result<(), Code> {
        let mut files = self.disk.files();
        fail(&mut files, self.kind, Call::Lock)?;
        busy_unless(files.locks.entry(self.inode).or_default().raise(self.holder, level))
    }

    pub(crate) fn unlock(&self, level: Level) {
        self.disk.files().locks.entry(self.inode).or_default().lower(self.holder, level);
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.disk.files().locks.entry(self.inode).or_default().is_reserved()
    }

    /// A region of the memory shared with other connections; `None` if it was never made.
    pub(crate) fn map_memory(&mut self, number: usize, extend: bool) -> Result<Option<Region>, Code> {
        let mut files = self.disk.files();
        fail(&mut files, self.kind, Call::MapMemory)?;
        self.shares_memory = true;
        Ok(files.memory.entry(self.inode).or_default().region(self.holder, number, extend))
    }

    pub(crate) fn lock_memory(&self, bits: u8, exclusive: bool) -> Result<(), Code> {
        let mut files = self.disk.files();
        fail(&mut files, self.kind, Call::LockMemory)?;
        let memory = files.memory.get_mut(&self.inode).ok_or(ffi::SQLITE_IOERR_SHMLOCK)?;
        busy_unless(memory.lock(self.holder, bits, exclusive))
    }

    pub(crate) fn unlock_memory(&self, bits: u8) {
        if let Some(memory) = self.disk.files().memory.get_mut(&self.inode) {
            memory.unlock(self.holder, bits);
        }
    }

    pub(crate) fn unmap_memory(&mut self) {
        if std::mem::take(&mut self.shares_memory) {
            let mut files = self.disk.files();
            if files.memory.get_mut(&self.inode).is_some_and(|memory| memory.leave(self.holder)) {
                files.memory.remove(&self.inode);
            }
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.unmap_memory();
        self.unlock(Level::None);
        self.disk.closed(self.inode, self.has_name);
    }
}

/// Removes a file, and syncs the directory if asked to.
pub(crate) fn delete(disk: &Disk, name: &str, sync: bool) -> Result<(), Code> {
    let mut files = disk.files();
    fail(&mut files, FileKind::of(name), Call::Delete)?;
    if !files.unlink(name) {
        return Err(ffi::SQLITE_IOERR_DELETE_NOENT);
    }
    if sync {
        files.sync_directory(disk.lie());
    }
    Ok(())
}

/// Whether a file is there and has bytes in it, which is what the `unix` VFS calls existing.
pub(crate) fn exists(disk: &Disk, name: &str) -> Result<bool, Code> {
    let mut files = disk.files();
    fail(&mut files, FileKind::of(name), Call::Access)?;
    let inode = files.names.get(name);
    Ok(inode.and_then(|inode| files.contents.get(inode)).is_some_and(|content| !content.is_empty()))
}

fn fail(files: &mut Files, kind: FileKind, call: Call) -> Result<(), Code> {
    files.strike(kind, call).map_or(Ok(()), |fault| Err(fault.code(call)))
}

fn busy_unless(granted: bool) -> Result<(), Code> {
    if granted { Ok(()) } else { Err(ffi::SQLITE_BUSY) }
}
