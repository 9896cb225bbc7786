//! The private channel between vamosd and a cell: generated messages and their framing.
//!
//! Each message is preceded by its length, four little-endian bytes, checked against
//! [`CELL_MESSAGE_BYTES_MAX`] before anything is allocated.

#![allow(missing_docs, reason = "generated from cell.proto, which documents every field")]

use prost::Message;

use crate::limits::CELL_MESSAGE_BYTES_MAX;

include!(concat!(env!("OUT_DIR"), "/vamos.cell.v1.rs"));

/// Bytes of the length that precedes a message.
pub const LENGTH_BYTES: usize = 4;

/// The slot of what vamosd has in hand: taken from the front-end, not known to be done.
pub const IN_HAND: u32 = 0;

/// What the name of a database's copy ends with, after the database's.
pub const SNAPSHOT_SUFFIX: &str = ".db.snapshot";

/// Size of the memory in which a cell writes down its guest's streams for its successor, bytes.
pub const ROSTER_BYTES: usize = 24 << 10;

/// A message that cannot be on this channel.
#[derive(Debug, thiserror::Error)]
pub enum CellMessageError {
    /// Longer than allowed.
    #[error("message of {0} bytes on the cell channel, the limit is {CELL_MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// Not what `cell.proto` says.
    #[error("decode a message of the cell channel")]
    Malformed(#[from] prost::DecodeError),
}

/// A message with its length in front.
///
/// # Errors
/// [`CellMessageError::TooLong`], when the other side would refuse it.
pub fn encode(message: &impl Message) -> Result<Vec<u8>, CellMessageError> {
    let length = message.encoded_len();
    if length > CELL_MESSAGE_BYTES_MAX {
        return Err(CellMessageError::TooLong(length));
    }
    let mut wire = Vec::with_capacity(LENGTH_BYTES + length);
    wire.extend_from_slice(&(length as u32).to_le_bytes());
    wire.extend_from_slice(&message.encode_to_vec());
    Ok(wire)
}

/// Length of the body that follows these four bytes.
///
/// # Errors
/// [`CellMessageError::TooLong`]: the channel is lost.
pub fn body_length(wire: [u8; LENGTH_BYTES]) -> Result<usize, CellMessageError> {
    let length = u32::from_le_bytes(wire) as usize;
    if length > CELL_MESSAGE_BYTES_MAX { Err(CellMessageError::TooLong(length)) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_refused_on_both_sides() {
        let reason = "x".repeat(CELL_MESSAGE_BYTES_MAX);
        let message = FromCell { message: Some(from_cell::Message::Refused(Refused { reason })) };
        assert!(matches!(encode(&message), Err(CellMessageError::TooLong(_))));
        assert!(matches!(body_length([0xff; 4]), Err(CellMessageError::TooLong(_))));
    }
}
