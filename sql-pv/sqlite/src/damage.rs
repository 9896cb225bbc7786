//! A database that is damaged: found out once, named by page, and refused from then on.
//!
//! Damage is noticed where a statement comes upon it; the next one may not, and be answered from half a table. A page
//! whose checksum is another is named at once. What only SQLite notices (pages without checksums, and what was damaged
//! before it was written) has the file examined, and until that says that it is sound nothing of it is served any
//! more. Other databases of the volume go on.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libsqlite3_sys as ffi;
use rusqlite::OpenFlags;
use vamos_sql_checksum::Mismatch;
use vamos_sql_server::SqlError;

use crate::limits::{DAMAGE_EXAMINATION_MAX, DAMAGE_LOOK_MAX, PROGRESS_INSTRUCTIONS};
use crate::sqlstate;

/// What is known of one database.
#[derive(Debug)]
pub(crate) struct Damage {
    path: PathBuf,
    /// The same, as SQLite names it.
    known_as: OnceLock<String>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Sound,
    Examined,
    Damaged(String),
}

impl Damage {
    pub(crate) fn none(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, known_as: OnceLock::new(), state: Mutex::new(State::Sound) })
    }

    /// How a connection to the database names it.
    pub(crate) fn is_known_as(&self, path: Option<&str>) {
        if let Some(path) = path {
            self.known_as.get_or_init(|| path.to_owned());
        }
    }

    /// The page whose checksum was another.
    pub(crate) fn mismatch(&self) -> Option<Mismatch> {
        vamos_sql_checksum::mismatch(self.known_as.get()?)
    }

    /// Refuses to serve a database that is damaged, or is just being looked at for that.
    pub(crate) fn refuse(&self) -> Result<(), SqlError> {
        match &*self.state() {
            State::Sound => Ok(()),
            State::Examined => Err(self.error("it is being examined")),
            State::Damaged(place) => Err(self.error(place)),
        }
    }

    /// A statement has come upon damage: what to tell its client. Waits a moment for where it is; a long
    /// examination goes on by itself.
    pub(crate) fn noticed(self: &Arc<Self>, code: i32) -> Option<SqlError> {
        // Of a virtual table, or of the table of sequences: those are the guest's to write.
        if matches!(code, ffi::SQLITE_CORRUPT_VTAB | ffi::SQLITE_CORRUPT_SEQUENCE) {
            return None;
        }
        if code == ffi::SQLITE_IOERR_DATA {
            self.found(self.state(), self.place_of_mismatch());
            return self.refuse().err();
        }
        let is_first = {
            let mut state = self.state();
            let is_first = *state == State::Sound;
            if is_first {
                *state = State::Examined;
            }
            is_first
        };
        if is_first {
            let own = self.clone();
            let started =
                thread::Builder::new().name("sqlite-examiner".to_owned()).spawn(move || own.examine());
            if let Err(error) = started {
                tracing::error!(%error, "start the examination of a damaged database");
                *self.state() = State::Damaged("where is not known".to_owned());
            }
        }
        let end = Instant::now() + DAMAGE_LOOK_MAX;
        while *self.state() == State::Examined && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        self.refuse().err()
    }

    fn examine(&self) {
        let found = match self.first_of_integrity_check() {
            Ok(found) => found,
            Err(error) if vamos_sql_checksum::is_mismatch(&error) => Some(self.place_of_mismatch()),
            Err(error) => Some(error.to_string()),
        };
        let mut state = self.state();
        match found {
            Some(found) => self.found(state, found),
            // Somebody may have come upon a checksum meanwhile.
            None if *state == State::Examined => {
                tracing::warn!(database = %self.path.display(), "the database was said to be damaged, and is not");
                *state = State::Sound;
            }
            None => {}
        }
    }

    /// What is found first stays.
    fn found(&self, mut state: MutexGuard<'_, State>, found: String) {
        if !matches!(*state, State::Damaged(_)) {
            tracing::error!(database = %self.path.display(), found, "the database is damaged and not served any more");
            *state = State::Damaged(found);
        }
    }

    fn place_of_mismatch(&self) -> String {
        self.mismatch().map_or_else(|| "where is not known".to_owned(), |found| found.to_string())
    }

    /// The first thing that is wrong, by tree and page; nothing if all is well.
    fn first_of_integrity_check(&self) -> rusqlite::Result<Option<String>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = vamos_sql_checksum::open(&self.path, flags)?;
        let end = Instant::now() + DAMAGE_EXAMINATION_MAX;
        db.progress_handler(PROGRESS_INSTRUCTIONS, Some(move || Instant::now() >= end))?;
        let said: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok((said != "ok").then_some(said))
    }

    fn error(&self, found: &str) -> SqlError {
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy();
        SqlError::new(
            sqlstate::DATA_CORRUPTED,
            format!("the database {name} is damaged, and is not served: {found}"),
        )
        .hint("Restore it from a snapshot.")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
