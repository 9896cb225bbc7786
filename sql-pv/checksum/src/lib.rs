//! Checksums in the pages of SQLite databases: what a disk gives back is what was written, or a named error.
//!
//! SQLite finds a damaged page only where its structure is wrong. Here each page of a database carries a checksum of
//! itself and of its number, put there when it is written and held against it whenever it is read: a flipped bit, a page
//! that was never written or was written elsewhere is `SQLITE_IOERR_DATA`, and [`mismatch`] names it. It is a VFS that
//! stands on whichever one is the default ([`open`]) and touches nothing but pages of databases and their logs:
//!
//! ```text
//!  SQLite ── page ──▶ seal (page.rs) ──▶ the VFS below ──▶ file       [ content │ checksum 8 │ balance 8 ]
//!  SQLite ◀── page ── sound? ◀────────── the VFS below ◀── file         of a page, the last 16 bytes reserved
//! ```
//!
//! The checksum stands in bytes that SQLite itself reserves at the end of each page (header byte 20, "Reserved bytes per
//! page", sqlite.org/fileformat2), so that any SQLite can read such a database. In the write-ahead log each frame has a
//! checksum of SQLite's own, over the page as SQLite handed it over, on which those of all later frames build. The
//! *balance* lets it hold: eight bytes chosen so that the frame's checksum comes out as before. So the log is as good to
//! SQLite's recovery as without us, and whoever copies it into the database, with this VFS or without, copies
//! checksums with the pages. Who *writes* without it leaves pages that are taken for damaged, once they are in the database.
//!
//! A database that was made without the reserved bytes is used as it is. A database that is written without a log may
//! have pages that nobody ever wrote; there, and only there, a page of nothing but zeros is let pass. Page sizes are
//! taken to stay: a database in WAL mode cannot change its own. Journals and temporary files are not looked at, memory
//! is never mapped.
//!
//! Why our own: the crates there are (`sqlite-plugin`, `sqlite-vfs`) replace a VFS with all its locks and shared memory,
//! none stands on one; SQLite's own `cksumvfs` is no part of the amalgamation, does not cover the page's number, and
//! its checksums in the log break the frames' own.
//!
//! Knows nothing of the engine, and not what is done about damage.

mod file;
mod log;
mod page;
mod record;
mod scheme;
mod vfs;

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

pub use page::RESERVED_BYTES;
pub use record::{Mismatch, mismatch};

/// Opens a database with its pages' checksums looked at, on the VFS that is the default now.
///
/// # Errors
/// SQLite's own.
pub fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    Connection::open_with_flags_and_vfs(path, flags, vfs::over_default()?)
}

/// Has a database that is still empty carry checksums; any other stays as it is. Its page size has to be settled. Writes
/// the first page, which says so to every other connection.
///
/// # Errors
/// SQLite's own.
pub fn prepare(db: &Connection) -> rusqlite::Result<()> {
    if db.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0))? > 0 {
        return Ok(());
    }
    vfs::reserve(db, Some(RESERVED_BYTES))?;
    db.execute_batch("PRAGMA user_version = 0")
}

/// Whether a database's pages carry checksums.
///
/// # Errors
/// SQLite's own.
pub fn is_prepared(db: &Connection) -> rusqlite::Result<bool> {
    // Only a connection that has read the first page knows.
    db.query_row("PRAGMA page_count", [], |_| Ok(()))?;
    Ok(vfs::reserve(db, None)? == RESERVED_BYTES)
}

/// Whether an error says that a page is not what was written.
pub fn is_mismatch(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_DATA)
}
