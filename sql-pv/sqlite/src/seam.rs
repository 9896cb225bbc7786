//! The engine's boundaries that tests can have fail or be the end of the process, by name. Nothing in a release.

use libsqlite3_sys as ffi;
use vamos_seam::{Point, fails};

/// Passes a point.
///
/// # Errors
/// That of a disk, if a test wants one.
#[inline]
pub(crate) fn pass(point: Point) -> rusqlite::Result<()> {
    if fails(point) {
        let message = format!("a test has {} fail", point.name());
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_WRITE), Some(message)));
    }
    Ok(())
}
