//! The frame every protocol of the channel uses: a fixed 16-byte little-endian header and a body.
//!
//! ```text
//!  0        4        8                 14      16
//!  +--------+--------+-----------------+-------+----------------+
//!  | length | session| sequence (48 b) | kind  | body (length)  |
//!  +--------+--------+-----------------+-------+----------------+
//! ```
//!
//! A header's length is checked against the protocol's limit before anything is allocated for the
//! body. This module does no I/O: [`Decoder`] is fed bytes and yields whole frames.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::FRAME_BODY_BYTES_MAX;

/// Bytes of a header on the wire.
pub const HEADER_BYTES: usize = 16;

/// Largest sequence number: 48 bits.
pub const SEQUENCE_MAX: u64 = (1 << 48) - 1;

const _: () = assert!(FRAME_BODY_BYTES_MAX <= u32::MAX as usize);

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of body that follow.
    pub length: u32,
    /// The session's number on this link, chosen by the client; 0 for the link itself.
    pub session: u32,
    /// The request's number within its session, from 1, at most [`SEQUENCE_MAX`].
    pub sequence: u64,
    /// What the body is, by the protocol's own table.
    pub kind: u16,
}

impl Header {
    /// The header as it travels. `sequence` must not exceed [`SEQUENCE_MAX`].
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        debug_assert!(self.sequence <= SEQUENCE_MAX, "sequence {} does not fit 48 bits", self.sequence);
        let mut wire = [0; HEADER_BYTES];
        wire[0..4].copy_from_slice(&self.length.to_le_bytes());
        wire[4..8].copy_from_slice(&self.session.to_le_bytes());
        wire[8..14].copy_from_slice(&self.sequence.to_le_bytes()[..6]);
        wire[14..16].copy_from_slice(&self.kind.to_le_bytes());
        wire
    }

    /// Reads a header; every bit pattern is one.
    pub fn decode(wire: &[u8; HEADER_BYTES]) -> Self {
        let word = |at: usize| u32::from_le_bytes([wire[at], wire[at + 1], wire[at + 2], wire[at + 3]]);
        let mut sequence = [0; 8];
        sequence[..6].copy_from_slice(&wire[8..14]);
        Self {
            length: word(0),
            session: word(4),
            sequence: u64::from_le_bytes(sequence),
            kind: u16::from_le_bytes([wire[14], wire[15]]),
        }
    }
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The header; `length` equals the body's.
    pub header: Header,
    /// The body, not yet parsed.
    pub body: Bytes,
}

/// What is wrong with a stream of frames; the stream cannot be used any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A header announces more than the protocol allows.
    #[error("frame of kind {kind} announces {length} bytes, the limit is {limit}")]
    TooLong {
        /// The header's kind.
        kind: u16,
        /// The header's length, bytes.
        length: u32,
        /// The limit in force, bytes.
        limit: usize,
    },
}

/// Appends one frame whose body `write` writes straight into `out`: no copy of the body is made.
pub fn encode(out: &mut BytesMut, session: u32, sequence: u64, kind: u16, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_bytes(0, HEADER_BYTES);
    write(out);
    let length = (out.len() - start - HEADER_BYTES) as u32;
    let header = Header { length, session, sequence, kind };
    out[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
}

impl Decoder {
    /// A decoder that refuses bodies of more than `limit` bytes (at most [`FRAME_BODY_BYTES_MAX`]).
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.min(FRAME_BODY_BYTES_MAX) }
    }

    /// Takes the next whole frame off the front of `input`, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]: the stream is lost, close it.
    pub fn decode(&self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(wire) = input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::decode(wire);
        let length = header.length as usize;
        if length > self.limit {
            return Err(FrameError::TooLong { kind: header.kind, length: header.length, limit: self.limit });
        }
        if input.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        input.advance(HEADER_BYTES);
        Ok(Some(Frame { header, body: input.split_to(length).freeze() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_round_trip(length: u32, session: u32, sequence in 0..=SEQUENCE_MAX, kind: u16) {
            let header = Header { length, session, sequence, kind };
            prop_assert_eq!(Header::decode(&header.encode()), header);
        }

        #[test]
        fn frames_survive_any_cut(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8), cut in 1usize..64) {
            let mut wire = BytesMut::new();
            for (at, body) in bodies.iter().enumerate() {
                encode(&mut wire, 7, at as u64, 3, |out| out.put_slice(body));
            }
            let (decoder, mut input, mut seen) = (Decoder::new(300), BytesMut::new(), Vec::new());
            for piece in wire.chunks(cut) {
                input.put_slice(piece);
                while let Some(frame) = decoder.decode(&mut input).unwrap() {
                    seen.push(frame.body.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
        }
    }

    #[test]
    fn a_long_frame_is_refused_before_its_body() {
        let wire = Header { length: u32::MAX, session: 0, sequence: 0, kind: 9 }.encode();
        let mut input = BytesMut::from(&wire[..]);
        let error = Decoder::new(10).decode(&mut input).unwrap_err();
        assert_eq!(error, FrameError::TooLong { kind: 9, length: u32::MAX, limit: 10 });
    }
}
