//! Clauses that PostgreSQL spells another way, and those SQLite does not have.

use super::edits::Edits;
use super::source::Source;
use crate::lexer::Kind;
use crate::postgres::answer::Refusal;

/// Rewrites `OFFSET x` without a LIMIT before it, at `at`: SQLite has the LIMIT first, and always. Returns the
/// index after what was read.
pub(super) fn offset(
    source: &Source<'_>,
    at: usize,
    limited: bool,
    edits: &mut Edits,
) -> Result<usize, Refusal> {
    let Some(mut end) = source.operand_end(at + 1) else { return Ok(at + 1) };
    if source.is_one_of(end, &["row", "rows"]) {
        edits.replace(source.end(end - 1), source.end(end), "");
        end += 1;
    }
    if limited {
        return Ok(end);
    }
    if source.is_word(end, "limit") {
        let value = end + 1;
        let Some(after) = source.operand_end(value) else { return Ok(end) };
        let moved = if source.is_word(value, "all") { "-1" } else { source.span(value, after) };
        edits.before(source.start(at), format!("LIMIT {} ", numbered(moved)));
        edits.replace(source.end(end - 1), source.end(after - 1), "");
        return Ok(after);
    }
    if source.is_word(end, "fetch") {
        let (count, after) = fetch_count(source, end)?;
        edits.before(source.start(at), format!("LIMIT {} ", numbered(&count)));
        edits.replace(source.end(end - 1), source.end(after - 1), "");
        return Ok(after);
    }
    edits.before(source.start(at), "LIMIT -1 ");
    Ok(end)
}

/// Rewrites `FETCH FIRST n ROWS ONLY`, at `at`, as a LIMIT.
pub(super) fn fetch(source: &Source<'_>, at: usize, edits: &mut Edits) -> Result<usize, Refusal> {
    let (count, after) = fetch_count(source, at)?;
    edits.replace(source.start(at), source.end(after - 1), format!("LIMIT {}", numbered(&count)));
    Ok(after)
}

/// Text that moves is not walked over again: its parameters are numbered here.
fn numbered(text: &str) -> String {
    text.replace('$', "?")
}

fn fetch_count(source: &Source<'_>, at: usize) -> Result<(String, usize), Refusal> {
    let refused = || Refusal::unsupported("this form of FETCH").at(source.start(at));
    let mut end = at + 2;
    let mut count = "1".to_owned();
    if !source.is_one_of(end, &["row", "rows"]) {
        let after = source.operand_end(end).ok_or_else(refused)?;
        count = source.span(end, after).to_owned();
        end = after;
    }
    if !source.is_one_of(end, &["row", "rows"]) || !source.is_word(end + 1, "only") {
        return Err(refused());
    }
    Ok((count, end + 2))
}

/// Rewrites `ILIKE`, at `at`: SQLite's LIKE folds the case of letters, but knows no escape unless told.
pub(super) fn ilike(source: &Source<'_>, at: usize, edits: &mut Edits) {
    edits.replace(source.start(at), source.end(at), "LIKE");
    let mut end = at + 1;
    while let Some(after) = source.operand_end(end) {
        end = after;
        if !(source.is(end, b'|') && source.is(end + 1, b'|')) {
            break;
        }
        end += 2;
    }
    let simple = !matches!(source.kind(end), Some(Kind::Cast));
    if end > at + 1 && simple && !source.is_word(end, "escape") {
        edits.replace(source.end(end - 1), source.end(end - 1), " ESCAPE '\\'");
    }
}

/// Rewrites `= ANY (SELECT ...)` and `= ANY (ARRAY[...])`, whose `ANY` is at `at`, as IN.
pub(super) fn any(source: &Source<'_>, at: usize, edits: &mut Edits) -> Result<(), Refusal> {
    let refused = || {
        let refusal = Refusal::unsupported(format!("{} of an array", source.of(at).to_ascii_uppercase()));
        refusal.hint("IN (...) takes a list or a subquery.").at(source.start(at))
    };
    let equals = at > 0
        && source.is(at - 1, b'=')
        && !(at > 1 && matches!(source.kind(at - 2), Some(Kind::Symbol(b'<' | b'>' | b'!'))));
    let close = source.partner(at + 1).filter(|_| equals).ok_or_else(refused)?;
    if source.is_one_of(at + 2, &["select", "values", "with"]) {
        edits.replace(source.start(at - 1), source.end(at), "IN");
        return Ok(());
    }
    if source.is_word(at + 2, "array") && source.is(at + 3, b'[') && source.is(close - 1, b']') {
        edits.replace(source.start(at - 1), source.end(at + 3), "IN (");
        edits.replace(source.start(close - 1), source.end(close - 1), "");
        return Ok(());
    }
    Err(refused())
}

/// What SQLite would misread or complain about without a name.
pub(super) fn refusal(source: &Source<'_>, at: usize) -> Option<Refusal> {
    let next = |word: &str| source.is_word(at + 1, word);
    let text_follows = matches!(source.kind(at + 1), Some(Kind::Text | Kind::EscapeText));
    let (what, hint) = if source.is_word(at, "interval") && text_follows {
        ("INTERVAL", "SQLite's date functions take modifiers: datetime(x, '+1 day').")
    } else if source.is_word(at, "array") && source.is(at + 1, b'[') {
        ("ARRAY", "Use rows, or JSON with json_each().")
    } else if source.is_word(at, "extract") && source.is(at + 1, b'(') {
        ("EXTRACT", "strftime('%Y', x) and its other formats take times apart.")
    } else if source.is_word(at, "at") && next("time") && source.is_word(at + 2, "zone") {
        ("AT TIME ZONE", "Times are kept in UTC.")
    } else if source.is_word(at, "distinct") && next("on") && source.is(at + 2, b'(') {
        ("DISTINCT ON", "row_number() OVER (PARTITION BY ...) chooses a row of each.")
    } else if source.is_word(at, "lateral") && (source.is(at + 1, b'(') || source.is(at + 2, b'(')) {
        ("LATERAL", "")
    } else if source.is_word(at, "for") && source.is_one_of(at + 1, &["update", "share", "no", "key"]) {
        ("FOR UPDATE", "BEGIN IMMEDIATE takes the write lock for the whole transaction.")
    } else if source.is_word(at, "on") && next("constraint") {
        ("ON CONFLICT ON CONSTRAINT", "Name the columns: ON CONFLICT (a, b).")
    } else if source.is_word(at, "similar") && next("to") {
        ("SIMILAR TO", "GLOB and LIKE match patterns.")
    } else {
        return None;
    };
    // `FOR EACH ROW` and the like are SQLite's own; these follow an expression or a clause.
    let refusal = Refusal::unsupported(what).at(source.start(at));
    Some(if hint.is_empty() { refusal } else { refusal.hint(hint) })
}
