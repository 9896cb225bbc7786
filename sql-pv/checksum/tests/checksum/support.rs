//! Databases to be damaged.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};
use vamos_sql_checksum::{Mismatch, is_mismatch, mismatch, prepare};

pub const PAGE: usize = 4_096;

/// Opens a database with checksums; a new one gets a log.
pub fn open(path: &Path) -> Connection {
    let db = vamos_sql_checksum::open(path, OpenFlags::default()).unwrap();
    db.execute_batch("PRAGMA page_size = 4096").unwrap();
    prepare(&db).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0").unwrap();
    db
}

/// As any other program opens it.
pub fn open_plainly(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

/// A table with an index and values that fill pages of their own, all of it in the database file.
pub fn fill(path: &Path) {
    let db = open(path);
    db.execute_batch(
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); CREATE INDEX i ON t (b);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO t SELECT i, printf('%064d', i) FROM n;
         CREATE TABLE long (x); INSERT INTO long VALUES (hex(zeroblob(30000))), ('short');
         PRAGMA wal_checkpoint(TRUNCATE)",
    )
    .unwrap();
}

/// Reads every page.
pub fn read_all(path: &Path) -> rusqlite::Result<()> {
    let db = vamos_sql_checksum::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut copy = Connection::open_in_memory()?;
    let backup = Backup::new(&db, &mut copy)?;
    backup.step(-1).map(drop)
}

/// The pages that reading all of them, one database for each damage, was refused for.
pub fn found(path: &Path) -> Mismatch {
    let error = read_all(path).expect_err("damage was read");
    assert!(is_mismatch(&error), "{error:?}");
    known(path)
}

pub fn known(path: &Path) -> Mismatch {
    mismatch(fs::canonicalize(path).unwrap().to_str().unwrap()).expect("nothing was named")
}

/// The log of a database.
pub fn log(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

/// What a kill would leave: database and log as they are.
pub fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    fs::copy(log(from), log(to)).unwrap();
}

pub fn rows(db: &Connection) -> i64 {
    db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

pub fn check(db: &Connection) {
    let said: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(said, "ok");
}
