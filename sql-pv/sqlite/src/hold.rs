//! Holding a database's files still enough to be copied while it is written to.
//!
//! A read transaction that stays open pins the write-ahead log: it is not restarted, and nothing of it that is newer
//! than the transaction is copied into the database file. So a copy of the database file, however long it takes and
//! whatever is written meanwhile, followed by a copy of the log from its beginning, is the database: every page that
//! may have changed in the file while it was copied is in the log, and the log has precedence. If the log had been
//! copied into the file completely when the transaction began, the next write still restarts it, once; its header
//! tells.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use vamos_sql_checksum::Mismatch;

use crate::connection::{Conn, Role};
use crate::engine::{Database, SqliteEngine};

/// A database's files, for who copies them. Does not keep the engine open.
#[derive(Clone)]
pub struct DatabaseFiles {
    database: Arc<Database>,
}

/// As long as this lives, a database's log is only appended to. It is written to all the same.
pub struct Hold {
    _pinning: Conn,
}

impl SqliteEngine {
    /// The database's files.
    pub fn files(&self) -> DatabaseFiles {
        DatabaseFiles { database: self.database().clone() }
    }
}

impl DatabaseFiles {
    /// The database's file.
    pub(crate) fn path(&self) -> &Path {
        &self.database.path
    }

    pub(crate) fn mismatch(&self, error: &rusqlite::Error) -> Option<Mismatch> {
        self.database.mismatch(error)
    }

    pub(crate) fn connect(&self, role: Role) -> rusqlite::Result<Conn> {
        self.database.connect(role)
    }

    /// Pins the log. Blocks for as long as a disk takes.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn hold(&self) -> rusqlite::Result<Hold> {
        let pinning = self.database.connect(Role::Reader)?;
        pinning.engine("BEGIN")?;
        // A transaction begins to read with its first statement.
        pinning.engine("SELECT count(*) FROM sqlite_schema")?;
        Ok(Hold { _pinning: pinning })
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}
