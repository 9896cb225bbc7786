//! The write-ahead log as it lies on the disk ("WAL File Format", sqlite.org/fileformat2): a header, and frames of a header
//! and a page each. Pure.

pub(crate) const HEADER_BYTES: usize = 32;
pub(crate) const FRAME_HEADER_BYTES: usize = 24;
/// The checksum, last in either header.
pub(crate) const SUM_BYTES: usize = 8;

/// Where the frame begins whose page is read or written, if that is what it is.
pub(crate) fn frame_of(bytes: usize, at: u64) -> Option<u64> {
    let frame_bytes = (FRAME_HEADER_BYTES + bytes) as u64;
    let frame = at.checked_sub(FRAME_HEADER_BYTES as u64)?;
    let in_frames = frame.checked_sub(HEADER_BYTES as u64)?;
    ((512..=65_536).contains(&bytes) && bytes.is_power_of_two() && in_frames.is_multiple_of(frame_bytes))
        .then_some(frame)
}

/// The page's number, first in a frame's header.
pub(crate) fn number_in(header: &[u8]) -> u32 {
    u32_at(header, 0)
}

/// Where the checksum is that a frame's own builds on: the frame's before, or the log's.
pub(crate) fn sum_before(frame: u64, page_bytes: usize) -> u64 {
    let is_first = frame == HEADER_BYTES as u64;
    let end = if is_first { frame } else { frame - page_bytes as u64 };
    end - SUM_BYTES as u64
}

/// Whether a frame is what SQLite wrote, by its own checksum.
pub(crate) fn is_intact(before: [u8; SUM_BYTES], header: &[u8], page: &[u8]) -> bool {
    let sum = Sum(u32_at(&before, 0), u32_at(&before, 4)).with(&header[..8]).with(page);
    sum == Sum(u32_at(header, 16), u32_at(header, 20))
}

/// A frame's checksum, on the way. Over words in the machine's own byte order, in which every log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum(pub(crate) u32, pub(crate) u32);

impl Sum {
    pub(crate) fn with(mut self, bytes: &[u8]) -> Self {
        for pair in bytes.as_chunks().0.as_chunks::<2>().0 {
            self.0 = self.0.wrapping_add(u32::from_ne_bytes(pair[0])).wrapping_add(self.1);
            self.1 = self.1.wrapping_add(u32::from_ne_bytes(pair[1])).wrapping_add(self.0);
        }
        self
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_frames_are_told() {
        assert_eq!(frame_of(4_096, 32 + 24), Some(32));
        assert_eq!(frame_of(4_096, 32 + 24 + 4_120), Some(32 + 4_120));
        for (bytes, at) in [(4_096, 32), (4_096, 0), (4_120, 32), (4_095, 56), (256, 56), (1_024, 56 + 4_120)]
        {
            assert_eq!(frame_of(bytes, at), None, "{bytes} at {at}");
        }
        assert_eq!(sum_before(32, 4_096), 24);
        assert_eq!(sum_before(32 + 4_120, 4_096), 32 + 16);
    }
}
