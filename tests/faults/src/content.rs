//! The bytes of a file, shared between copies until one of them writes: an image of a disk costs a
//! pointer a chunk.

use std::sync::{Arc, LazyLock};

const CHUNK: usize = 4_096;

static ZEROS: LazyLock<Arc<[u8; CHUNK]>> = LazyLock::new(|| Arc::new([0; CHUNK]));

/// The bytes of a file; a copy is cheap.
#[derive(Clone, Default)]
pub struct Content {
    chunks: Vec<Arc<[u8; CHUNK]>>,
    len: usize,
}

impl Content {
    /// Length, bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads from `at` on; how many bytes there were.
    pub fn read(&self, at: usize, into: &mut [u8]) -> usize {
        let wanted = into.len().min(self.len.saturating_sub(at));
        let mut done = 0;
        while done < wanted {
            let (chunk, offset) = ((at + done) / CHUNK, (at + done) % CHUNK);
            let step = (CHUNK - offset).min(wanted - done);
            into[done..done + step].copy_from_slice(&self.chunks[chunk][offset..offset + step]);
            done += step;
        }
        wanted
    }

    /// Writes at `at`, growing the file as needed; what was never written reads as zero.
    pub fn write(&mut self, at: usize, data: &[u8]) {
        if at + data.len() > self.len {
            self.resize(at + data.len());
        }
        let mut done = 0;
        while done < data.len() {
            let (chunk, offset) = ((at + done) / CHUNK, (at + done) % CHUNK);
            let step = (CHUNK - offset).min(data.len() - done);
            Arc::make_mut(&mut self.chunks[chunk])[offset..offset + step]
                .copy_from_slice(&data[done..done + step]);
            done += step;
        }
    }

    /// Cuts the file or lengthens it with zeros.
    pub fn resize(&mut self, len: usize) {
        if len < self.len && !len.is_multiple_of(CHUNK) {
            // What was cut off must not come back when the file grows again.
            Arc::make_mut(&mut self.chunks[len / CHUNK])[len % CHUNK..].fill(0);
        }
        self.chunks.resize(len.div_ceil(CHUNK), ZEROS.clone());
        self.len = len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_had() {
        let mut content = Content::default();
        content.write(4_090, b"across a boundary");
        let copy = content.clone();
        content.write(4_095, b"!!");
        let mut bytes = [0; 17];
        assert_eq!((copy.read(4_090, &mut bytes), &bytes), (17, b"across a boundary"));
        assert_eq!((content.read(4_090, &mut bytes), &bytes), (17, b"acros!!a boundary"));
        assert_eq!(content.read(4_100, &mut bytes), 7);
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut content = Content::default();
        content.write(0, &[7; 5_000]);
        content.resize(10);
        content.resize(5_000);
        let mut bytes = [1; 20];
        content.read(0, &mut bytes);
        assert_eq!(bytes[..10], [7; 10]);
        assert_eq!(bytes[10..], [0; 10]);
    }
}
