//! Values on their way from the client: PostgreSQL's text and binary forms to SQLite's storage classes.

use vamos_sql_client::Value;
use vamos_sql_dialect::postgres::PgType;

use super::error::PgError;
use super::{numeric, time, value};

/// What is known of a parameter's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterType {
    /// The client said so.
    Declared(u32),
    /// The column it is compared with or stored in is of that type.
    Inferred(PgType),
    /// Nothing is known.
    Unknown,
}

/// OID of PostgreSQL's `unknown`: a literal whose type nobody has said.
const UNKNOWN_OID: u32 = 705;

impl ParameterType {
    /// The OID a client is told.
    pub fn oid(self) -> u32 {
        match self {
            ParameterType::Declared(oid) => oid,
            ParameterType::Inferred(pg) => pg.oid(),
            ParameterType::Unknown => PgType::Text.oid(),
        }
    }

    fn known(self) -> Option<PgType> {
        match self {
            ParameterType::Declared(UNKNOWN_OID) => Some(PgType::Text),
            ParameterType::Declared(oid) => PgType::by_oid(oid),
            ParameterType::Inferred(pg) => Some(pg),
            ParameterType::Unknown => Some(PgType::Text),
        }
    }
}

/// Reads a parameter. `number` counts from 1, for messages.
///
/// # Errors
/// 22P02 or 22P03 if the bytes are not a value of the declared type, 0A000 for a binary form this door
/// does not know.
pub fn read(bytes: &[u8], kind: ParameterType, binary: bool, number: usize) -> Result<Value, PgError> {
    if binary {
        return match kind.known() {
            Some(pg) => from_binary(bytes, pg).ok_or_else(|| {
                PgError::new("22P03", format!("incorrect binary data format in bind parameter {number}"))
            }),
            None => {
                let message =
                    format!("binary format of parameter {number}, type {}, is not supported", kind.oid());
                Err(PgError::new("0A000", message).hint("Send it in text format."))
            }
        };
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(PgError::new("22021", "invalid byte sequence for encoding \"UTF8\""));
    };
    let Some(pg) = kind.known() else { return Ok(Value::Text(text.to_owned())) };
    match (from_text(text, pg), kind) {
        (Some(value), _) => Ok(value),
        // SQLite's columns take any value: what was only guessed is not insisted on.
        (None, ParameterType::Inferred(_)) => Ok(Value::Text(text.to_owned())),
        (None, _) => {
            let shown: String = text.chars().take(40).collect();
            Err(PgError::new(
                "22P02",
                format!("invalid input syntax for type {}: \"{shown}\"", pg.sql_name()),
            ))
        }
    }
}

/// The value a text stands for in that type; `None` if it stands for none.
pub fn from_text(text: &str, pg: PgType) -> Option<Value> {
    match pg {
        PgType::Int2 => text.trim().parse::<i16>().ok().map(|i| Value::Integer(i.into())),
        PgType::Int4 => text.trim().parse::<i32>().ok().map(|i| Value::Integer(i.into())),
        PgType::Oid => text.trim().parse::<u32>().ok().map(|i| Value::Integer(i.into())),
        PgType::Int8 => text.trim().parse().ok().map(Value::Integer),
        PgType::Float4 | PgType::Float8 => text.trim().parse().ok().map(Value::Real),
        PgType::Bool => value::truth(text).map(|truth| Value::Integer(truth.into())),
        PgType::Bytea => bytea(text).map(Value::Blob),
        PgType::Numeric => decimal(text.trim()),
        _ => Some(Value::Text(text.to_owned())),
    }
}

/// A decimal number in the storage class that keeps all of it.
fn decimal(text: &str) -> Option<Value> {
    if let Ok(integer) = text.parse() {
        return Some(Value::Integer(integer));
    }
    let real: f64 = text.parse().ok()?;
    // A double keeps 15 digits whatever they are; more stay text, which SQLite compares as a number too.
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    Some(if digits <= 15 { Value::Real(real) } else { Value::Text(text.to_owned()) })
}

/// Both of PostgreSQL's text forms of `bytea`.
fn bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        return value::hexadecimal(&digits);
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    loop {
        match rest {
            [] => return Some(bytes),
            [b'\\', b'\\', tail @ ..] => {
                bytes.push(b'\\');
                rest = tail;
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            [b'\\', ..] => return None,
            [byte, tail @ ..] => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
}

fn from_binary(bytes: &[u8], pg: PgType) -> Option<Value> {
    Some(match pg {
        PgType::Int2 => Value::Integer(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        PgType::Int4 => Value::Integer(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        PgType::Oid => Value::Integer(u32::from_be_bytes(bytes.try_into().ok()?).into()),
        PgType::Int8 => Value::Integer(i64::from_be_bytes(bytes.try_into().ok()?)),
        PgType::Float4 => Value::Real(f32::from_be_bytes(bytes.try_into().ok()?).into()),
        PgType::Float8 => Value::Real(f64::from_be_bytes(bytes.try_into().ok()?)),
        PgType::Bool => Value::Integer(match bytes {
            [byte] => i64::from(*byte != 0),
            _ => return None,
        }),
        PgType::Bytea => Value::Blob(bytes.to_vec()),
        PgType::Uuid => {
            let digits: String =
                <[u8; 16]>::try_from(bytes).ok()?.iter().map(|byte| format!("{byte:02x}")).collect();
            let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
            Value::Text(parts.join("-"))
        }
        PgType::Date => Value::Text(time::date_text(i32::from_be_bytes(bytes.try_into().ok()?))),
        PgType::Time => Value::Text(time::time_text(i64::from_be_bytes(bytes.try_into().ok()?))),
        PgType::Timestamp => Value::Text(time::timestamp_text(i64::from_be_bytes(bytes.try_into().ok()?))),
        PgType::Timestamptz => {
            Value::Text(time::timestamp_text(i64::from_be_bytes(bytes.try_into().ok()?)) + "+00")
        }
        PgType::Numeric => decimal(&numeric::text(bytes)?)?,
        PgType::Jsonb => match bytes {
            [1, json @ ..] => Value::Text(String::from_utf8(json.to_vec()).ok()?),
            _ => return None,
        },
        PgType::Char | PgType::Name | PgType::Text | PgType::Json | PgType::Bpchar | PgType::Varchar => {
            Value::Text(String::from_utf8(bytes.to_vec()).ok()?)
        }
        // Arrays and the like occur in the catalogue only.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_values_of_the_declared_type() {
        let declared = |pg: PgType| ParameterType::Declared(pg.oid());
        let read =
            |text: &str, pg| read(text.as_bytes(), declared(pg), false, 1).map_err(|error| error.sqlstate);
        assert_eq!(read("42", PgType::Int4), Ok(Value::Integer(42)));
        assert_eq!(read("x", PgType::Int4), Err("22P02".to_owned()));
        assert_eq!(read("3000000000", PgType::Int4), Err("22P02".to_owned()));
        assert_eq!(read("yes", PgType::Bool), Ok(Value::Integer(1)));
        assert_eq!(read("\\x0aff", PgType::Bytea), Ok(Value::Blob(vec![10, 255])));
        assert_eq!(read("a\\\\\\001", PgType::Bytea), Ok(Value::Blob(vec![b'a', b'\\', 1])));
        assert_eq!(read("1.50", PgType::Numeric), Ok(Value::Real(1.5)));
        assert_eq!(
            read("0.12345678901234567890", PgType::Numeric),
            Ok(Value::Text("0.12345678901234567890".into()))
        );
    }

    #[test]
    fn guesses_are_not_insisted_on() {
        let value = read(b"x", ParameterType::Inferred(PgType::Int8), false, 1);
        assert_eq!(value, Ok(Value::Text("x".to_owned())));
    }

    #[test]
    fn binary_values_have_their_length() {
        let int8 = ParameterType::Declared(20);
        assert_eq!(read(&7i64.to_be_bytes(), int8, true, 1), Ok(Value::Integer(7)));
        assert_eq!(read(&[1, 2], int8, true, 3).unwrap_err().sqlstate, "22P03");
        assert_eq!(read(&[1], ParameterType::Declared(600), true, 1).unwrap_err().sqlstate, "0A000");
        let stamp = read(&0i64.to_be_bytes(), ParameterType::Declared(1184), true, 1);
        assert_eq!(stamp, Ok(Value::Text("2000-01-01 00:00:00+00".to_owned())));
    }
}
