//! How much of a write-ahead log is committed, as SQLite's own recovery finds out ("WAL File Format",
//! sqlite.org/fileformat2): what comes after the last commit may still be written over, and a frame may be half there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// The header's first word; its lowest bit tells the byte order of the sums.
const MAGIC: u32 = 0x377f_0682;

/// How far a log has been read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Tells one run of a log from the next: the log starts over with other salts.
    header: [u8; HEADER_BYTES],
    /// Everything before is committed, and stays as it is. 0 when nothing is known.
    pub(super) committed: u64,
    /// Of everything before.
    sum: Sum,
}

/// The running checksum of a log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum(u32, u32);

impl Sum {
    fn add(&mut self, bytes: &[u8], word: fn([u8; 4]) -> u32) {
        for pair in bytes.as_chunks().0.as_chunks::<2>().0 {
            self.0 = self.0.wrapping_add(word(pair[0])).wrapping_add(self.1);
            self.1 = self.1.wrapping_add(word(pair[1])).wrapping_add(self.0);
        }
    }
}

impl Position {
    /// Reads on to the last commit there is. Starts over if the log did; then `committed` may be smaller.
    pub(super) fn advance(&mut self, log: &File) -> io::Result<()> {
        let mut header = [0; HEADER_BYTES];
        if !read_whole(log, &mut header, 0)? {
            *self = Self::default();
            return Ok(());
        }
        let (magic, page) = (u32_at(&header, 0), u32_at(&header, 8));
        if magic & !1 != MAGIC || !(512..=65_536).contains(&page) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a write-ahead log"));
        }
        if header != self.header || self.committed == 0 {
            let sum = Sum(u32_at(&header, 24), u32_at(&header, 28));
            *self = Self { header, committed: HEADER_BYTES as u64, sum };
        }
        let word = if magic & 1 == 0 { u32::from_le_bytes } else { u32::from_be_bytes };
        let (mut at, mut sum) = (self.committed, self.sum);
        let mut frame = vec![0; FRAME_HEADER_BYTES + page as usize];
        while read_whole(log, &mut frame, at)? && frame[8..16] == header[16..24] {
            sum.add(&frame[..8], word);
            sum.add(&frame[FRAME_HEADER_BYTES..], word);
            if sum != Sum(u32_at(&frame, 16), u32_at(&frame, 20)) {
                break;
            }
            at += frame.len() as u64;
            let pages_after_commit = u32_at(&frame, 4);
            if pages_after_commit > 0 {
                (self.committed, self.sum) = (at, sum);
            }
        }
        Ok(())
    }

    /// Whether the log has started over since `earlier`.
    pub(super) fn restarted_since(&self, earlier: &Self) -> bool {
        self.header != earlier.header
    }
}

/// As the format has its numbers.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// Whether there was that much.
fn read_whole(file: &File, into: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(into, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    #[test]
    fn what_is_committed_is_told_from_what_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 2")
            .unwrap();
        db.execute_batch("CREATE TABLE t (x)").unwrap();
        let log = File::open(directory.path().join("a.db-wal")).unwrap();
        let mut position = Position::default();
        position.advance(&log).unwrap();
        let first = position;
        assert_eq!(first.committed, log.metadata().unwrap().len());
        // Spills into the log before it commits, for its cache is small.
        db.execute_batch("BEGIN").unwrap();
        for _ in 0..100 {
            db.execute("INSERT INTO t VALUES (randomblob(4000))", []).unwrap();
        }
        position.advance(&log).unwrap();
        assert_eq!(position, first);
        assert!(log.metadata().unwrap().len() > first.committed);
        db.execute_batch("COMMIT").unwrap();
        position.advance(&log).unwrap();
        assert_eq!(position.committed, log.metadata().unwrap().len());
        assert!(!position.restarted_since(&first));
        // Starts over.
        db.execute_batch("PRAGMA wal_checkpoint(RESTART); INSERT INTO t VALUES (1)").unwrap();
        let before = position;
        position.advance(&log).unwrap();
        assert!(position.restarted_since(&before) && position.committed < before.committed);
    }
}
