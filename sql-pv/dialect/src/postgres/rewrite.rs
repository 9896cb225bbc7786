//! PostgreSQL's spellings of what SQLite can say, rewritten in place.

use super::answer::{PositionMap, Refusal, Rewritten, Translated};
use super::literal;
use super::session::SessionView;
use crate::lexer::{Kind, Token};

/// Translates a statement that is none of the session's own.
pub(super) fn statement(
    text: &str,
    tokens: &[Token],
    comments: &[Token],
    _session: &SessionView<'_>,
) -> Result<Translated, Refusal> {
    let mut edits = Edits::default();
    for comment in comments {
        edits.replace(comment.start, comment.end, " ");
    }
    for token in tokens {
        match token.kind {
            // SQLite numbers parameters by `?n`; `$n` would be a name to it.
            Kind::Parameter => edits.replace(token.start, token.start + 1, "?"),
            Kind::EscapeText | Kind::DollarText => match literal::string_value(*token, text) {
                Some(value) => edits.replace(token.start, token.end, &literal::quote(&value)),
                None => return Err(Refusal::new("22025", "invalid escape sequence").at(token.start)),
            },
            Kind::UnicodeText => {
                return Err(Refusal::unsupported("a U& string").hint("Use E'\\u....'.").at(token.start));
            }
            _ => {}
        }
    }
    Ok(edits.finish(text))
}

/// Replacements in a text.
#[derive(Default)]
pub(super) struct Edits {
    /// (first byte, byte after the last, what takes their place).
    edits: Vec<(usize, usize, String)>,
}

impl Edits {
    pub fn replace(&mut self, start: usize, end: usize, with: &str) {
        self.edits.push((start, end, with.to_owned()));
    }

    pub fn insert(&mut self, at: usize, what: &str) {
        self.replace(at, at, what);
    }

    /// The text with its replacements; insertions at one place keep the order in which they were made.
    pub fn finish(mut self, text: &str) -> Translated {
        if self.edits.is_empty() {
            return Translated::PassThrough;
        }
        self.edits.sort_by_key(|edit| (edit.0, edit.1));
        let mut sql = String::with_capacity(text.len() + 64);
        let mut positions = PositionMap::default();
        let mut copied = 0;
        for (start, end, with) in self.edits {
            sql.push_str(&text[copied..start]);
            positions.steps.push((sql.len(), start));
            sql.push_str(&with);
            positions.steps.push((sql.len(), end));
            copied = end;
        }
        sql.push_str(&text[copied..]);
        Translated::Rewritten(Rewritten { sql, positions, tag: None })
    }
}
