//! A statement's tokens with their brackets matched.

use crate::lexer::{Kind, Token};

/// The statement.
pub(super) struct Source<'a> {
    pub text: &'a str,
    pub tokens: &'a [Token],
    /// For `(` and `)`, and for `CASE` and its `END`: the index of the other. Elsewhere its own index.
    partners: Vec<usize>,
}

impl<'a> Source<'a> {
    pub fn new(text: &'a str, tokens: &'a [Token]) -> Self {
        let mut partners: Vec<usize> = (0..tokens.len()).collect();
        let (mut parentheses, mut cases) = (Vec::new(), Vec::new());
        for (at, token) in tokens.iter().enumerate() {
            let opened = match token.kind {
                Kind::Symbol(b'(') => {
                    parentheses.push(at);
                    None
                }
                Kind::Symbol(b')') => parentheses.pop(),
                Kind::Word if token.is_word(text, "case") => {
                    cases.push(at);
                    None
                }
                Kind::Word if token.is_word(text, "end") => cases.pop(),
                _ => None,
            };
            if let Some(opened) = opened {
                partners[opened] = at;
                partners[at] = opened;
            }
        }
        Self { text, tokens, partners }
    }

    /// Whether the token there is that word.
    pub fn is_word(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_word(self.text, word))
    }

    /// Whether the token there is one of those words.
    pub fn is_one_of(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is_word(at, word))
    }

    /// Whether the token there is that symbol.
    pub fn is(&self, at: usize, symbol: u8) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is(symbol))
    }

    pub fn kind(&self, at: usize) -> Option<Kind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    /// The token's text; empty past the end.
    pub fn of(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.of(self.text))
    }

    /// First byte of the token; past the end: the end of the text.
    pub fn start(&self, at: usize) -> usize {
        self.tokens.get(at).map_or(self.text.len(), |token| token.start)
    }

    /// Byte after the token.
    pub fn end(&self, at: usize) -> usize {
        self.tokens.get(at).map_or(self.text.len(), |token| token.end)
    }

    /// The text of the tokens from `first` to before `after`.
    pub fn span(&self, first: usize, after: usize) -> &'a str {
        let text = self.text;
        &text[self.start(first)..self.end(after - 1)]
    }

    /// The other one of a pair; None if it is missing.
    pub fn partner(&self, at: usize) -> Option<usize> {
        self.partners.get(at).copied().filter(|partner| *partner != at)
    }

    fn is_name(&self, at: usize) -> bool {
        matches!(self.kind(at), Some(Kind::Word | Kind::QuotedName))
    }

    /// Whether the tokens touch.
    fn adjacent(&self, at: usize) -> bool {
        at > 0 && self.tokens[at - 1].end == self.tokens[at].start
    }

    /// The index of the first token of the primary expression that ends at `last`: a literal, a name, a call, a
    /// group, `CASE ... END`. None if none ends there.
    pub fn operand_start(&self, last: usize) -> Option<usize> {
        let mut at = last;
        match self.kind(last)? {
            Kind::Text if self.adjacent(last) && self.kind(last - 1) == Some(Kind::Word) => Some(last - 1),
            Kind::Number if self.adjacent(last) && self.is(last - 1, b'?') => Some(last - 1),
            Kind::Text | Kind::EscapeText | Kind::DollarText | Kind::Number | Kind::Parameter => Some(last),
            Kind::Symbol(b'?') => Some(last),
            Kind::Word if self.is_word(last, "end") && self.partner(last).is_some() => self.partner(last),
            Kind::Word
                if self.adjacent(last) && matches!(self.kind(last - 1), Some(Kind::Symbol(b':' | b'@'))) =>
            {
                Some(last - 1)
            }
            Kind::Word if RESERVED.iter().any(|word| self.is_word(last, word)) => None,
            Kind::Word | Kind::QuotedName => Some(self.qualified(last)),
            Kind::Symbol(b')') => loop {
                let open = self.partner(at)?;
                let before = open.checked_sub(1);
                match before {
                    // `f(x) FILTER (...) OVER (...)`
                    Some(word) if self.is_one_of(word, &["over", "filter"]) => {
                        at = word.checked_sub(1)?;
                        if !self.is(at, b')') {
                            return None;
                        }
                    }
                    Some(word)
                        if self.is_name(word) && !RESERVED.iter().any(|known| self.is_word(word, known)) =>
                    {
                        return Some(self.qualified(word));
                    }
                    _ => return Some(open),
                }
            },
            _ => None,
        }
    }

    /// The index of the first part of the qualified name that ends at `last`.
    fn qualified(&self, last: usize) -> usize {
        let mut first = last;
        while first >= 2 && self.is(first - 1, b'.') && self.is_name(first - 2) {
            first -= 2;
        }
        first
    }

    /// The index after the primary expression that begins at `first`.
    pub fn operand_end(&self, first: usize) -> Option<usize> {
        let mut at = first;
        match self.kind(first)? {
            Kind::Text | Kind::EscapeText | Kind::DollarText | Kind::Number | Kind::Parameter => {
                Some(first + 1)
            }
            Kind::Symbol(b'(') => Some(self.partner(first)? + 1),
            Kind::Symbol(b'?') => {
                Some(if self.kind(first + 1) == Some(Kind::Number) { first + 2 } else { first + 1 })
            }
            Kind::Word if self.is_word(first, "case") => Some(self.partner(first)? + 1),
            Kind::Word | Kind::QuotedName => {
                while self.is(at + 1, b'.') && self.is_name(at + 2) {
                    at += 2;
                }
                if self.is(at + 1, b'(') { Some(self.partner(at + 1)? + 1) } else { Some(at + 1) }
            }
            _ => None,
        }
    }
}

/// Words before which a parenthesis is no call and after which no operand has ended.
const RESERVED: &[&str] = &[
    "all",
    "and",
    "any",
    "as",
    "between",
    "by",
    "case",
    "collate",
    "distinct",
    "else",
    "escape",
    "except",
    "from",
    "having",
    "ilike",
    "in",
    "intersect",
    "is",
    "like",
    "limit",
    "not",
    "offset",
    "on",
    "or",
    "returning",
    "select",
    "set",
    "some",
    "then",
    "union",
    "using",
    "values",
    "when",
    "where",
    "with",
];
