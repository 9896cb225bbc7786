//! Whether a database's pages carry checksums, as its header says ("The Database Header", sqlite.org/fileformat2).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::page::{self, RESERVED_BYTES};

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;
/// Where the header has the page size, the version that writes (2: with a log), and the reserved bytes.
const PAGE_BYTES_AT: usize = 16;
const WRITE_VERSION_AT: usize = 18;
const RESERVED_AT: usize = 20;

/// What is known of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Nothing: it has no header yet, or none was seen.
    Unknown,
    /// It carries none.
    Plain,
    /// It does.
    Sealed {
        page_bytes: usize,
        /// It is written by way of a log.
        logged: bool,
    },
}

/// Shared by a connection's database and its log. In one word: 0, 1, or the page size, a power of two, with
/// `logged` as its lowest bit.
#[derive(Debug, Default)]
pub(crate) struct Known(AtomicU32);

impl Known {
    pub(crate) fn scheme(&self) -> Scheme {
        match self.0.load(Relaxed) {
            0 => Scheme::Unknown,
            1 => Scheme::Plain,
            word => Scheme::Sealed { page_bytes: (word & !1) as usize, logged: word & 1 == 1 },
        }
    }

    /// Learns from what begins a database, if it does.
    pub(crate) fn learn(&self, first: &[u8]) {
        if !is_header(first) {
            return;
        }
        let page_bytes = match u16::from_be_bytes([first[PAGE_BYTES_AT], first[PAGE_BYTES_AT + 1]]) {
            1 => 65_536,
            bytes => u32::from(bytes),
        };
        let is_sealed = usize::from(first[RESERVED_AT]) == RESERVED_BYTES
            && (512..=65_536).contains(&page_bytes)
            && page_bytes.is_power_of_two();
        let logged = u32::from(first[WRITE_VERSION_AT] == 2);
        self.0.store(if is_sealed { page_bytes | logged } else { 1 }, Relaxed);
    }
}

/// Whether this is how a database begins. No other page does: this would be the type of no b-tree's, and a link to a
/// page beyond any disk.
pub(crate) fn is_header(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_BYTES && bytes.starts_with(MAGIC)
}

/// Whether a first page that does not say so is one with a checksum: it is its header that is damaged.
pub(crate) fn is_disguised(first: &[u8], scratch: &mut Vec<u8>) -> bool {
    scratch.clear();
    scratch.extend_from_slice(first);
    scratch[..MAGIC.len()].copy_from_slice(MAGIC);
    // 65536 wraps to 0 and is written as 1.
    let page_bytes = (first.len() as u16).max(1);
    scratch[PAGE_BYTES_AT..PAGE_BYTES_AT + 2].copy_from_slice(&page_bytes.to_be_bytes());
    scratch[RESERVED_AT] = RESERVED_BYTES as u8;
    page::is_sound(scratch, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(page_bytes: u16, write_version: u8, reserved: u8) -> Vec<u8> {
        let mut header = vec![0; HEADER_BYTES];
        header[..16].copy_from_slice(MAGIC);
        header[16..18].copy_from_slice(&page_bytes.to_be_bytes());
        (header[18], header[20]) = (write_version, reserved);
        header
    }

    #[test]
    fn a_header_says_whether_pages_are_sealed() {
        let known = Known::default();
        known.learn(&[0; 100]);
        assert_eq!(known.scheme(), Scheme::Unknown);
        for (bytes, page_bytes) in [(512, 512), (4_096, 4_096), (32_768, 32_768), (1, 65_536)] {
            for (version, logged) in [(1, false), (2, true)] {
                known.learn(&header(bytes, version, 16));
                assert_eq!(known.scheme(), Scheme::Sealed { page_bytes, logged });
            }
        }
        for plain in [header(4_096, 2, 0), header(4_096, 2, 8), header(4_095, 2, 16), header(0, 2, 16)] {
            known.learn(&plain);
            assert_eq!(known.scheme(), Scheme::Plain);
        }
    }

    #[test]
    fn a_first_page_whose_header_was_damaged_is_recognised() {
        for page_bytes in [512_usize, 65_536] {
            let mut page = header(page_bytes.max(1) as u16, 2, 16);
            if page_bytes == 65_536 {
                page[16..18].copy_from_slice(&[0, 1]);
            }
            page.resize(page_bytes, 9);
            page::seal(&mut page, 1);
            for at in [0, 15, 16, 17, 20] {
                let mut damaged = page.clone();
                damaged[at] ^= 4;
                assert!(is_disguised(&damaged, &mut Vec::new()), "byte {at}");
            }
            page[50] ^= 1;
            assert!(!is_disguised(&page, &mut Vec::new()));
        }
    }
}
