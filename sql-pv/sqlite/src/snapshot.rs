//! Copies of several databases as of one instant, while they are written to.
//!
//! A read transaction is begun in each. If nothing was committed to any of them from before the first until after the
//! last had begun, there was an instant at which they saw all of them; if something was, they are begun again. Nobody
//! waits for that, neither who writes nor who copies: a commit ends with an fsync, and to begin takes microseconds.
//! Then each is copied as its transaction sees it, for as long as that takes. Every page's checksum is looked at; of a
//! damaged database there is no such copy. Where the file system can share blocks, nothing is copied at all (see
//! `reflink`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::OpenFlags;
use rusqlite::backup::{Backup, StepResult};
use tracing::info;
use vamos_sql_checksum::Mismatch;

use crate::connection::{Conn, Role};
use crate::hold::DatabaseFiles;
use crate::limits::{SNAPSHOT_ATTEMPTS_MAX, SNAPSHOT_PAUSE};
use crate::reflink;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// One of the databases cannot be read, or its copy not be written.
    #[error("copy {} to {}", .from.display(), .to.display())]
    Copy {
        /// The database.
        from: PathBuf,
        /// Its copy.
        to: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// One of the databases is damaged.
    #[error("copy {}: {found}", .from.display())]
    Damaged {
        /// The database.
        from: PathBuf,
        /// The page.
        found: Mismatch,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// An old copy is in the way.
    #[error("remove {}", .0.display())]
    InTheWay(PathBuf, #[source] io::Error),
    /// Somebody commits all the time.
    #[error(
        "the databases were committed to at each of {SNAPSHOT_ATTEMPTS_MAX} instants; try when less is written"
    )]
    Busy,
}

/// A database at one instant.
pub(crate) struct Instant {
    reading: Conn,
    watching: Conn,
    seen: i64,
}

/// Copies databases as they are at one instant, each to the path that stands with it. A file that is there is
/// replaced. Not synced.
///
/// # Errors
/// [`SnapshotError`]; copies that have been made stay.
pub fn snapshot(databases: &[(DatabaseFiles, PathBuf)]) -> Result<(), SnapshotError> {
    for (_, to) in databases {
        match fs::remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(SnapshotError::InTheWay(to.clone(), error));
            }
            _ => {}
        }
    }
    let mut instants = connect(databases)?;
    if reflink::clone(databases, &instants)? {
        info!(databases = databases.len(), "snapshot of shared blocks");
        return Ok(());
    }
    begin(&mut instants, databases)?;
    for ((files, to), instant) in databases.iter().zip(&instants) {
        copy(&instant.reading, to).map_err(failed(files, to))?;
    }
    Ok(())
}

pub(crate) fn failed<'f>(
    files: &'f DatabaseFiles,
    to: &Path,
) -> impl Fn(rusqlite::Error) -> SnapshotError + use<'f> {
    let (from, to) = (files.path().to_owned(), to.to_owned());
    move |source| match files.mismatch(&source) {
        Some(found) => SnapshotError::Damaged { from: from.clone(), found, source },
        None => SnapshotError::Copy { from: from.clone(), to: to.clone(), source },
    }
}

fn connect(databases: &[(DatabaseFiles, PathBuf)]) -> Result<Vec<Instant>, SnapshotError> {
    let connect = |(files, to): &(DatabaseFiles, PathBuf)| {
        let connect = || files.connect(Role::Reader).map_err(failed(files, to));
        Ok(Instant { reading: connect()?, watching: connect()?, seen: 0 })
    };
    databases.iter().map(connect).collect()
}

/// Has all of them read as of one instant.
fn begin(instants: &mut [Instant], databases: &[(DatabaseFiles, PathBuf)]) -> Result<(), SnapshotError> {
    for attempt in 1..=SNAPSHOT_ATTEMPTS_MAX {
        let mut quiet = true;
        for (instant, (files, to)) in instants.iter_mut().zip(databases) {
            instant.begin().map_err(failed(files, to))?;
        }
        for (instant, (files, to)) in instants.iter().zip(databases) {
            quiet &= instant.is_last().map_err(failed(files, to))?;
        }
        if quiet {
            info!(databases = databases.len(), attempt, "snapshot");
            return Ok(());
        }
        std::thread::sleep(SNAPSHOT_PAUSE);
    }
    Err(SnapshotError::Busy)
}

impl Instant {
    /// Reads from now on what is committed now.
    fn begin(&mut self) -> rusqlite::Result<()> {
        self.reading.roll_back()?;
        self.seen = self.version()?;
        self.reading.engine("BEGIN")?;
        // A transaction begins to read with its first statement.
        self.reading.engine("SELECT count(*) FROM sqlite_schema")
    }

    /// Whether nothing was committed since just before.
    fn is_last(&self) -> rusqlite::Result<bool> {
        Ok(self.version()? == self.seen)
    }

    /// Changes with each commit of another connection.
    pub(crate) fn version(&self) -> rusqlite::Result<i64> {
        self.watching.aside(|db| db.pragma_query_value(None, "data_version", |row| row.get(0)))
    }
}

/// As the transaction that is open sees it.
fn copy(reading: &Conn, to: &Path) -> rusqlite::Result<()> {
    let mut copy = vamos_sql_checksum::open(to, OpenFlags::default())?;
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    if reading.aside(vamos_sql_checksum::is_prepared)? {
        // Before its first page comes with the others, which may be written first.
        let page_bytes: i64 =
            reading.aside(|db| db.pragma_query_value(None, "page_size", |row| row.get(0)))?;
        copy.pragma_update(None, "page_size", page_bytes)?;
        vamos_sql_checksum::prepare(&copy)?;
    }
    let backup = Backup::new(&reading.db, &mut copy)?;
    loop {
        match backup.step(-1)? {
            StepResult::Done => return Ok(()),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
