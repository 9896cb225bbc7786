//! The directory of one epoch of a shared volume, `data-EPOCH`. A cell works in that of its epoch and knows no other.
//!
//! One that was given back is renamed. One that was not may still be written to by a cell that was stopped in the midst of
//! a system call: its databases are copied, log first, and what that cell does when it goes on, it does to files that nobody
//! uses any more. What it can do to them while they are copied is one write, for it looks at its lease before each commit
//! and each checkpoint: a frame of the log beyond the last commit, which is not acknowledged; or a page that a checkpoint
//! puts in the database's file, which is in the part of the log that was copied before.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use super::file::sync;
use super::{LeaseError, failed};
use crate::migration::files::{databases, log_of, regular};

const PREFIX: &str = "data-";
const PARTIAL: &str = ".data-new";

/// Makes the directory of `epoch` out of the one before, if it is not there; it is `uid`'s. May be interrupted anywhere
/// and done again. Blocks.
///
/// # Errors
/// [`LeaseError`].
pub fn prepare(volume: &Path, epoch: u64, clean: bool, uid: u32) -> Result<PathBuf, LeaseError> {
    let place = volume.join(format!("{PREFIX}{epoch}"));
    let partial = volume.join(PARTIAL);
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", partial)(error));
        }
        _ => {}
    }
    let there = epochs(volume)?;
    if !there.contains(&epoch) {
        let last = there.iter().filter(|last| **last < epoch).max();
        let last = last.map(|last| volume.join(format!("{PREFIX}{last}")));
        match last {
            Some(last) if clean => fs::rename(&last, &place).map_err(failed("rename", last))?,
            last => {
                DirBuilder::new().mode(0o700).create(&partial).map_err(failed("create", &partial))?;
                if let Some(last) = last {
                    copy_all(&last, &partial)?;
                }
                sync(&partial)?;
                fs::rename(&partial, &place).map_err(failed("rename", partial))?;
            }
        }
        sync(volume)?;
    }
    own(&place, uid)?;
    // Only now, with the new one on the disk.
    for old in epochs(volume)?.into_iter().filter(|old| *old < epoch) {
        let path = volume.join(format!("{PREFIX}{old}"));
        fs::remove_dir_all(&path).map_err(failed("remove", path))?;
    }
    Ok(place)
}

fn epochs(volume: &Path) -> Result<Vec<u64>, LeaseError> {
    let entries = fs::read_dir(volume).map_err(failed("list", volume))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok()).collect())
}

fn copy_all(from: &Path, to: &Path) -> Result<(), LeaseError> {
    for database in databases(from).map_err(failed("list", from))? {
        // The log first: what a checkpoint could still put in the file is in it.
        copy(&log_of(&database), to)?;
        copy(&database, to)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), LeaseError> {
    let Some(mut source) = regular(from).map_err(failed("open", from))? else { return Ok(()) };
    let path = to.join(from.file_name().unwrap_or_default());
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = made.map_err(failed("create", &path))?;
    // Shares the blocks where the file system can.
    io::copy(&mut source, &mut file).and_then(|_| file.sync_all()).map_err(failed("write", path))
}

/// Another host may have another user for the same VM.
fn own(place: &Path, uid: u32) -> Result<(), LeaseError> {
    let entries = fs::read_dir(place).map_err(failed("list", place))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    for path in paths.chain([place.to_owned()]) {
        std::os::unix::fs::lchown(&path, Some(uid), Some(uid))
            .map_err(failed("change the owner of", path))?;
    }
    chown(place, Some(uid), Some(uid)).map_err(failed("change the owner of", place))?;
    File::open(place).and_then(|directory| directory.sync_all()).map_err(failed("sync", place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn content(place: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(place)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn one_that_was_given_back_is_the_same_and_one_that_was_not_is_another() {
        let keep = tempfile::tempdir().unwrap();
        let first = prepare(keep.path(), 1, true, uid()).unwrap();
        fs::write(first.join("app.db"), b"a").unwrap();
        fs::write(first.join("app.db-wal"), b"b").unwrap();
        fs::write(first.join("app.db-shm"), b"c").unwrap();
        let zombie = OpenOptions::new().append(true).open(first.join("app.db")).unwrap();
        let second = prepare(keep.path(), 2, true, uid()).unwrap();
        io::Write::write_all(&mut &zombie, b"1").unwrap();
        assert_eq!(fs::read(second.join("app.db")).unwrap(), b"a1");
        let third = prepare(keep.path(), 4, false, uid()).unwrap();
        io::Write::write_all(&mut &zombie, b"2").unwrap();
        assert_eq!(fs::read(third.join("app.db")).unwrap(), b"a1");
        assert_eq!(content(&third), ["app.db", "app.db-wal"]);
        assert_eq!(content(keep.path()), ["data-4"]);
        // The same again changes nothing.
        assert_eq!(prepare(keep.path(), 4, false, uid()).unwrap(), third);
        assert_eq!(fs::read(third.join("app.db")).unwrap(), b"a1");
    }

    #[test]
    fn one_that_was_interrupted_is_done_again() {
        let keep = tempfile::tempdir().unwrap();
        let first = prepare(keep.path(), 1, true, uid()).unwrap();
        fs::write(first.join("app.db"), b"a").unwrap();
        fs::create_dir(keep.path().join(PARTIAL)).unwrap();
        fs::write(keep.path().join(PARTIAL).join("app.db"), b"half").unwrap();
        let next = prepare(keep.path(), 3, false, uid()).unwrap();
        assert_eq!(fs::read(next.join("app.db")).unwrap(), b"a");
    }
}
