//! An open database, or its log, as SQLite reads and writes it: pages are sealed and looked at, everything else passes.
//! In safe terms; codes are SQLite's.

use std::ffi::c_int;
use std::sync::Arc;

use rusqlite::ffi;

use crate::log;
use crate::page;
use crate::record::{self, Mismatch};
use crate::scheme::{self, Known, Scheme};

/// The file below.
pub(crate) trait Below {
    fn read(&mut self, into: &mut [u8], at: u64) -> c_int;
    fn write(&mut self, data: &[u8], at: u64) -> c_int;
}

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Database,
    Log,
}

/// What is kept for an open file.
pub(crate) struct File {
    kind: Kind,
    known: Arc<Known>,
    /// Of the database, as its connection names it.
    path: Box<str>,
    /// Where the page of the frame begins whose header was written last, and its number.
    announced: Option<(u64, u32)>,
    /// A page, with its frame's header.
    scratch: Vec<u8>,
}

impl File {
    pub(crate) fn new(kind: Kind, known: Arc<Known>, path: &str) -> Self {
        Self { kind, known, path: path.into(), announced: None, scratch: Vec::new() }
    }

    pub(crate) fn known(&self) -> &Arc<Known> {
        &self.known
    }

    pub(crate) fn read(&mut self, below: &mut impl Below, into: &mut [u8], at: u64) -> c_int {
        match self.kind {
            Kind::Database => self.read_database(below, into, at),
            Kind::Log => self.read_log(below, into, at),
        }
    }

    pub(crate) fn write(&mut self, below: &mut impl Below, data: &[u8], at: u64) -> c_int {
        match self.kind {
            Kind::Database => self.write_database(below, data, at),
            Kind::Log => self.write_log(below, data, at),
        }
    }

    fn read_database(&mut self, below: &mut impl Below, into: &mut [u8], at: u64) -> c_int {
        let code = below.read(into, at);
        if at == 0 && code == ffi::SQLITE_OK {
            self.known.learn(into);
        }
        let Scheme::Sealed { page_bytes, logged } = self.known.scheme() else {
            let is_first = at == 0 && code == ffi::SQLITE_OK && is_page(into);
            return if is_first && scheme::is_disguised(into, &mut self.scratch) {
                self.damaged(1)
            } else {
                code
            };
        };
        if into.len() != page_bytes || !at.is_multiple_of(page_bytes as u64) {
            return code;
        }
        let number = number_at(at, page_bytes);
        let is_sound = match code {
            ffi::SQLITE_OK => page::is_sound(into, number) || (!logged && is_zero(into)),
            // With a log, the file ends before what is not in the log: it was cut.
            ffi::SQLITE_IOERR_SHORT_READ => !logged,
            _ => true,
        };
        if is_sound { code } else { self.damaged(number) }
    }

    fn write_database(&mut self, below: &mut impl Below, data: &[u8], at: u64) -> c_int {
        if at == 0 {
            self.known.learn(data);
        }
        match self.known.scheme() {
            Scheme::Sealed { page_bytes, .. }
                if data.len() == page_bytes && at.is_multiple_of(page_bytes as u64) =>
            {
                self.take(data);
                page::seal(&mut self.scratch, number_at(at, page_bytes));
                below.write(&self.scratch, at)
            }
            _ => below.write(data, at),
        }
    }

    fn read_log(&mut self, below: &mut impl Below, into: &mut [u8], at: u64) -> c_int {
        let Some(frame) = log::frame_of(into.len(), at) else { return below.read(into, at) };
        if !self.is_sealed(into.len()) {
            let code = below.read(into, at);
            if code != ffi::SQLITE_OK || !scheme::is_header(into) {
                return code;
            }
            self.known.learn(into);
            if !self.is_sealed(into.len()) {
                return code;
            }
        }
        // The page's number is in the frame's header: one read for both.
        self.scratch.resize(log::FRAME_HEADER_BYTES + into.len(), 0);
        let code = below.read(&mut self.scratch, frame);
        let (header, page) = self.scratch.split_at(log::FRAME_HEADER_BYTES);
        into.copy_from_slice(page);
        if code != ffi::SQLITE_OK {
            return code;
        }
        if scheme::is_header(into) {
            self.known.learn(into);
        }
        let number = log::number_in(header);
        if !self.is_sealed(into.len()) || page::is_sound(into, number) {
            return code;
        }
        // A power loss may have taken what is reserved and left the rest: the last sector was not written, and was equal
        // but for that. SQLite's own checksum is balanced against it and holds.
        let mut before = [0; log::SUM_BYTES];
        match below.read(&mut before, log::sum_before(frame, into.len())) {
            ffi::SQLITE_OK if log::is_intact(before, header, into) => code,
            ffi::SQLITE_OK => self.damaged(number),
            code => code,
        }
    }

    fn write_log(&mut self, below: &mut impl Below, data: &[u8], at: u64) -> c_int {
        if scheme::is_header(data) {
            self.known.learn(data);
        }
        let Scheme::Sealed { page_bytes, .. } = self.known.scheme() else { return below.write(data, at) };
        if data.len() == log::FRAME_HEADER_BYTES
            && log::frame_of(page_bytes, at + log::FRAME_HEADER_BYTES as u64).is_some()
        {
            self.announced = Some((at + log::FRAME_HEADER_BYTES as u64, log::number_in(data)));
            return below.write(data, at);
        }
        if at == 0 && data.len() == log::HEADER_BYTES {
            return below.write(data, at);
        }
        let Some(frame) = log::frame_of(data.len(), at).filter(|_| data.len() == page_bytes) else {
            // In parts a page is written where a disk harms what is beside a write; it could not be sealed.
            return ffi::SQLITE_IOERR_WRITE;
        };
        let number = match self.announced.take() {
            Some((page_at, number)) if page_at == at => number,
            // A page that this transaction has written already, and writes over.
            _ => {
                let mut number = [0; 4];
                match below.read(&mut number, frame) {
                    ffi::SQLITE_OK => log::number_in(&number),
                    code => return code,
                }
            }
        };
        self.take(data);
        page::seal_in_log(&mut self.scratch, number);
        below.write(&self.scratch, at)
    }

    fn take(&mut self, data: &[u8]) {
        self.scratch.clear();
        self.scratch.extend_from_slice(data);
    }

    fn is_sealed(&self, bytes: usize) -> bool {
        matches!(self.known.scheme(), Scheme::Sealed { page_bytes, .. } if page_bytes == bytes)
    }

    fn damaged(&self, page: u32) -> c_int {
        record::note(&self.path, Mismatch { page, in_log: self.kind == Kind::Log });
        ffi::SQLITE_IOERR_DATA
    }
}

fn is_page(bytes: &[u8]) -> bool {
    (512..=65_536).contains(&bytes.len()) && bytes.len().is_power_of_two()
}

fn is_zero(page: &[u8]) -> bool {
    page.iter().all(|byte| *byte == 0)
}

/// SQLite counts pages in 32 bits.
fn number_at(at: u64, page_bytes: usize) -> u32 {
    (at / page_bytes as u64 + 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Below for Vec<u8> {
        fn read(&mut self, into: &mut [u8], at: u64) -> c_int {
            match self.get(at as usize..at as usize + into.len()) {
                Some(bytes) => into.copy_from_slice(bytes),
                None => return ffi::SQLITE_IOERR_SHORT_READ,
            }
            ffi::SQLITE_OK
        }

        fn write(&mut self, data: &[u8], at: u64) -> c_int {
            self.resize(self.len().max(at as usize + data.len()), 0);
            self[at as usize..at as usize + data.len()].copy_from_slice(data);
            ffi::SQLITE_OK
        }
    }

    /// A log of a database of 512-byte pages with checksums.
    fn sealed_log() -> File {
        let known = Arc::new(Known::default());
        let mut header = [0; 100];
        header[..21].copy_from_slice(b"SQLite format 3\0\x02\0\x02\x02\x10");
        known.learn(&header);
        File::new(Kind::Log, known, "of a test")
    }

    #[test]
    fn a_page_that_is_written_over_keeps_the_number_its_frame_has() {
        let (mut log, mut disk) = (sealed_log(), Vec::new());
        let header = [[0, 0, 0, 7].as_slice(), &[0; 20]].concat();
        assert_eq!(log.write(&mut disk, &[1; 32], 0), ffi::SQLITE_OK);
        assert_eq!(log.write(&mut disk, &header, 32), ffi::SQLITE_OK);
        for content in [3, 4] {
            assert_eq!(log.write(&mut disk, &[content; 512], 56), ffi::SQLITE_OK);
            assert!(page::is_sound(&disk[56..], 7));
            let mut page = [0; 512];
            assert_eq!(log.read(&mut disk, &mut page, 56), ffi::SQLITE_OK);
            assert_eq!(page[..496], [content; 496]);
        }
        // And what has been read once is looked at again.
        disk[60] ^= 1;
        assert_eq!(log.read(&mut disk, &mut [0; 512], 56), ffi::SQLITE_IOERR_DATA);
        assert_eq!(record::mismatch("of a test"), Some(Mismatch { page: 7, in_log: true }));
    }

    #[test]
    fn a_page_in_parts_is_not_written_rather_than_written_without_its_checksum() {
        let (mut log, mut disk) = (sealed_log(), Vec::new());
        for (part, at) in [(100, 56), (412, 156), (8, 32)] {
            assert_eq!(log.write(&mut disk, &vec![1; part], at), ffi::SQLITE_IOERR_WRITE);
        }
        assert_eq!(disk, []);
    }
}
