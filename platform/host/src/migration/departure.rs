//! The copy of a volume that is written to while it is copied: first the databases' files, then their logs, over and
//! over, until what is left is little; and when nothing writes any more, that. `sql-pv/sqlite/src/hold.rs` says why the
//! copy is right.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::files::{self, log_of, regular};
use super::log::Position;
use super::{MigrationError, failed};
use crate::limits::{MIGRATION_PIECE_BYTES, MIGRATION_ROUNDS_MAX, MIGRATION_TAIL_BYTES};

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The file's name in the volume.
    pub file: String,
    /// Where it belongs.
    pub offset: u64,
    /// What belongs there.
    pub content: Vec<u8>,
    /// How long the file is, when that is known.
    pub length: Option<u64>,
}

/// Takes pieces; false when nobody wants them any more.
pub(super) type Sink<'s> = &'s mut dyn FnMut(Piece) -> bool;

/// How far a volume has been copied.
#[derive(Debug, Default, Clone)]
pub(super) struct Copied {
    /// By database.
    logs: BTreeMap<PathBuf, Position>,
}

impl Copied {
    /// Copies while the volume is written to; false when nobody wanted it.
    pub(super) fn online(volume: &Path, sink: Sink<'_>) -> Result<Option<Self>, MigrationError> {
        let mut copied = Self::default();
        for path in files::databases(volume).map_err(failed("list", volume))? {
            if !whole(&path, sink)? {
                return Ok(None);
            }
            copied.logs.insert(path, Position::default());
        }
        for _ in 0..MIGRATION_ROUNDS_MAX {
            let mut sent = 0;
            for (path, position) in &mut copied.logs {
                match log(path, position, false, sink)? {
                    Some(bytes) => sent += bytes,
                    None => return Ok(None),
                }
            }
            if sent <= MIGRATION_TAIL_BYTES {
                break;
            }
        }
        Ok(Some(copied))
    }

    /// Copies the rest, now that nothing writes.
    pub(super) fn rest(&mut self, sink: Sink<'_>) -> Result<bool, MigrationError> {
        for (path, position) in &mut self.logs {
            if log(path, position, true, sink)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Copies a database's file from end to end.
fn whole(path: &Path, sink: Sink<'_>) -> Result<bool, MigrationError> {
    let Some(file) = regular(path).map_err(failed("open", path))? else { return Ok(true) };
    let length = file.metadata().map_err(failed("look up", path))?.len();
    let mut offset = 0;
    loop {
        let content = read(&file, offset, length).map_err(failed("read", path))?;
        let end = offset + content.len() as u64;
        // Cut short under our hands, it would never end.
        let is_last = end >= length || content.is_empty();
        if !sink(Piece { file: name(path), offset, content, length: is_last.then_some(end) }) {
            return Ok(false);
        }
        offset = end;
        if is_last {
            return Ok(true);
        }
    }
}

/// Copies what is new and committed in a database's log, and how long that makes it; how many bytes it was.
fn log(
    database: &Path,
    position: &mut Position,
    is_last: bool,
    sink: Sink<'_>,
) -> Result<Option<u64>, MigrationError> {
    let path = log_of(database);
    let before = *position;
    let file = regular(&path).map_err(failed("open", &path))?;
    match &file {
        Some(file) => position.advance(file).map_err(failed("read", &path))?,
        None => *position = Position::default(),
    }
    let mut offset = if position.restarted_since(&before) { 0 } else { before.committed };
    let first = offset;
    if let Some(file) = &file {
        while offset < position.committed {
            let content = read(file, offset, position.committed).map_err(failed("read", &path))?;
            if content.is_empty() {
                return Err(failed("read", path)(io::ErrorKind::UnexpectedEof.into()));
            }
            let end = offset + content.len() as u64;
            if !sink(Piece { file: name(&path), offset, content, length: None }) {
                return Ok(None);
            }
            offset = end;
        }
    }
    let length = Some(position.committed);
    let end = Piece { file: name(&path), offset: position.committed, content: Vec::new(), length };
    if is_last && !sink(end) {
        return Ok(None);
    }
    Ok(Some(position.committed.saturating_sub(first)))
}

fn read(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut content = vec![0; usize::try_from(to - from).unwrap_or(usize::MAX).min(MIGRATION_PIECE_BYTES)];
    let mut filled = 0;
    while filled < content.len() {
        match file.read_at(&mut content[filled..], from + filled as u64)? {
            0 => break,
            bytes => filled += bytes,
        }
    }
    content.truncate(filled);
    Ok(content)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
