//! PostgreSQL's spellings of what SQLite can say, rewritten in place.

mod cast;
mod clauses;
mod edits;
mod names;
mod schema;
mod source;

use super::answer::{Refusal, Translated};
use super::session::SessionView;
use super::{catalog, literal};
use crate::lexer::{Kind, Token};
use cast::Cast;
use edits::Edits;
use source::Source;

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
    if comments.is_empty() && !tokens.iter().any(|token| is_postgres(*token, text)) {
        return Ok(Translated::PassThrough);
    }
    let source = Source::new(text, tokens);
    let mut walk = Walk {
        source: &source,
        session,
        edits: Edits::default(),
        levels: vec![Level::default()],
        cast: None,
    };
    for comment in comments {
        walk.edits.replace(comment.start, comment.end, " ");
    }
    if ["create", "alter", "drop"].iter().any(|word| source.is_word(0, word)) {
        schema::rewrite(&source, &mut walk.edits)?;
    }
    let mut at = 0;
    while at < tokens.len() {
        at = walk.token(at)?.max(at + 1);
    }
    Ok(walk.edits.finish(text))
}

/// Words that may need something; any other is SQLite's or a name.
const WORDS: &[&str] = &[
    "all",
    "any",
    "array",
    "at",
    "bigserial",
    "btrim",
    "cascade",
    "char_length",
    "character_length",
    "concurrently",
    "constraint",
    "current_catalog",
    "current_database",
    "current_role",
    "current_schema",
    "current_user",
    "date",
    "distinct",
    "execute",
    "extract",
    "fetch",
    "for",
    "identity",
    "ilike",
    "interval",
    "json_agg",
    "json_build_array",
    "json_build_object",
    "lateral",
    "now",
    "offset",
    "pg_backend_pid",
    "public",
    "replace",
    "serial",
    "serial2",
    "serial4",
    "serial8",
    "session_user",
    "similar",
    "smallserial",
    "some",
    "strpos",
    "time",
    "timestamp",
    "timestamptz",
    "using",
    "version",
];

/// Whether a token may be PostgreSQL's and not SQLite's.
fn is_postgres(token: Token, text: &str) -> bool {
    match token.kind {
        Kind::Cast | Kind::Parameter | Kind::EscapeText | Kind::DollarText | Kind::UnicodeText => true,
        Kind::Symbol(symbol) => symbol == b'~',
        Kind::Word => WORDS.iter().any(|word| token.is_word(text, word)),
        _ => false,
    }
}

/// What a parenthesis holds, as far as it has been read.
#[derive(Debug, Default, Clone, Copy)]
struct Level {
    /// The index at which an item of a SELECT list begins, within one.
    item: Option<usize>,
    /// A LIMIT was read.
    limited: bool,
}

/// The pass over a statement's tokens.
struct Walk<'a> {
    source: &'a Source<'a>,
    session: &'a SessionView<'a>,
    edits: Edits,
    levels: Vec<Level>,
    /// The last cast that was read.
    cast: Option<Cast>,
}

impl Walk<'_> {
    fn level(&mut self) -> Level {
        self.levels.last().copied().unwrap_or_default()
    }

    fn set_level(&mut self, change: impl FnOnce(&mut Level)) {
        if let Some(level) = self.levels.last_mut() {
            change(level);
        }
    }

    /// Reads the token at `at`. Returns the index to go on from.
    fn token(&mut self, at: usize) -> Result<usize, Refusal> {
        let source = self.source;
        let token = source.tokens[at];
        match token.kind {
            // SQLite numbers parameters by `?n`; `$n` would be a name to it.
            Kind::Parameter => self.edits.replace(token.start, token.start + 1, "?"),
            Kind::EscapeText | Kind::DollarText => match literal::string_value(token, source.text) {
                Some(value) => self.edits.replace(token.start, token.end, literal::quote(&value)),
                None => return Err(Refusal::new("22025", "invalid escape sequence").at(token.start)),
            },
            Kind::UnicodeText => {
                return Err(Refusal::unsupported("a U& string").hint("Use E'\\u....'.").at(token.start));
            }
            Kind::Symbol(b'(') => self.levels.push(Level::default()),
            Kind::Symbol(b')') if self.levels.len() > 1 => drop(self.levels.pop()),
            Kind::Symbol(b',') => self.set_level(|level| level.item = level.item.map(|_| at + 1)),
            Kind::Symbol(b'~') => self.regex(at)?,
            Kind::Cast => return self.cast(at),
            Kind::Word => return self.word(at),
            _ => {}
        }
        Ok(at + 1)
    }

    fn cast(&mut self, at: usize) -> Result<usize, Refusal> {
        let source = self.source;
        let cast = cast::rewrite(source, at, self.cast.as_ref(), &mut self.edits)?;
        let (operand, end) = (cast.operand, cast.end);
        if operand > 0 && source.is_word(operand - 1, "default") {
            // A default is a literal or in parentheses.
            self.edits.before(source.start(operand), "(");
            self.edits.replace(source.end(end - 1), source.end(end - 1), ")");
        }
        // The name of what is cast, which a cast around a cast hands on; without one, the type's.
        let chained = self.cast.as_ref().filter(|earlier| earlier.end == at);
        let label = match source.kind(at - 1) {
            _ if chained.is_some() => chained.and_then(|earlier| earlier.label.clone()),
            Some(Kind::QuotedName) => Some(literal::unquote_name(source.of(at - 1))),
            Some(Kind::Word) if !source.is_word(at - 1, "end") => {
                Some(source.of(at - 1).to_ascii_lowercase())
            }
            Some(Kind::Symbol(b')'))
                if source.kind(operand) == Some(Kind::Word) && source.is(operand + 1, b'(') =>
            {
                Some(source.of(operand).to_ascii_lowercase())
            }
            _ => None,
        };
        let name = label.clone().unwrap_or_else(|| cast.name.to_owned());
        self.name_item(operand, end, &name);
        self.cast = Some(Cast { label, ..cast });
        Ok(end)
    }

    /// Gives a rewritten item of a SELECT list the name it has in PostgreSQL, if it is the whole item.
    fn name_item(&mut self, first: usize, after: usize, name: &str) {
        let ends = after >= self.source.tokens.len()
            || self.source.is(after, b',')
            || self.source.is(after, b')')
            || self.source.is_one_of(after, &LIST_ENDS);
        if ends && self.level().item == Some(first) {
            let end = self.source.end(after - 1);
            self.edits.replace(end, end, format!(" AS {}", literal::quote_name(name)));
        }
    }

    fn word(&mut self, at: usize) -> Result<usize, Refusal> {
        let source = self.source;
        if source.is_one_of(at, &["select", "returning"]) {
            let skipped = source.is_one_of(at + 1, &["all", "distinct"]);
            let first = if skipped { at + 2 } else { at + 1 };
            self.set_level(|level| *level = Level { item: Some(first), limited: false });
            return Ok(at + 1);
        }
        if source.is_one_of(at, &LIST_ENDS) {
            self.set_level(|level| level.item = None);
        }
        if at > 0 && source.is(at - 1, b'.') {
            return Ok(at + 1);
        }
        if let Some(refusal) = clauses::refusal(source, at) {
            return Err(refusal);
        }
        if source.is_word(at, "limit") {
            self.set_level(|level| level.limited = true);
            if source.is_word(at + 1, "all") {
                self.edits.replace(source.start(at + 1), source.end(at + 1), "-1");
                return Ok(at + 2);
            }
        }
        let value_follows =
            matches!(source.kind(at + 1), Some(Kind::Number | Kind::Parameter | Kind::Symbol(b'(')));
        if source.is_word(at, "offset") && value_follows {
            let limited = self.level().limited;
            let after = clauses::offset(source, at, limited, &mut self.edits)?;
            // What is left to rewrite is the number itself.
            if source.kind(at + 1) == Some(Kind::Parameter) {
                self.token(at + 1)?;
            }
            return Ok(after);
        }
        if source.is_word(at, "fetch") && source.is_one_of(at + 1, &["first", "next"]) {
            return clauses::fetch(source, at, &mut self.edits);
        }
        if source.is_word(at, "ilike") {
            clauses::ilike(source, at, &mut self.edits);
            return Ok(at + 1);
        }
        if source.is_one_of(at, &["any", "some", "all"])
            && source.is(at + 1, b'(')
            && at > 0
            && is_comparison(source, at - 1)
        {
            clauses::any(source, at, &mut self.edits)?;
            // The list is read as any other; its bracket is gone.
            return Ok(if source.is_word(at + 2, "array") { at + 4 } else { at + 1 });
        }
        if source.is_word(at, "public") && source.is(at + 1, b'.') {
            names::public(source, at, &mut self.edits);
            return Ok(at + 1);
        }
        if let Some(after) = names::literal(source, at, &mut self.edits)? {
            return Ok(after);
        }
        if let Some(after) = names::value(source, at, self.session, &mut self.edits) {
            self.name_item(at, after, &source.of(at).to_ascii_lowercase());
            return Ok(after);
        }
        Ok(at + 1)
    }

    /// `x ~ '^pattern'`, if GLOB can say it.
    fn regex(&mut self, at: usize) -> Result<(), Refusal> {
        let source = self.source;
        let negated = at > 0 && source.is(at - 1, b'!');
        let left = if negated { at.checked_sub(2) } else { at.checked_sub(1) };
        if left.and_then(|left| source.operand_start(left)).is_none() {
            // SQLite's own `~`, which has one operand.
            return Ok(());
        }
        let pattern = source.tokens.get(at + 1).and_then(|token| literal::string_value(*token, source.text));
        let globs = pattern.as_deref().and_then(catalog::glob_of_regex);
        let Some([glob]) = globs.as_deref() else {
            let refusal = Refusal::unsupported("this regular expression").at(source.start(at));
            return Err(refusal.hint("GLOB and LIKE match patterns."));
        };
        let first = if negated { at - 1 } else { at };
        let operator = if negated { " NOT GLOB " } else { " GLOB " };
        self.edits.replace(
            source.start(first),
            source.end(at + 1),
            format!("{operator}{}", literal::quote(glob)),
        );
        Ok(())
    }
}

fn is_comparison(source: &Source<'_>, at: usize) -> bool {
    matches!(source.kind(at), Some(Kind::Symbol(b'=' | b'<' | b'>')))
}

/// Words that end a SELECT list.
const LIST_ENDS: [&str; 15] = [
    "from",
    "where",
    "group",
    "having",
    "window",
    "order",
    "limit",
    "offset",
    "fetch",
    "union",
    "except",
    "intersect",
    "into",
    "values",
    "set",
];

/// Whether a statement is about the catalogue.
enum Catalog {
    Unasked,
    Query,
    /// It names the catalogue at that byte, but does not only ask.
    OtherStatement(usize),
}

/// Functions about the catalogue and the session whose names do not begin with `pg_`.
const CATALOG_FUNCTIONS: [&str; 12] = [
    "col_description",
    "current_schemas",
    "current_setting",
    "format_type",
    "has_column_privilege",
    "has_database_privilege",
    "has_schema_privilege",
    "has_table_privilege",
    "obj_description",
    "shobj_description",
    "to_regclass",
    "to_regtype",
];

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
        let called = next.is_some_and(|next| next.is(b'('));
        let schema =
            ["pg_catalog", "information_schema"].iter().any(|schema| word.eq_ignore_ascii_case(schema));
        if schema && next.is_some_and(|next| next.is(b'.')) {
            return if asks { Catalog::Query } else { Catalog::OtherStatement(token.start) };
        }
        let found = if prefix.eq_ignore_ascii_case("pg_") {
            called || catalog::is_relation(&word.to_ascii_lowercase())
        } else {
            (after_cast && prefix.eq_ignore_ascii_case("reg"))
                || (called && CATALOG_FUNCTIONS.iter().any(|function| word.eq_ignore_ascii_case(function)))
        };
        // A name that only looks like the catalogue's may be a table's in other statements.
        if found && asks {
            return Catalog::Query;
        }
    }
    Catalog::Unasked
}
