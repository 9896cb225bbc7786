//! Which page of a database was found to be another than was written: SQLite's error cannot say it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// One entry for each damaged database.
static FOUND: Mutex<BTreeMap<String, Mismatch>> = Mutex::new(BTreeMap::new());

/// A page that is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    /// Its number in the database, from 1.
    pub page: u32,
    /// It was read from the write-ahead log.
    pub in_log: bool,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.in_log { " in the write-ahead log" } else { "" };
        write!(f, "page {}{place} is not what was written (its checksum is another)", self.page)
    }
}

/// What was found last of a database, which is named as its connection has it ([`rusqlite::Connection::path`]).
pub fn mismatch(path: &str) -> Option<Mismatch> {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied()
}

pub(crate) fn note(path: &str, found: Mismatch) {
    tracing::error!(database = path, %found, "a damaged page");
    FOUND.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), found);
}
