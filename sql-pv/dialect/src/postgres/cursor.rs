//! Reading a short statement word by word.

use super::answer::Refusal;
use super::literal;
use crate::lexer::{Kind, Token};

/// A place among the tokens of a statement; blanks are left out.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    tokens: &'a [Token],
}

impl<'a> Cursor<'a> {
    /// At the first of `tokens`, none of which is blank.
    pub fn new(text: &'a str, tokens: &'a [Token]) -> Self {
        Self { text, tokens }
    }

    pub fn peek(&self) -> Option<Token> {
        self.tokens.first().copied()
    }

    pub fn next(&mut self) -> Option<Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(*first)
    }

    /// Whether nothing is left.
    pub fn at_end(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whether a word comes next.
    pub fn is(&self, word: &str) -> bool {
        self.peek().is_some_and(|token| token.is_word(self.text, word))
    }

    /// Takes that word if it comes next.
    pub fn word(&mut self, word: &str) -> bool {
        let found = self.is(word);
        if found {
            self.next();
        }
        found
    }

    /// Takes these words if they all come next.
    pub fn words(&mut self, words: &[&str]) -> bool {
        let mut ahead = *self;
        let found = words.iter().all(|word| ahead.word(word));
        if found {
            *self = ahead;
        }
        found
    }

    /// Takes one of these words if one comes next.
    pub fn one_of(&mut self, words: &[&'static str]) -> Option<&'static str> {
        words.iter().copied().find(|word| self.word(word))
    }

    /// Takes that symbol if it comes next.
    pub fn symbol(&mut self, symbol: u8) -> bool {
        let found = self.peek().is_some_and(|token| token.is(symbol));
        if found {
            self.next();
        }
        found
    }

    /// Takes a name: a word, folded to lower case, or a quoted name as it is.
    pub fn name(&mut self) -> Option<String> {
        let token = self.peek()?;
        let name = match token.kind {
            Kind::Word => token.of(self.text).to_ascii_lowercase(),
            Kind::QuotedName => literal::unquote_name(token.of(self.text)),
            _ => return None,
        };
        self.next();
        Some(name)
    }

    /// Takes a string of any spelling.
    pub fn string(&mut self) -> Option<String> {
        let token = self.peek()?;
        let value = literal::string_value(token, self.text)?;
        self.next();
        Some(value)
    }

    /// A token's text.
    pub fn text_of(&self, token: Token) -> &'a str {
        token.of(self.text)
    }

    /// An error at this place, as PostgreSQL words it.
    pub fn syntax_error(&self) -> Refusal {
        match self.peek() {
            Some(token) => {
                let message = format!("syntax error at or near \"{}\"", token.of(self.text));
                Refusal::syntax(message).at(token.start)
            }
            None => Refusal::syntax("syntax error at end of input").at(self.text.len()),
        }
    }

    /// Fails if something is left.
    pub fn expect_end(&self) -> Result<(), Refusal> {
        if self.at_end() { Ok(()) } else { Err(self.syntax_error()) }
    }
}
