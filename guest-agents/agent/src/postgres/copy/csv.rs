//! COPY's CSV format: quotes around what would be taken for something else, in which lines may end.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use vamos_sql_dialect::postgres::CopyOptions;

use super::field::Field;
use crate::postgres::error::PgError;

/// Whether quotes are open at the end of `line`, given whether they were at its start: then the record
/// goes on in the next line.
pub(super) fn open_at_end(line: &[u8], mut open: bool, options: &CopyOptions) -> bool {
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        if open && *byte == options.escape && options.escape != options.quote {
            // Guards the next byte if that is special; the byte itself is looked at otherwise.
            let guarded =
                line.get(at + 1).is_some_and(|next| *next == options.quote || *next == options.escape);
            at += if guarded { 2 } else { 1 };
            continue;
        }
        // A doubled quote closes and opens again, which comes to the same.
        open ^= *byte == options.quote;
        at += 1;
    }
    open
}

/// Cuts a record into its fields.
///
/// # Errors
/// 22P04 for quotes that are not closed.
pub(super) fn fields<'a>(
    record: &'a [u8],
    options: &CopyOptions,
    out: &mut Vec<Field<'a>>,
) -> Result<(), PgError> {
    out.clear();
    let mut rest = record;
    loop {
        let end = rest.iter().position(|byte| *byte == options.delimiter || *byte == options.quote);
        let at = match end {
            Some(at) if rest[at] == options.quote => {
                let (field, used) = quoted(rest, options)?;
                out.push(Some(Cow::Owned(field)));
                used
            }
            end => {
                let raw = &rest[..end.unwrap_or(rest.len())];
                out.push(if raw == options.null.as_bytes() { None } else { Some(Cow::Borrowed(raw)) });
                raw.len()
            }
        };
        if at >= rest.len() {
            return Ok(());
        }
        rest = &rest[at + 1..];
    }
}

/// Reads a field in which quotes occur. Returns it and how many bytes it takes up.
fn quoted(rest: &[u8], options: &CopyOptions) -> Result<(Vec<u8>, usize), PgError> {
    let (mut field, mut at, mut open) = (Vec::new(), 0, false);
    while let Some(byte) = rest.get(at) {
        let next = rest.get(at + 1);
        if open
            && *byte == options.escape
            && next.is_some_and(|next| *next == options.quote || *next == options.escape)
        {
            field.extend(next);
            at += 2;
            continue;
        }
        if *byte == options.quote {
            open = !open;
        } else if !open && *byte == options.delimiter {
            return Ok((field, at));
        } else {
            field.push(*byte);
        }
        at += 1;
    }
    if open { Err(PgError::new("22P04", "unterminated CSV quoted field")) } else { Ok((field, at)) }
}

/// Appends a field, with quotes if it needs them. `alone`: it is the only one of its row.
pub(super) fn put(out: &mut BytesMut, field: &[u8], options: &CopyOptions, alone: bool) {
    let special =
        |byte: &u8| *byte == options.delimiter || *byte == options.quote || matches!(byte, b'\n' | b'\r');
    let needs = field == options.null.as_bytes() || (alone && field == b"\\.") || field.iter().any(special);
    if !needs {
        return out.put_slice(field);
    }
    out.put_u8(options.quote);
    for byte in field {
        if *byte == options.quote || *byte == options.escape {
            out.put_u8(options.escape);
        }
        out.put_u8(*byte);
    }
    out.put_u8(options.quote);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vamos_sql_dialect::postgres::{Format, Header};

    fn options(escape: u8) -> CopyOptions {
        CopyOptions {
            format: Format::Csv,
            delimiter: b',',
            null: String::new(),
            header: Header::None,
            quote: b'"',
            escape,
        }
    }

    fn cut(record: &[u8], options: &CopyOptions) -> Vec<Option<Vec<u8>>> {
        let mut out = Vec::new();
        fields(record, options, &mut out).unwrap();
        out.into_iter().map(|field| field.map(Cow::into_owned)).collect()
    }

    #[test]
    fn quotes_and_nulls() {
        let fields = cut(b"a,,\"\",\"x\"\"y,\n\",b\"c\"d", &options(b'"'));
        let expected = [Some(&b"a"[..]), None, Some(b""), Some(b"x\"y,\n"), Some(b"bcd")];
        assert_eq!(fields, expected.map(|field| field.map(<[u8]>::to_vec)));
        let mut out = Vec::new();
        assert_eq!(super::fields(b"\"a", &options(b'"'), &mut out).unwrap_err().sqlstate, "22P04");
    }

    #[test]
    fn a_record_goes_on_while_quotes_are_open() {
        for escape in [b'"', b'\\'] {
            let options = options(escape);
            assert!(open_at_end(b"a,\"b", false, &options));
            assert!(!open_at_end(b"c\",d", true, &options));
            assert!(!open_at_end(b"a,\"b\"\"c\"", false, &options));
        }
        assert!(open_at_end(b"\"a\\\"", false, &options(b'\\')));
    }

    proptest! {
        #[test]
        fn any_fields_come_back(row in proptest::collection::vec(proptest::option::of("[a\",\\\\\n\r.]{0,6}"), 1..5),
                                escape in proptest::sample::select(vec![b'"', b'\\'])) {
            let (options, mut line) = (options(escape), BytesMut::new());
            for (at, field) in row.iter().enumerate() {
                if at > 0 { line.put_u8(b',') }
                if let Some(field) = field { put(&mut line, field.as_bytes(), &options, row.len() == 1) }
            }
            prop_assert!(!open_at_end(&line, false, &options));
            let expected: Vec<_> = row.into_iter().map(|field| field.map(String::into_bytes)).collect();
            prop_assert_eq!(cut(&line, &options), expected);
        }
    }
}
