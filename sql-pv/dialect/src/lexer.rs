//! Where the tokens of a statement begin and end, for PostgreSQL's and SQLite's lexical rules at once.
//!
//! One pass, no allocation, no look at what the words mean. The text is a PostgreSQL client's, so its
//! rules win where the two disagree: `$tag$ ... $tag$` is a string, comments nest, and `a[1]` is a
//! subscript; `[a]` elsewhere is SQLite's quoted name.

use thiserror::Error;

/// What a token is, as far as spelling tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// White space.
    Space,
    /// `-- ...` or `/* ... */`.
    Comment {
        /// Another comment begins within it, which SQLite does not know.
        nested: bool,
    },
    /// A keyword or plain name.
    Word,
    /// A number.
    Number,
    /// `'...'`, where only a doubled quote is special.
    Text,
    /// `E'...'` with backslash escapes.
    EscapeText,
    /// `$tag$...$tag$`.
    DollarText,
    /// `U&'...'` or `U&"..."`.
    UnicodeText,
    /// A name in double quotes, back quotes or brackets.
    QuotedName,
    /// `$1`.
    Parameter,
    /// `::`.
    Cast,
    /// Any other single byte of ASCII.
    Symbol(u8),
}

/// A token: what it is and the bytes it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    /// The token's text.
    pub fn of(self, text: &str) -> &str {
        &text[self.start..self.end]
    }

    /// Whether it separates tokens instead of being one to a parser.
    pub fn is_blank(self) -> bool {
        matches!(self.kind, Kind::Space | Kind::Comment { .. })
    }

    /// Whether it is this word, in any case.
    pub fn is_word(self, text: &str, word: &str) -> bool {
        self.kind == Kind::Word && self.of(text).eq_ignore_ascii_case(word)
    }

    /// Whether it is this symbol.
    pub fn is(self, symbol: u8) -> bool {
        self.kind == Kind::Symbol(symbol)
    }
}

/// A text that has no tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LexError {
    /// A string, name or comment that does not end.
    #[error("unterminated {what}")]
    Unterminated {
        /// What was begun.
        what: &'static str,
        /// Byte where it begins.
        position: usize,
    },
    /// A zero byte, where the engine's text would end.
    #[error("a statement cannot contain a zero byte")]
    ZeroByte {
        /// Where it is.
        position: usize,
    },
}

impl LexError {
    /// Byte at which the trouble begins.
    pub fn position(&self) -> usize {
        match *self {
            LexError::Unterminated { position, .. } | LexError::ZeroByte { position } => position,
        }
    }
}

/// Iterates over the tokens of a text.
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// The last token that was not blank: what a `[` means depends on it.
    last: Option<Token>,
    /// Inside `ARRAY[`, where `[` nests.
    subscripts: u32,
    /// No `]` follows; saves looking again at each `[`.
    brackets_ended: bool,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, last: None, subscripts: 0, brackets_ended: false }
    }

    fn byte(&self, at: usize) -> u8 {
        self.text.as_bytes().get(at).copied().unwrap_or(0)
    }

    /// End of the run of bytes from `at` that satisfy `belongs`.
    fn run(&self, at: usize, belongs: impl Fn(u8) -> bool) -> usize {
        let rest = &self.text.as_bytes()[at..];
        at + rest.iter().position(|&b| !belongs(b)).unwrap_or(rest.len())
    }

    /// End of a quoted token whose opening quote is at `open`; a doubled quote does not close.
    fn quoted(&self, open: usize, quote: u8, escapes: bool, what: &'static str) -> Result<usize, LexError> {
        let bytes = self.text.as_bytes();
        let mut at = open + 1;
        while at < bytes.len() {
            match bytes[at] {
                b if b == quote && self.byte(at + 1) == quote => at += 2,
                b if b == quote => return Ok(at + 1),
                b'\\' if escapes => at += 2,
                0 => return Err(LexError::ZeroByte { position: at }),
                _ => at += 1,
            }
        }
        Err(LexError::Unterminated { what, position: open })
    }

    fn block_comment(&self, start: usize) -> Result<(usize, bool), LexError> {
        let bytes = self.text.as_bytes();
        let (mut at, mut depth, mut nested) = (start + 2, 1u32, false);
        while at < bytes.len() {
            match (bytes[at], self.byte(at + 1)) {
                (b'*', b'/') => {
                    (at, depth) = (at + 2, depth - 1);
                    if depth == 0 {
                        return Ok((at, nested));
                    }
                }
                (b'/', b'*') => (at, depth, nested) = (at + 2, depth + 1, true),
                (0, _) => return Err(LexError::ZeroByte { position: at }),
                _ => at += 1,
            }
        }
        Err(LexError::Unterminated { what: "/* comment", position: start })
    }

    fn dollar(&self, start: usize) -> Result<(Kind, usize), LexError> {
        let next = self.byte(start + 1);
        if next.is_ascii_digit() {
            return Ok((Kind::Parameter, self.run(start + 1, |b| b.is_ascii_digit())));
        }
        let tag_end = self.run(start + 1, |b| is_word(b) && b != b'$');
        if self.byte(tag_end) != b'$' {
            return Ok((Kind::Symbol(b'$'), start + 1));
        }
        let tag = &self.text[start..=tag_end];
        match self.text[tag_end + 1..].find(tag) {
            Some(found) => {
                let end = tag_end + 1 + found + tag.len();
                match self.text.as_bytes()[start..end].iter().position(|&b| b == 0) {
                    Some(zero) => Err(LexError::ZeroByte { position: start + zero }),
                    None => Ok((Kind::DollarText, end)),
                }
            }
            None => Err(LexError::Unterminated { what: "dollar-quoted string", position: start }),
        }
    }

    /// `[` opens SQLite's quoted name unless it follows what can be subscripted.
    fn bracket(&mut self, start: usize) -> (Kind, usize) {
        let subscript = self.subscripts > 0
            || self.last.is_some_and(|last| {
                let adjacent = last.end == start;
                match last.kind {
                    Kind::Word if last.is_word(self.text, "array") => true,
                    Kind::Word | Kind::QuotedName | Kind::Parameter => adjacent,
                    Kind::Symbol(b) => adjacent && matches!(b, b')' | b']'),
                    _ => false,
                }
            });
        if subscript {
            self.subscripts += 1;
            return (Kind::Symbol(b'['), start + 1);
        }
        if !self.brackets_ended {
            if let Some(length) = self.text[start..].find(']') {
                if !self.text[start..start + length].contains('\0') {
                    return (Kind::QuotedName, start + length + 1);
                }
            } else {
                self.brackets_ended = true;
            }
        }
        (Kind::Symbol(b'['), start + 1)
    }

    fn scan(&mut self) -> Result<Token, LexError> {
        let start = self.at;
        let (first, second) = (self.byte(start), self.byte(start + 1));
        let (kind, end) = match first {
            0 => return Err(LexError::ZeroByte { position: start }),
            b if is_space(b) => (Kind::Space, self.run(start, is_space)),
            b'-' if second == b'-' => {
                let end = self.run(start, |b| b != b'\n' && b != 0);
                (Kind::Comment { nested: false }, end)
            }
            b'/' if second == b'*' => {
                let (end, nested) = self.block_comment(start)?;
                (Kind::Comment { nested }, end)
            }
            b'\'' => (Kind::Text, self.quoted(start, b'\'', false, "quoted string")?),
            b'"' => (Kind::QuotedName, self.quoted(start, b'"', false, "quoted identifier")?),
            b'`' => (Kind::QuotedName, self.quoted(start, b'`', false, "quoted identifier")?),
            b'[' => self.bracket(start),
            b']' => {
                self.subscripts = self.subscripts.saturating_sub(1);
                (Kind::Symbol(b']'), start + 1)
            }
            b'$' => self.dollar(start)?,
            b'e' | b'E' if second == b'\'' => {
                (Kind::EscapeText, self.quoted(start + 1, b'\'', true, "quoted string")?)
            }
            b'u' | b'U' if second == b'&' && matches!(self.byte(start + 2), b'\'' | b'"') => {
                let quote = self.byte(start + 2);
                (Kind::UnicodeText, self.quoted(start + 2, quote, false, "quoted string")?)
            }
            b':' if second == b':' => (Kind::Cast, start + 2),
            b if b.is_ascii_digit() || (b == b'.' && second.is_ascii_digit()) => {
                (Kind::Number, self.run(start, |b| is_word(b) || b == b'.'))
            }
            b if is_word(b) => (Kind::Word, self.run(start, is_word)),
            b => (Kind::Symbol(b), start + 1),
        };
        Ok(Token { kind, start, end: end.min(self.text.len()) })
    }
}

impl Iterator for Lexer<'_> {
    type Item = Result<Token, LexError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.text.len() {
            return None;
        }
        let token = self.scan();
        match token {
            Ok(token) => {
                self.at = token.end;
                if !token.is_blank() {
                    self.last = Some(token);
                }
            }
            // Nothing after it can be trusted: an error is the last item.
            Err(_) => self.at = self.text.len(),
        }
        Some(token)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Bytes of words; those of a multi-byte character all are, so that tokens end between characters.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<(Kind, &str)> {
        Lexer::new(text)
            .map(|token| token.expect("lexes"))
            .filter(|token| token.kind != Kind::Space)
            .map(|token| (token.kind, token.of(text)))
            .collect()
    }

    #[test]
    fn strings_end_where_their_kind_says() {
        assert_eq!(tokens("'it''s; \\'"), [(Kind::Text, "'it''s; \\'")]);
        assert_eq!(tokens(r"E'it\'s; '''"), [(Kind::EscapeText, r"E'it\'s; '''")]);
        assert_eq!(tokens("$a$ ' $b$ ; $a$"), [(Kind::DollarText, "$a$ ' $b$ ; $a$")]);
        assert_eq!(tokens("$$;$$"), [(Kind::DollarText, "$$;$$")]);
        assert_eq!(tokens("U&'d\\0061t'"), [(Kind::UnicodeText, "U&'d\\0061t'")]);
    }

    #[test]
    fn brackets_are_names_or_subscripts() {
        assert_eq!(tokens("[a;b]"), [(Kind::QuotedName, "[a;b]")]);
        assert_eq!(tokens("a[1]").len(), 4);
        let nested = tokens("ARRAY[['x;]'], [']']]");
        assert_eq!(nested.iter().filter(|token| token.0 == Kind::Text).count(), 2);
        assert_eq!(tokens("[ [").len(), 2);
    }

    #[test]
    fn comments_nest() {
        assert_eq!(tokens("/* a /* b */ ; */"), [(Kind::Comment { nested: true }, "/* a /* b */ ; */")]);
        assert_eq!(tokens("/**/"), [(Kind::Comment { nested: false }, "/**/")]);
        assert_eq!(tokens("-- ';\nx"), [(Kind::Comment { nested: false }, "-- ';"), (Kind::Word, "x")]);
    }

    #[test]
    fn what_does_not_end_says_where_it_began() {
        for (text, position) in [("a 'b", 2), ("a /* /* */", 2), ("\"x", 0), ("  $x$ $y$", 2), ("E'\\'", 1)] {
            let error = Lexer::new(text).find_map(Result::err).expect("an error");
            assert!(matches!(error, LexError::Unterminated { .. }), "{text}");
            assert_eq!(error.position(), position, "{text}");
        }
        let zero = Lexer::new("a '\0'").find_map(Result::err);
        assert_eq!(zero, Some(LexError::ZeroByte { position: 3 }));
    }
}
