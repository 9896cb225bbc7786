//! Copies of databases that share their blocks with the originals, where the file system can do that: made in moments,
//! however large a database is, and without a byte of it being read.
//!
//! While a database is held, its file is a base that its log completes, whenever each of them is copied. So the files
//! are cloned first, and then the logs, all at one instant: if anything was committed from before the first until after
//! the last, they are cloned again. At last each log is copied back into its clone, which is one file then.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::OpenFlags;
use rustix::fs::ioctl_ficlone;
use rustix::io::Errno;

use crate::hold::DatabaseFiles;
use crate::limits::{REFLINK_ATTEMPTS_MAX, SNAPSHOT_PAUSE};
use crate::snapshot::{Instant, SnapshotError, failed};

/// What the clone of a database has beside it until it is whole.
const LOG_SUFFIX: &str = "-wal";

/// Clones databases as they are at one instant. False, and nothing is left, if the file system cannot do that, or too
/// much is committed for it.
///
/// # Errors
/// SQLite's own.
pub(crate) fn clone(
    databases: &[(DatabaseFiles, PathBuf)],
    instants: &[Instant],
) -> Result<bool, SnapshotError> {
    let mut holds = Vec::new();
    for (files, to) in databases {
        holds.push(files.hold().map_err(failed(files, to))?);
        if !share(files.path(), to) {
            sweep(databases);
            return Ok(false);
        }
    }
    for _ in 0..REFLINK_ATTEMPTS_MAX {
        if logs(databases, instants)? {
            for (files, to) in databases {
                complete(to).map_err(failed(files, to))?;
            }
            return Ok(true);
        }
        std::thread::sleep(SNAPSHOT_PAUSE);
    }
    sweep(databases);
    Ok(false)
}

/// Clones the logs; whether nothing was committed meanwhile.
fn logs(databases: &[(DatabaseFiles, PathBuf)], instants: &[Instant]) -> Result<bool, SnapshotError> {
    let versions = || -> Result<Vec<i64>, SnapshotError> {
        let of = |(instant, (files, to)): (&Instant, &(DatabaseFiles, PathBuf))| {
            instant.version().map_err(failed(files, to))
        };
        instants.iter().zip(databases).map(of).collect()
    };
    let before = versions()?;
    let cloned = databases.iter().all(|(files, to)| share(&beside(files.path()), &beside(to)));
    Ok(cloned && versions()? == before)
}

/// Has a new file share the blocks of another.
fn share(from: &Path, to: &Path) -> bool {
    let shared = || -> io::Result<()> {
        let (from, to) = (File::open(from)?, File::create(to)?);
        Ok(ioctl_ficlone(&to, &from)?)
    };
    match shared() {
        Ok(()) => true,
        Err(error) => {
            // The usual: the file system has no shared blocks.
            if error.raw_os_error() != Some(Errno::OPNOTSUPP.raw_os_error()) {
                tracing::debug!(from = %from.display(), %error, "clone a file");
            }
            false
        }
    }
}

/// Copies the log into its clone.
fn complete(to: &Path) -> rusqlite::Result<()> {
    let db = vamos_sql_checksum::open(to, OpenFlags::default())?;
    // Nobody else knows of it; it is synced when it is put where it belongs.
    db.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = OFF; PRAGMA journal_mode = DELETE",
    )
}

fn beside(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(LOG_SUFFIX);
    PathBuf::from(name)
}

/// Removes what there is of clones.
fn sweep(databases: &[(DatabaseFiles, PathBuf)]) {
    for (_, to) in databases {
        for file in [to.clone(), beside(to)] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = %file.display(), %error, "remove a clone");
                }
                _ => {}
            }
        }
    }
}
