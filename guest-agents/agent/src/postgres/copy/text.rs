//! COPY's text format: a line a row, delimiters between fields, backslash escapes.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::field::Field;

/// Cuts a line into its fields and undoes their escapes.
pub(super) fn fields<'a>(line: &'a [u8], delimiter: u8, null: &[u8], out: &mut Vec<Field<'a>>) {
    out.clear();
    let mut rest = line;
    loop {
        let (mut at, mut escaped) = (0, false);
        while at < rest.len() && rest[at] != delimiter {
            // A backslash guards the byte after it, be it a delimiter.
            let guards = rest[at] == b'\\';
            escaped |= guards;
            at += if guards { 2 } else { 1 };
        }
        let raw = &rest[..at.min(rest.len())];
        out.push(match raw {
            raw if raw == null => None,
            raw if escaped => Some(Cow::Owned(unescape(raw))),
            raw => Some(Cow::Borrowed(raw)),
        });
        if at >= rest.len() {
            return;
        }
        rest = &rest[at + 1..];
    }
}

fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        at += 1;
        let escape = match (byte, raw.get(at)) {
            (b'\\', Some(escape)) => *escape,
            _ => {
                out.push(*byte);
                continue;
            }
        };
        at += 1;
        out.push(match escape {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'0'..=b'7' => number(raw, &mut at, u32::from(escape - b'0'), 8, 2),
            b'x' if raw.get(at).is_some_and(u8::is_ascii_hexdigit) => number(raw, &mut at, 0, 16, 2),
            other => other,
        });
    }
    out
}

/// Goes on with a number of at most `most` further digits.
fn number(raw: &[u8], at: &mut usize, first: u32, radix: u32, most: usize) -> u8 {
    let mut value = first;
    for _ in 0..most {
        let Some(digit) = raw.get(*at).and_then(|byte| (*byte as char).to_digit(radix)) else { break };
        value = value * radix + digit;
        *at += 1;
    }
    value as u8
}

/// Appends a field with the escapes it needs.
pub(super) fn put(out: &mut BytesMut, field: &[u8], delimiter: u8) {
    for byte in field {
        let escape = match byte {
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            b'\\' => b'\\',
            byte if *byte == delimiter => *byte,
            byte => {
                out.put_u8(*byte);
                continue;
            }
        };
        out.put_u8(b'\\');
        out.put_u8(escape);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut out = Vec::new();
        fields(line, b'\t', b"\\N", &mut out);
        out.into_iter().map(|field| field.map(Cow::into_owned)).collect()
    }

    #[test]
    fn escapes_are_undone() {
        let fields = cut(b"a\\tb\t\\N\t\t\\\\N\tx\\\ty\\x41\\101\\q");
        let expected = [Some(&b"a\tb"[..]), None, Some(b""), Some(b"\\N"), Some(b"x\tyAAq")];
        assert_eq!(fields, expected.map(|field| field.map(<[u8]>::to_vec)));
        assert_eq!(cut(b""), [Some(vec![])]);
        assert_eq!(cut(b"a\\"), [Some(b"a\\".to_vec())]);
    }

    proptest! {
        #[test]
        fn any_field_comes_back(field in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut line = BytesMut::new();
            put(&mut line, &field, b'\t');
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(cut(&line), [Some(field)]);
        }
    }
}
