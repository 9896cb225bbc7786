//! Values on their way to the client: SQLite's five storage classes in PostgreSQL's text and binary forms.

use bytes::{BufMut, BytesMut};
use vamos_sql_client::ValueRef;
use vamos_sql_dialect::postgres::PgType;

use super::error::PgError;
use super::{float, numeric, time};

/// Appends a value's length and bytes.
///
/// # Errors
/// SQLSTATE 22003 or 22P02 if the value has no binary form in the column's type: SQLite lets a column hold
/// values of any type.
pub fn put(out: &mut BytesMut, value: ValueRef<'_>, pg: PgType, binary: bool) -> Result<(), PgError> {
    if value == ValueRef::Null {
        out.put_i32(-1);
        return Ok(());
    }
    let start = out.len();
    out.put_u32(0);
    let written = if binary { put_binary(out, value, pg) } else { put_text(out, value, pg) };
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    written
}

/// Appends the text form.
pub fn put_text(out: &mut BytesMut, value: ValueRef<'_>, pg: PgType) -> Result<(), PgError> {
    match (value, pg) {
        (ValueRef::Null, _) => {}
        (ValueRef::Integer(i), PgType::Bool) => out.put_u8(if i == 0 { b'f' } else { b't' }),
        (ValueRef::Integer(i), _) => put_integer(out, i),
        (ValueRef::Real(real), _) => put_real(out, real),
        (ValueRef::Text(text), PgType::Bytea) => put_hexadecimal(out, text),
        (ValueRef::Text(text), _) => out.put_slice(text),
        (ValueRef::Blob(bytes), PgType::Uuid) if bytes.len() == 16 => put_uuid(out, bytes),
        (ValueRef::Blob(bytes), _) => put_hexadecimal(out, bytes),
    }
    Ok(())
}

fn put_binary(out: &mut BytesMut, value: ValueRef<'_>, pg: PgType) -> Result<(), PgError> {
    match pg {
        PgType::Bool => out.put_u8(u8::from(boolean(value, pg)?)),
        PgType::Int2 => out.put_i16(narrow(integer(value, pg)?, pg)?),
        PgType::Int4 => out.put_i32(narrow(integer(value, pg)?, pg)?),
        PgType::Oid => out.put_u32(narrow(integer(value, pg)?, pg)?),
        PgType::Int8 => out.put_i64(integer(value, pg)?),
        PgType::Float4 => out.put_f32(real(value, pg)? as f32),
        PgType::Float8 => out.put_f64(real(value, pg)?),
        PgType::Bytea => match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => out.put_slice(bytes),
            other => put_text(out, other, PgType::Text)?,
        },
        PgType::Jsonb => {
            out.put_u8(1);
            put_text(out, value, pg)?;
        }
        PgType::Uuid => out.put_slice(&uuid(value)?),
        PgType::Date => out.put_i32(timely(value, pg, time::date_from_text)?),
        PgType::Time => out.put_i64(timely(value, pg, time::time_from_text)?),
        PgType::Timestamp => out.put_i64(timely(value, pg, |text| time::timestamp_from_text(text, false))?),
        PgType::Timestamptz => out.put_i64(timely(value, pg, |text| time::timestamp_from_text(text, true))?),
        PgType::Numeric => {
            let text = plain(value);
            if !numeric::put(out, &text) {
                return Err(mismatch(value, pg));
            }
        }
        PgType::Char | PgType::Name | PgType::Text | PgType::Json | PgType::Bpchar | PgType::Varchar => {
            put_text(out, value, pg)?;
        }
        other => {
            let message = format!("the binary form of type {} is not supported", other.sql_name());
            return Err(PgError::new("0A000", message).hint("Ask for the column in text format."));
        }
    }
    Ok(())
}

fn put_integer(out: &mut BytesMut, value: i64) {
    let (mut digits, mut at, mut rest) = ([0u8; 20], 20, value.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(&digits[at..]);
}

fn put_real(out: &mut BytesMut, real: f64) {
    let mut text = Vec::with_capacity(24);
    float::write(&mut text, real);
    out.put_slice(&text);
}

/// PostgreSQL's `bytea_output = hex`.
fn put_hexadecimal(out: &mut BytesMut, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + 2 * bytes.len());
    out.put_slice(b"\\x");
    for byte in bytes {
        out.put_u8(DIGITS[usize::from(byte >> 4)]);
        out.put_u8(DIGITS[usize::from(byte & 15)]);
    }
}

fn put_uuid(out: &mut BytesMut, bytes: &[u8]) {
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.put_u8(b'-');
        }
        out.put_slice(format!("{byte:02x}").as_bytes());
    }
}

fn plain(value: ValueRef<'_>) -> String {
    let mut text = BytesMut::new();
    // The text form of any value can be written.
    let _ = put_text(&mut text, value, PgType::Text);
    String::from_utf8_lossy(&text).into_owned()
}

fn mismatch(value: ValueRef<'_>, pg: PgType) -> PgError {
    let shown: String = plain(value).chars().take(40).collect();
    PgError::new("22P02", format!("invalid input syntax for type {}: \"{shown}\"", pg.sql_name()))
        .hint("The column holds a value of another type than declared; ask for it in text format or CAST it.")
}

fn integer(value: ValueRef<'_>, pg: PgType) -> Result<i64, PgError> {
    match value {
        ValueRef::Integer(i) => Ok(i),
        ValueRef::Real(r) if r.fract() == 0.0 && r.abs() < 9.2e18 => Ok(r as i64),
        ValueRef::Text(text) => {
            let parsed = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
            parsed.ok_or_else(|| mismatch(value, pg))
        }
        _ => Err(mismatch(value, pg)),
    }
}

fn narrow<T: TryFrom<i64>>(value: i64, pg: PgType) -> Result<T, PgError> {
    T::try_from(value).map_err(|_| {
        PgError::new("22003", format!("value \"{value}\" is out of range for type {}", pg.sql_name()))
    })
}

fn real(value: ValueRef<'_>, pg: PgType) -> Result<f64, PgError> {
    match value {
        ValueRef::Integer(i) => Ok(i as f64),
        ValueRef::Real(r) => Ok(r),
        ValueRef::Text(text) => {
            let parsed = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
            parsed.ok_or_else(|| mismatch(value, pg))
        }
        _ => Err(mismatch(value, pg)),
    }
}

fn boolean(value: ValueRef<'_>, pg: PgType) -> Result<bool, PgError> {
    match value {
        ValueRef::Integer(i) => Ok(i != 0),
        ValueRef::Real(r) => Ok(r != 0.0),
        ValueRef::Text(text) => {
            std::str::from_utf8(text).ok().and_then(truth).ok_or_else(|| mismatch(value, pg))
        }
        _ => Err(mismatch(value, pg)),
    }
}

/// The truth value PostgreSQL reads from a text.
pub fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn uuid(value: ValueRef<'_>) -> Result<[u8; 16], PgError> {
    let found = match value {
        ValueRef::Blob(bytes) => <[u8; 16]>::try_from(bytes).ok(),
        ValueRef::Text(text) => {
            let digits: Vec<u8> = text.iter().copied().filter(|byte| !b"-{}".contains(byte)).collect();
            hexadecimal(&digits).and_then(|bytes| bytes.try_into().ok())
        }
        _ => None,
    };
    found.ok_or_else(|| mismatch(value, PgType::Uuid))
}

/// The bytes that pairs of hexadecimal digits stand for.
pub fn hexadecimal(digits: &[u8]) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn timely<T>(value: ValueRef<'_>, pg: PgType, read: impl Fn(&str) -> Option<T>) -> Result<T, PgError> {
    let ValueRef::Text(text) = value else { return Err(mismatch(value, pg)) };
    std::str::from_utf8(text).ok().and_then(read).ok_or_else(|| mismatch(value, pg))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(value: ValueRef<'_>, pg: PgType, binary: bool) -> Result<Vec<u8>, String> {
        let mut out = BytesMut::new();
        put(&mut out, value, pg, binary).map_err(|error| error.sqlstate)?;
        Ok(out[4..].to_vec())
    }

    #[test]
    fn text_forms() {
        let cases = [
            (ValueRef::Integer(i64::MIN), PgType::Int8, "-9223372036854775808"),
            (ValueRef::Integer(0), PgType::Int8, "0"),
            (ValueRef::Integer(1), PgType::Bool, "t"),
            (ValueRef::Integer(0), PgType::Bool, "f"),
            (ValueRef::Real(2.5), PgType::Int8, "2.5"),
            (ValueRef::Blob(b"\x00\xff"), PgType::Bytea, "\\x00ff"),
            (ValueRef::Text("é".as_bytes()), PgType::Text, "é"),
        ];
        for (value, pg, expected) in cases {
            assert_eq!(sent(value, pg, false).unwrap(), expected.as_bytes());
        }
    }

    #[test]
    fn binary_forms() {
        assert_eq!(sent(ValueRef::Integer(7), PgType::Int8, true).unwrap(), 7i64.to_be_bytes());
        assert_eq!(sent(ValueRef::Integer(70_000), PgType::Int2, true), Err("22003".to_owned()));
        assert_eq!(sent(ValueRef::Text(b"x"), PgType::Int8, true), Err("22P02".to_owned()));
        assert_eq!(sent(ValueRef::Integer(1), PgType::Float8, true).unwrap(), 1f64.to_be_bytes());
        assert_eq!(sent(ValueRef::Text(b"2000-01-02"), PgType::Date, true).unwrap(), 1i32.to_be_bytes());
        assert_eq!(sent(ValueRef::Text(b"{}"), PgType::Jsonb, true).unwrap(), b"\x01{}");
        let uuid = sent(ValueRef::Text(b"00112233-4455-6677-8899-aabbccddeeff"), PgType::Uuid, true).unwrap();
        assert_eq!(uuid[..4], [0, 0x11, 0x22, 0x33]);
    }
}
