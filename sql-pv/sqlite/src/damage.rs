//! A database that is damaged: found out once, named by page, and refused from then on.
//!
//! SQLite notices damage only where a statement comes upon it; the next one may not, and be answered from half a
//! table. So the first one to notice has the file examined, and until that says that it is sound nothing of it is
//! served any more. Other databases of the volume go on.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libsqlite3_sys as ffi;
use rusqlite::{Connection, OpenFlags};
use vamos_sql_server::SqlError;

use crate::limits::{DAMAGE_EXAMINATION_MAX, DAMAGE_LOOK_MAX, PROGRESS_INSTRUCTIONS};
use crate::sqlstate;

/// What is known of one database.
#[derive(Debug)]
pub(crate) struct Damage {
    path: PathBuf,
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
        Arc::new(Self { path, state: Mutex::new(State::Sound) })
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
        let found = self.first_of_integrity_check();
        let state = match found {
            Ok(None) => State::Sound,
            Ok(Some(found)) => State::Damaged(found),
            Err(error) => State::Damaged(error.to_string()),
        };
        match &state {
            State::Damaged(found) => {
                tracing::error!(database = %self.path.display(), found, "the database is damaged and not served any more");
            }
            _ => {
                tracing::warn!(database = %self.path.display(), "the database was said to be damaged, and is not")
            }
        }
        *self.state() = state;
    }

    /// The first thing that is wrong, by tree and page; nothing if all is well.
    fn first_of_integrity_check(&self) -> rusqlite::Result<Option<String>> {
        let mut db = Connection::open_with_flags(
            &self.path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
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
