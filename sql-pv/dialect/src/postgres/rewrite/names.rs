//! Names that mean something in PostgreSQL: functions about the session, the schema `public`, typed literals.

use super::cast::moment;
use super::edits::Edits;
use super::source::Source;
use crate::lexer::Kind;
use crate::postgres::answer::Refusal;
use crate::postgres::known_settings::VERSION;
use crate::postgres::literal;
use crate::postgres::session::SessionView;
use crate::postgres::types::PgType;

/// Functions that are the same under another name.
const RENAMED: &[(&str, &str)] = &[
    ("btrim", "trim"),
    ("char_length", "length"),
    ("character_length", "length"),
    ("json_agg", "json_group_array"),
    ("json_build_array", "json_array"),
    ("json_build_object", "json_object"),
    ("strpos", "instr"),
];

/// Rewrites a function or keyword about the session, or one with another name, at `at`. Returns the index after
/// what was replaced as a whole.
pub(super) fn value(
    source: &Source<'_>,
    at: usize,
    session: &SessionView<'_>,
    edits: &mut Edits,
) -> Option<usize> {
    let called = source.is(at + 1, b'(');
    let empty = called && source.is(at + 2, b')');
    let is = |word: &str| source.is_word(at, word);
    if called && let Some((_, name)) = RENAMED.iter().find(|(known, _)| is(known)) {
        edits.replace(source.start(at), source.end(at), *name);
        return None;
    }
    // Before a dot or after AS it is a name.
    let named =
        source.is(at + 1, b'.') || (at > 0 && source.is_one_of(at - 1, &["as", "table", "into", "join"]));
    let word = !called && !named;
    let value = if empty && is("now") {
        "CURRENT_TIMESTAMP".to_owned()
    } else if empty && is("version") {
        literal::quote(VERSION)
    } else if empty && is("pg_backend_pid") {
        session.backend_pid.to_string()
    } else if (empty && is("current_database")) || (word && is("current_catalog")) {
        literal::quote(session.database)
    } else if (empty || word) && is("current_schema") {
        "'public'".to_owned()
    } else if word && (is("current_user") || is("session_user") || is("current_role")) {
        literal::quote(session.user)
    } else {
        return None;
    };
    let after = if called { at + 3 } else { at + 1 };
    edits.replace(source.start(at), source.end(after - 1), value);
    Some(after)
}

/// The schema `public`, at `at`, is SQLite's `main`, which some clauses do not take.
pub(super) fn public(source: &Source<'_>, at: usize, edits: &mut Edits) {
    let defines_index = source.is_word(0, "create") && at > 0 && source.is_word(at - 1, "on");
    if defines_index || (at > 0 && source.is_word(at - 1, "references")) {
        edits.replace(source.start(at), source.start(at + 2), "");
    } else {
        edits.replace(source.start(at), source.end(at), "main");
    }
}

/// `DATE '2026-01-01'`: a literal with its type before it, at `at`. Returns the index after it.
pub(super) fn literal(source: &Source<'_>, at: usize, edits: &mut Edits) -> Result<Option<usize>, Refusal> {
    let kinds = [
        ("date", PgType::Date),
        ("time", PgType::Time),
        ("timestamp", PgType::Timestamp),
        ("timestamptz", PgType::Timestamptz),
    ];
    let Some((_, kind)) = kinds.into_iter().find(|(word, _)| source.is_word(at, word)) else {
        return Ok(None);
    };
    // Elsewhere SQLite would read a column and its alias, or a column's definition.
    let starts = at == 0
        || matches!(source.kind(at - 1), Some(Kind::Symbol(_)))
        || source.operand_start(at - 1).is_none();
    if source.kind(at + 1) != Some(Kind::Text) || !starts {
        return Ok(None);
    }
    let text = literal::string_value(source.tokens[at + 1], source.text).unwrap_or_default();
    let value = moment(kind, &text).ok_or_else(|| {
        let message = format!("invalid input syntax for type {}: \"{text}\"", kind.sql_name());
        Refusal::new("22007", message).at(source.start(at))
    })?;
    edits.replace(source.start(at), source.end(at + 1), literal::quote(&value));
    Ok(Some(at + 2))
}
