//! PostgreSQL's spellings of what SQLite can say, rewritten in place.

use super::answer::{PositionMap, Refusal, Rewritten, Translated};
use super::session::SessionView;
use super::{catalog, literal};
use crate::lexer::{Kind, Token};

/// Translates a statement that is none of the session's own.
pub(super) fn statement(
    text: &str,
    tokens: &[Token],
    comments: &[Token],
    session: &SessionView<'_>,
) -> Result<Translated, Refusal> {
    match asks_catalog(text, tokens) {
        Catalog::Unasked => {}
        Catalog::Query => return catalog::query(text, tokens, session),
        Catalog::OtherStatement(position) => {
            let what = "the catalogue in a statement other than SELECT";
            return Err(Refusal::unsupported(what).at(position));
        }
    }
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

/// Whether a statement is about the catalogue.
enum Catalog {
    Unasked,
    Query,
    /// It names the catalogue at that byte, but does not only ask.
    OtherStatement(usize),
}

/// Looks for names of the catalogue: a schema of its own, a relation in FROM, a function, a `reg...` cast.
fn asks_catalog(text: &str, tokens: &[Token]) -> Catalog {
    let asks = tokens.first().is_some_and(|first| {
        first.is(b'(') || ["select", "with", "values"].iter().any(|word| first.is_word(text, word))
    });
    for (at, token) in tokens.iter().enumerate() {
        if token.kind != Kind::Word {
            continue;
        }
        let word = token.of(text);
        let next = tokens.get(at + 1);
        let after_cast = at > 0 && tokens[at - 1].kind == Kind::Cast;
        let Some(prefix) = word.get(..3) else { continue };
        let schema =
            ["pg_catalog", "information_schema"].iter().any(|schema| word.eq_ignore_ascii_case(schema));
        if schema && next.is_some_and(|next| next.is(b'.')) {
            return if asks { Catalog::Query } else { Catalog::OtherStatement(token.start) };
        }
        let found = if prefix.eq_ignore_ascii_case("pg_") {
            next.is_some_and(|next| next.is(b'(')) || catalog::is_relation(&word.to_ascii_lowercase())
        } else {
            after_cast && prefix.eq_ignore_ascii_case("reg")
        };
        // A name that only looks like the catalogue's may be a table's in other statements.
        if found && asks {
            return Catalog::Query;
        }
    }
    Catalog::Unasked
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
