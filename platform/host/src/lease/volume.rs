//! The directories of a leased volume: `data-<epoch>`, one for each holder, so that whatever an earlier holder's cell
//! still writes goes to files nobody uses.
//!
//! After a release nobody writes: the directory is renamed. Otherwise it is copied, each database's log before the
//! database. That order is enough. A page that a late checkpoint writes is of a frame that was committed while the
//! lease was valid, so the log that was copied before has it; and a log that a late writer begins anew while it is
//! copied had been copied back to the database, and synced, before. The index of the log (`-shm`) is made
//! anew. A copy gets its name when it is whole and synced: whoever claims next, after a crash, begins again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, ioctl_ficlone};

use super::LeaseError;

/// Makes the directory of `epoch`, which is held, from that of the holder before, and gives it to `uid`; its path.
/// Blocks for as long as copying takes. May be called again.
///
/// # Errors
/// [`LeaseError`]; what there was is untouched.
pub fn take_over(volume: &Path, epoch: u64, after_release: bool, uid: u32) -> Result<PathBuf, LeaseError> {
    let own = volume.join(format!("data-{epoch}"));
    let failed = |source| LeaseError::Io { action: "take over", path: volume.into(), source };
    if !own.exists() {
        let last = epochs(volume, "data-").map_err(failed)?.into_iter().filter(|&other| other < epoch).max();
        match last {
            Some(last) if after_release && last + 1 == epoch => {
                let last = volume.join(format!("data-{last}"));
                give(&last, uid)?;
                fs::rename(&last, &own).map_err(failed)?;
            }
            last => {
                let next = volume.join(format!("next-data-{epoch}"));
                match fs::remove_dir_all(&next) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
                    _ => {}
                }
                DirBuilder::new().mode(0o700).create(&next).map_err(failed)?;
                if let Some(last) = last {
                    copy(&volume.join(format!("data-{last}")), &next)?;
                }
                give(&next, uid)?;
                File::open(&next).and_then(|directory| directory.sync_all()).map_err(failed)?;
                fs::rename(&next, &own).map_err(failed)?;
            }
        }
        File::open(volume).and_then(|directory| directory.sync_all()).map_err(failed)?;
    }
    Ok(own)
}

/// Removes what earlier holders have left, once `epoch` is in use.
pub fn forget_old(volume: &Path, epoch: u64) {
    for prefix in ["data-", "next-data-"] {
        for old in epochs(volume, prefix).unwrap_or_default().into_iter().filter(|&old| old < epoch) {
            // What stays is removed after the next take-over.
            let _ = fs::remove_dir_all(volume.join(format!("{prefix}{old}")));
        }
    }
}

fn epochs(volume: &Path, prefix: &str) -> io::Result<Vec<u64>> {
    let names = fs::read_dir(volume)?.map(|entry| entry.map(|entry| entry.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    Ok(names.iter().filter_map(|name| name.to_str()?.strip_prefix(prefix)?.parse().ok()).collect())
}

/// The names in a directory, logs and journals first; never the index of a log.
fn in_order(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>()?;
    let ends = |path: &Path, suffix: &str| path.to_string_lossy().ends_with(suffix);
    paths.retain(|path| !ends(path, "-shm"));
    paths.sort_by_key(|path| !(ends(path, "-wal") || ends(path, "-journal")));
    Ok(paths)
}

/// Opens what a cell has left: a plain file that has no other name. The cell may have been a hostile guest's.
fn plain(path: &Path) -> Result<File, LeaseError> {
    let failed = |source| LeaseError::Io { action: "open", path: path.into(), source };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let reason = match (metadata.is_file(), metadata.nlink()) {
        (false, _) => "is not a file",
        (true, 1) => return Ok(file),
        (true, _) => "has another name, too",
    };
    Err(LeaseError::Foreign { path: path.into(), reason })
}

fn copy(from: &Path, to: &Path) -> Result<(), LeaseError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| LeaseError::Io { action: "copy", path, source }
    };
    for path in in_order(from).map_err(failed(from))? {
        let mut source = match plain(&path) {
            // A late writer has removed it.
            Err(LeaseError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
            source => source?,
        };
        let target = to.join(path.file_name().unwrap_or_default());
        let mut target = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(target)
            .map_err(failed(&path))?;
        // Shared blocks where the file system can, bytes where it cannot.
        if ioctl_ficlone(&target, &source).is_err() {
            io::copy(&mut source, &mut target).map_err(failed(&path))?;
        }
        target.sync_all().map_err(failed(&path))?;
    }
    Ok(())
}

/// Makes the directory and what is in it the cell's, whose user is another on each host.
fn give(directory: &Path, uid: u32) -> Result<(), LeaseError> {
    let failed = |source| LeaseError::Io { action: "change owner of", path: directory.into(), source };
    for path in in_order(directory).map_err(failed)? {
        fchown(plain(&path)?, Some(uid), Some(uid)).map_err(failed)?;
    }
    for path in indexes(directory).map_err(failed)? {
        // The index of a log: made anew.
        fs::remove_file(path).map_err(failed)?;
    }
    fchown(File::open(directory).map_err(failed)?, Some(uid), Some(uid)).map_err(failed)
}

fn indexes(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let paths = paths.collect::<io::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.to_string_lossy().ends_with("-shm")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn volume_with_data(epoch: u64) -> tempfile::TempDir {
        let volume = tempfile::tempdir().unwrap();
        let data = take_over(volume.path(), epoch, false, own()).unwrap();
        for (name, text) in [("app.db", "pages"), ("app.db-wal", "frames"), ("app.db-shm", "index")] {
            fs::write(data.join(name), text).unwrap();
        }
        volume
    }

    fn inode(path: PathBuf) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn what_a_silent_holder_still_writes_goes_to_other_files() {
        let volume = volume_with_data(1);
        let old = inode(volume.path().join("data-1/app.db-wal"));
        let own = take_over(volume.path(), 2, false, own()).unwrap();
        assert_eq!(fs::read(own.join("app.db-wal")).unwrap(), b"frames");
        assert_ne!(inode(own.join("app.db-wal")), old);
        assert!(!own.join("app.db-shm").exists());
        fs::write(volume.path().join("data-1/app.db-wal"), "late").unwrap();
        assert_eq!(fs::read(own.join("app.db-wal")).unwrap(), b"frames");
        forget_old(volume.path(), 2);
        assert!(!volume.path().join("data-1").exists() && own.exists());
    }

    #[test]
    fn after_a_release_the_files_are_taken_as_they_are_but_only_the_last_holder_s() {
        let volume = volume_with_data(1);
        let old = inode(volume.path().join("data-1/app.db"));
        let two = take_over(volume.path(), 2, true, own()).unwrap();
        assert_eq!(inode(two.join("app.db")), old);
        // Epoch 3 was claimed and released without ever making its directory: nobody has said that 2 is quiet.
        let four = take_over(volume.path(), 4, true, own()).unwrap();
        assert_ne!(inode(four.join("app.db")), old);
    }

    #[test]
    fn a_take_over_that_was_cut_off_is_done_again() {
        let volume = volume_with_data(1);
        let half = volume.path().join("next-data-2");
        fs::create_dir(&half).unwrap();
        fs::write(half.join("app.db"), "pa").unwrap();
        let own = take_over(volume.path(), 2, false, own()).unwrap();
        assert_eq!(fs::read(own.join("app.db")).unwrap(), b"pages");
        assert!(!half.exists());
    }

    #[test]
    fn what_no_cell_leaves_is_refused() {
        let volume = volume_with_data(1);
        std::os::unix::fs::symlink("/etc/passwd", volume.path().join("data-1/link")).unwrap();
        assert!(take_over(volume.path(), 2, false, own()).is_err());
        fs::remove_file(volume.path().join("data-1/link")).unwrap();
        fs::hard_link(volume.path().join("data-1/app.db"), volume.path().join("other")).unwrap();
        let refused = take_over(volume.path(), 2, true, own()).unwrap_err();
        assert!(refused.to_string().contains("has another name"), "{refused}");
        assert!(volume.path().join("data-1/app.db").exists());
    }
}
