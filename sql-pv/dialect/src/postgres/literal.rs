//! The values of PostgreSQL's string spellings, and SQLite's spelling of a value.

use crate::lexer::{Kind, Token};

/// The name that a quoted name spells.
pub(super) fn unquote_name(quoted: &str) -> String {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    match quoted.as_bytes().first() {
        Some(b'"') => inner.replace("\"\"", "\""),
        Some(b'`') => inner.replace("``", "`"),
        _ => inner.to_owned(),
    }
}

/// The value of a string token; None if it is no string or has an escape that spells no character.
pub(super) fn string_value(token: Token, text: &str) -> Option<String> {
    let spelled = token.of(text);
    match token.kind {
        Kind::Text => Some(spelled[1..spelled.len() - 1].replace("''", "'")),
        Kind::EscapeText => unescape(&spelled[2..spelled.len() - 1]),
        Kind::DollarText => {
            let tag = spelled[1..].find('$')? + 2;
            Some(spelled[tag..spelled.len() - tag].to_owned())
        }
        _ => None,
    }
}

/// SQLite's spelling of a string.
pub(super) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// SQLite's spelling of a name.
pub(super) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The value of what stands between the quotes of `E'...'`.
fn unescape(inner: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(inner.len());
    let mut chars = inner.chars().peekable();
    let mut buffer = [0u8; 4];
    while let Some(c) = chars.next() {
        if c == '\'' {
            // Only doubled quotes are inside.
            chars.next();
            bytes.push(b'\'');
            continue;
        }
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
            continue;
        }
        let escaped = chars.next()?;
        let mut digits = |radix: u32, most: usize, first: Option<char>| {
            let mut found: String = first.into_iter().collect();
            while found.len() < most {
                match chars.next_if(|c| c.is_digit(radix)) {
                    Some(digit) => found.push(digit),
                    None => break,
                }
            }
            u32::from_str_radix(&found, radix).ok()
        };
        match escaped {
            'b' => bytes.push(0x08),
            'f' => bytes.push(0x0c),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            '0'..='7' => bytes.push(u8::try_from(digits(8, 3, Some(escaped))? & 0xff).ok()?),
            'x' => bytes.push(u8::try_from(digits(16, 2, None)?).ok()?),
            'u' => bytes
                .extend_from_slice(char::from_u32(digits(16, 4, None)?)?.encode_utf8(&mut buffer).as_bytes()),
            'U' => bytes
                .extend_from_slice(char::from_u32(digits(16, 8, None)?)?.encode_utf8(&mut buffer).as_bytes()),
            other => bytes.extend_from_slice(other.encode_utf8(&mut buffer).as_bytes()),
        }
    }
    String::from_utf8(bytes).ok().filter(|value| !value.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::Lexer;

    fn value(text: &str) -> Option<String> {
        let token = Lexer::new(text).next().expect("a token").expect("lexes");
        string_value(token, text)
    }

    #[test]
    fn each_spelling_has_its_value() {
        assert_eq!(value("'it''s \\n'").as_deref(), Some("it's \\n"));
        assert_eq!(value(r"E'it\'s\n\x41\102\u00e9 '''").as_deref(), Some("it's\nAB\u{e9} '"));
        assert_eq!(value("$$a'b$$").as_deref(), Some("a'b"));
        assert_eq!(value("$tag$a$$b$tag$").as_deref(), Some("a$$b"));
        assert_eq!(value(r"E'\xff'"), None);
        assert_eq!(value(r"E'\0'"), None);
        assert_eq!(value("name"), None);
    }
}
