//! Packed blocks of rows, used for results and for the parameters of a batch alike.
//!
//! ```text
//! block := rows: u32 LE, columns: u16 LE, value * (rows * columns)
//! value := tag: u8, payload
//! ```
//!
//! | tag | value | payload |
//! | --- | --- | --- |
//! | 0 | NULL | none |
//! | 1, 2, 3, 4 | integer | 1, 2, 4, 8 bytes LE, sign-extended |
//! | 5 | real | 8 bytes LE, IEEE 754 |
//! | 6 | text | length: u32 LE, bytes |
//! | 7 | blob | length: u32 LE, bytes |
//! | 0x40 + n | text of n bytes, n < 0x60 | n bytes |
//! | 0xA0 + n | integer n, n < 0x60 | none |
//!
//! A block is parsed only as far as it is read; every length is checked against what is there.

use bytes::{BufMut, BytesMut};

use crate::limits::{SQL_BLOCK_BYTES, SQL_COLUMNS_MAX};
use crate::value::ValueRef;

const HEADER_BYTES: usize = 6;
const TAG_NULL: u8 = 0;
const TAG_I8: u8 = 1;
const TAG_I16: u8 = 2;
const TAG_I32: u8 = 3;
const TAG_I64: u8 = 4;
const TAG_REAL: u8 = 5;
const TAG_TEXT: u8 = 6;
const TAG_BLOB: u8 = 7;
const TAG_SHORT_TEXT: u8 = 0x40;
const TAG_SMALL_INTEGER: u8 = 0xA0;
const SHORT_MAX: usize = 0x60;

const _: () = assert!(TAG_SHORT_TEXT as usize + SHORT_MAX == TAG_SMALL_INTEGER as usize);
const _: () = assert!(TAG_SMALL_INTEGER as usize + SHORT_MAX == 0x100);

/// What is wrong with a block's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The block ends within its header or a value.
    #[error("row block ends early, at byte {at} of {length}")]
    Truncated {
        /// Where a byte was missing.
        at: usize,
        /// Bytes in the block.
        length: usize,
    },
    /// No value starts with this byte.
    #[error("row block has unknown value tag {tag:#04x} at byte {at}")]
    Tag {
        /// The byte.
        tag: u8,
        /// Where it is.
        at: usize,
    },
    /// Bytes are left after the last value.
    #[error("row block has {extra} bytes after its last value")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A row without columns, or with too many.
    #[error("row block has {columns} columns and {rows} rows")]
    Shape {
        /// Columns announced.
        columns: u16,
        /// Rows announced.
        rows: u32,
    },
}

/// Builds a block, row by row, into a buffer of its own.
#[derive(Debug)]
pub struct BlockBuilder {
    bytes: BytesMut,
    columns: u16,
    rows: u32,
}

impl BlockBuilder {
    /// An empty block of rows with `columns` values each, at most [`SQL_COLUMNS_MAX`].
    pub fn new(columns: usize) -> Self {
        debug_assert!(columns <= SQL_COLUMNS_MAX);
        let mut bytes = BytesMut::with_capacity(256);
        bytes.put_bytes(0, HEADER_BYTES);
        Self { bytes, columns: columns as u16, rows: 0 }
    }

    /// Appends one value of the current row; call [`end_row`](Self::end_row) after the last.
    pub fn push(&mut self, value: ValueRef<'_>) {
        let out = &mut self.bytes;
        match value {
            ValueRef::Null => out.put_u8(TAG_NULL),
            ValueRef::Integer(i) => push_integer(out, i),
            ValueRef::Real(r) => {
                out.put_u8(TAG_REAL);
                out.put_f64_le(r);
            }
            ValueRef::Text(text) if text.len() < SHORT_MAX => {
                out.put_u8(TAG_SHORT_TEXT + text.len() as u8);
                out.put_slice(text);
            }
            ValueRef::Text(text) => push_long(out, TAG_TEXT, text),
            ValueRef::Blob(blob) => push_long(out, TAG_BLOB, blob),
        }
    }

    /// Counts the row whose values have been pushed.
    pub fn end_row(&mut self) {
        self.rows += 1;
    }

    /// Appends a whole row.
    pub fn row<'v>(&mut self, values: impl IntoIterator<Item = ValueRef<'v>>) {
        values.into_iter().for_each(|value| self.push(value));
        self.end_row();
    }

    /// Rows so far.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Bytes so far, header included.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no row has been ended yet.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether the block has reached its regular size and should be sent.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= SQL_BLOCK_BYTES
    }

    /// The block's bytes; the builder is empty afterwards, with the same number of columns.
    pub fn finish(&mut self) -> bytes::Bytes {
        let mut block = std::mem::take(&mut self.bytes);
        block[0..4].copy_from_slice(&self.rows.to_le_bytes());
        block[4..6].copy_from_slice(&self.columns.to_le_bytes());
        self.rows = 0;
        self.bytes.put_bytes(0, HEADER_BYTES);
        block.freeze()
    }
}

fn push_integer(out: &mut BytesMut, i: i64) {
    if (0..SHORT_MAX as i64).contains(&i) {
        out.put_u8(TAG_SMALL_INTEGER + i as u8);
    } else if let Ok(i) = i8::try_from(i) {
        out.put_u8(TAG_I8);
        out.put_i8(i);
    } else if let Ok(i) = i16::try_from(i) {
        out.put_u8(TAG_I16);
        out.put_i16_le(i);
    } else if let Ok(i) = i32::try_from(i) {
        out.put_u8(TAG_I32);
        out.put_i32_le(i);
    } else {
        out.put_u8(TAG_I64);
        out.put_i64_le(i);
    }
}

fn push_long(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    out.put_u8(tag);
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

/// Reads a block value by value, in row order.
#[derive(Debug, Clone)]
pub struct Rows<'a> {
    bytes: &'a [u8],
    at: usize,
    rows: u32,
    columns: u16,
}

impl<'a> Rows<'a> {
    /// Reads the header of `bytes`. An empty slice is a block without rows or columns.
    ///
    /// # Errors
    /// [`BlockError`] if the header is cut off or announces rows without columns; a block whose
    /// values cannot fit its bytes is refused here, before anything is allocated for it.
    pub fn new(bytes: &'a [u8]) -> Result<Self, BlockError> {
        if bytes.is_empty() {
            return Ok(Self { bytes, at: 0, rows: 0, columns: 0 });
        }
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BlockError::Truncated { at: bytes.len(), length: bytes.len() });
        };
        let rows = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let columns = u16::from_le_bytes([header[4], header[5]]);
        if (columns == 0 && rows > 1) || columns as usize > SQL_COLUMNS_MAX {
            return Err(BlockError::Shape { columns, rows });
        }
        if (rows as u64) * (columns as u64) > (bytes.len() - HEADER_BYTES) as u64 {
            return Err(BlockError::Truncated { at: bytes.len(), length: bytes.len() });
        }
        Ok(Self { bytes, at: HEADER_BYTES, rows, columns })
    }

    /// Rows announced.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Values per row.
    pub fn columns(&self) -> usize {
        self.columns as usize
    }

    /// The next value; the caller counts `rows * columns` of them.
    ///
    /// # Errors
    /// [`BlockError::Truncated`] or [`BlockError::Tag`] if the bytes are not a value.
    pub fn value(&mut self) -> Result<ValueRef<'a>, BlockError> {
        let at = self.at;
        let [tag] = self.take::<1>()?;
        Ok(match tag {
            TAG_NULL => ValueRef::Null,
            TAG_I8 => ValueRef::Integer(i8::from_le_bytes(self.take()?) as i64),
            TAG_I16 => ValueRef::Integer(i16::from_le_bytes(self.take()?) as i64),
            TAG_I32 => ValueRef::Integer(i32::from_le_bytes(self.take()?) as i64),
            TAG_I64 => ValueRef::Integer(i64::from_le_bytes(self.take()?)),
            TAG_REAL => ValueRef::Real(f64::from_le_bytes(self.take()?)),
            TAG_TEXT => ValueRef::Text(self.long()?),
            TAG_BLOB => ValueRef::Blob(self.long()?),
            TAG_SMALL_INTEGER.. => ValueRef::Integer((tag - TAG_SMALL_INTEGER) as i64),
            TAG_SHORT_TEXT.. => ValueRef::Text(self.slice((tag - TAG_SHORT_TEXT) as usize)?),
            _ => return Err(BlockError::Tag { tag, at }),
        })
    }

    /// Says that all values have been read.
    ///
    /// # Errors
    /// [`BlockError::Trailing`] if bytes are left.
    pub fn end(&self) -> Result<(), BlockError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            extra => Err(BlockError::Trailing { extra }),
        }
    }

    fn long(&mut self) -> Result<&'a [u8], BlockError> {
        let length = u32::from_le_bytes(self.take()?);
        self.slice(length as usize)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BlockError> {
        let truncated = BlockError::Truncated { at: self.at, length: self.bytes.len() };
        let chunk = self.bytes[self.at..].first_chunk::<N>().ok_or(truncated)?;
        self.at += N;
        Ok(*chunk)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], BlockError> {
        let truncated = BlockError::Truncated { at: self.at, length: self.bytes.len() };
        let slice = self.bytes[self.at..].get(..length).ok_or(truncated)?;
        self.at += length;
        Ok(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            (-200i64..200).prop_map(Value::Integer),
            any::<f64>().prop_filter("NaN is not equal to itself", |r| !r.is_nan()).prop_map(Value::Real),
            "\\PC{0,120}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..200).prop_map(Value::Blob),
        ]
    }

    proptest! {
        #[test]
        fn blocks_round_trip(rows in proptest::collection::vec(proptest::collection::vec(value(), 3), 0..20)) {
            let mut builder = BlockBuilder::new(3);
            rows.iter().for_each(|row| builder.row(row.iter().map(Value::as_ref)));
            let block = builder.finish();
            let mut reader = Rows::new(&block).unwrap();
            prop_assert_eq!(reader.rows() as usize, rows.len());
            for expected in rows.iter().flatten() {
                prop_assert_eq!(reader.value().unwrap(), expected.as_ref());
            }
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(mut rows) = Rows::new(&bytes) {
                for _ in 0..rows.rows() as usize * rows.columns() {
                    if rows.value().is_err() { break }
                }
            }
        }
    }

    #[test]
    fn a_builder_can_be_used_again() {
        let mut builder = BlockBuilder::new(1);
        builder.row([ValueRef::Integer(1)]);
        let first = builder.finish();
        builder.row([ValueRef::Integer(1)]);
        assert_eq!(builder.finish(), first);
    }

    #[test]
    fn a_block_that_promises_more_than_it_has_is_refused() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert!(matches!(Rows::new(&bytes), Err(BlockError::Truncated { .. })));
    }
}
