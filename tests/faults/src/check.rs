//! What SQLite finds on a disk, every page held against its checksum, and whether it may.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::OpenFlags;

use crate::disk::Disk;
use crate::history::{Judge, Ledger, Wrong};

/// The database's name on every disk.
pub const DATABASE: &str = "catalog";

/// Who makes the tables that all writers share.
pub const SETUP: usize = 0;

/// What is wrong with a disk.
#[derive(Debug)]
pub enum Finding {
    /// SQLite could not read it.
    Unreadable(rusqlite::Error),
    /// The engine could not serve it.
    Engine(String),
    /// `PRAGMA integrity_check` says so.
    Damaged(String),
    /// A writer's row is there more than once.
    Twice {
        /// Whose.
        writer: usize,
        /// Which.
        number: i64,
    },
    /// A row is not what its writer wrote.
    Garbled {
        /// Whose.
        writer: usize,
        /// Which.
        number: i64,
    },
    /// Something acknowledged is missing, or there is what cannot be.
    Wrong(Box<Wrong>),
}

impl From<rusqlite::Error> for Finding {
    fn from(error: rusqlite::Error) -> Self {
        Finding::Unreadable(error)
    }
}

/// The bytes a writer's row holds: they tell whose it is and do not repeat within it.
pub fn payload(writer: usize, number: i64, bytes: usize) -> Vec<u8> {
    let mut payload = vec![0; bytes];
    for (at, chunk) in payload.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&word(writer, number, bytes, at)[..chunk.len()]);
    }
    payload
}

fn is_payload(writer: usize, number: i64, payload: &[u8]) -> bool {
    // By words: this is what a cut's check would otherwise spend most of its time on.
    let (words, rest) = payload.as_chunks::<8>();
    let of = |at| word(writer, number, payload.len(), at);
    words.iter().enumerate().all(|(at, found)| u64::from_le_bytes(*found) == u64::from_le_bytes(of(at)))
        && *rest == of(words.len())[..rest.len()]
}

fn word(writer: usize, number: i64, bytes: usize, at: usize) -> [u8; 8] {
    let seed = (writer as u64) << 48 ^ (number as u64) << 24 ^ bytes as u64;
    (seed ^ (at as u64).wrapping_mul(0x9e37_79b9)).to_le_bytes()
}

/// Holds a disk against a history; how much had reached the disk says what may be on it.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(disk: &Arc<Disk>, judge: &Judge<'_>, position: usize) -> Result<(), Finding> {
    judge.judge(position, &look(disk)?).map_err(Finding::Wrong)
}

/// Reads everybody's data.
///
/// # Errors
/// What is wrong with the disk, whatever may be on it.
pub fn look(disk: &Disk) -> Result<BTreeMap<usize, Ledger>, Finding> {
    let path = disk.directory().join(format!("{DATABASE}.db"));
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = vamos_sql_checksum::open(Path::new(&path), flags)?;
    let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Finding::Damaged(verdict));
    }
    let mut found: BTreeMap<usize, Ledger> = BTreeMap::new();
    let mut schema = db.prepare(
        "SELECT name FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*' AND name NOT GLOB '_vamos_*'",
    )?;
    let names = schema.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let has = |name: &str| names.iter().any(|known| known == name);
    if has("ledger") {
        let mut rows = db.prepare("SELECT writer, number, payload FROM ledger")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let (writer, number) = (row.get::<_, i64>(0)? as usize, row.get(1)?);
            let bytes = row.get_ref(2)?.as_blob().unwrap_or_default();
            if !is_payload(writer, number, bytes) {
                return Err(Finding::Garbled { writer, number });
            }
            if found.entry(writer).or_default().rows.insert(number, bytes.len()).is_some() {
                return Err(Finding::Twice { writer, number });
            }
        }
    }
    if has("counters") {
        let mut counters = db.prepare("SELECT writer, count FROM counters")?;
        let mut counters = counters.query([])?;
        while let Some(row) = counters.next()? {
            found.entry(row.get::<_, i64>(0)? as usize).or_default().count = row.get(1)?;
        }
    }
    if has("accounts") {
        let mut accounts = db.prepare("SELECT writer, side, balance FROM accounts")?;
        let mut accounts = accounts.query([])?;
        while let Some(row) = accounts.next()? {
            let side = row.get::<_, i64>(1)? as usize;
            found.entry(row.get::<_, i64>(0)? as usize).or_default().balances[side & 1] = row.get(2)?;
        }
    }
    for name in names {
        found.entry(owner(&name)).or_default().tables.insert(name);
    }
    Ok(found)
}

/// Whose a table is: `t3_7` is writer 3's, and what is not named so was made by the setup.
fn owner(name: &str) -> usize {
    let number = name.strip_prefix('t').and_then(|rest| rest.split_once('_'));
    number.and_then(|(writer, _)| writer.parse().ok()).unwrap_or(SETUP)
}
