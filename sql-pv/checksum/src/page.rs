//! A page's checksum: where it stands, what it covers. Pure.
//!
//! The last [`RESERVED_BYTES`] of a page are the checksum and the balance, 8 bytes each. The checksum is XXH3-64, whose
//! values are fixed since xxHash 0.8, of everything before them, seeded with the page's number, little-endian.

use twox_hash::XxHash3_64;

/// What a page with a checksum has less for content, bytes.
pub const RESERVED_BYTES: usize = 16;

const SUM_BYTES: usize = 8;

/// The checksum that page `number` with this content has.
fn sum(content: &[u8], number: u32) -> [u8; SUM_BYTES] {
    XxHash3_64::oneshot_with_seed(u64::from(number), content).to_le_bytes()
}

/// Whether a page is what was written as page `number`.
pub(crate) fn is_sound(page: &[u8], number: u32) -> bool {
    let (content, reserved) = page.split_at(page.len() - RESERVED_BYTES);
    reserved[..SUM_BYTES] == sum(content, number)
}

/// Gives a page its checksum.
pub(crate) fn seal(page: &mut [u8], number: u32) {
    let (content, reserved) = page.split_at_mut(page.len() - RESERVED_BYTES);
    reserved[..SUM_BYTES].copy_from_slice(&sum(content, number));
}

/// Gives a page of the log its checksum, and balances it: the frame's checksum stays what it was.
///
/// That one runs over the page's 32-bit words in pairs (x, y): `a += x + b; b += y + a`. The two pairs here are the last of
/// the frame. What the first changes in a and b, the second takes back.
pub(crate) fn seal_in_log(page: &mut [u8], number: u32) {
    let before = words(page);
    seal(page, number);
    let [x, y, ..] = words(page);
    let a = x.wrapping_sub(before[0]);
    let b = y.wrapping_sub(before[1]).wrapping_add(a);
    let balance = [before[2].wrapping_sub(a.wrapping_add(b)), before[3].wrapping_sub(b)];
    let at = page.len() - RESERVED_BYTES + SUM_BYTES;
    for (bytes, word) in page[at..].as_chunks_mut().0.iter_mut().zip(balance) {
        *bytes = word.to_ne_bytes();
    }
}

/// The reserved bytes as SQLite adds them up: in the machine's own byte order, in which every log is written.
fn words(page: &[u8]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(page[page.len() - RESERVED_BYTES..].as_chunks().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Sum;
    use proptest::prelude::*;

    fn frame_sum(page: &[u8]) -> Sum {
        Sum(7, 11).with(page)
    }

    proptest! {
        #[test]
        fn a_sealed_page_is_sound_and_its_frames_checksum_what_it_was(
            mut page in proptest::collection::vec(any::<u8>(), 512),
            number in any::<u32>(),
            bit in 0..(512 - 8) * 8_usize,
        ) {
            let before = page.clone();
            seal_in_log(&mut page, number);
            prop_assert_eq!(frame_sum(&page), frame_sum(&before));
            prop_assert_eq!(&page[..496], &before[..496]);
            prop_assert!(is_sound(&page, number));
            prop_assert!(!is_sound(&page, number.wrapping_add(1)));
            let copied = page.clone();
            seal(&mut page, number);
            prop_assert_eq!(&page, &copied);
            page[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!is_sound(&page, number));
        }
    }

    #[test]
    fn no_page_of_zeros_is_sound() {
        assert!((0..100_000).all(|number| !is_sound(&[0; 512], number)));
    }

    /// By xxHash's own library, 0.8. They are on disks: they must never change.
    const PUBLISHED: [u64; 2] = [0xcace_fc8f_1cf8_be6b, 0x876b_ab2c_406d_4e04];

    #[test]
    fn the_checksum_is_the_published_one() {
        let content: Vec<u8> = (0..4_080_u32).map(|at| (at * 7 + at / 256) as u8).collect();
        assert_eq!(u64::from_le_bytes(sum(&content, 1)), PUBLISHED[0]);
        assert_eq!(u64::from_le_bytes(sum(&content, 0x0102_0304)), PUBLISHED[1]);
    }
}
