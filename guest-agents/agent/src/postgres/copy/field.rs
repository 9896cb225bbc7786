//! Fields of a row that came in: to values of the column they are for.

use std::borrow::Cow;

use vamos_sql_client::{BlockBuilder, Value, ValueRef};
use vamos_sql_dialect::postgres::PgType;

use crate::postgres::error::PgError;
use crate::postgres::parameter;

/// A field of a row; `None` is NULL.
pub(super) type Field<'a> = Option<Cow<'a, [u8]>>;

/// Adds a field to a batch as a value of its column's type.
///
/// Only types whose text SQLite's column affinity would not convert by itself are converted here, and integers,
/// which travel in fewer bytes. What is no value of the type stays text, as the engine would store it.
///
/// # Errors
/// 22021 for bytes that are not UTF-8, 22P02 for what is no boolean or bytea.
pub(super) fn push(block: &mut BlockBuilder, field: &[u8], pg: Option<PgType>) -> Result<(), PgError> {
    match pg {
        Some(PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Oid) => {
            if let Some(integer) = integer(field) {
                block.push(ValueRef::Integer(integer));
                return Ok(());
            }
        }
        Some(pg @ (PgType::Bool | PgType::Bytea)) => {
            let value = parameter::from_text(utf8(field)?, pg).ok_or_else(|| {
                let shown: String = String::from_utf8_lossy(field).chars().take(40).collect();
                PgError::new("22P02", format!("invalid input syntax for type {}: \"{shown}\"", pg.sql_name()))
            })?;
            block.push(Value::as_ref(&value));
            return Ok(());
        }
        _ => {}
    }
    block.push(ValueRef::Text(utf8(field)?.as_bytes()));
    Ok(())
}

fn utf8(field: &[u8]) -> Result<&str, PgError> {
    std::str::from_utf8(field)
        .map_err(|_| PgError::new("22021", "invalid byte sequence for encoding \"UTF8\""))
}

/// Plain decimal digits, as far as 18 of them.
fn integer(field: &[u8]) -> Option<i64> {
    let (negative, digits) = match field {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_plain_digits() {
        assert_eq!(integer(b"-42"), Some(-42));
        assert_eq!(integer(b"007"), Some(7));
        for other in [&b""[..], b"-", b"1.5", b"1e3", b" 1", b"9999999999999999999"] {
            assert_eq!(integer(other), None);
        }
    }
}
