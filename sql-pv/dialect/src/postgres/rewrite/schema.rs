//! PostgreSQL's spellings in statements that define things.

use super::edits::Edits;
use super::source::Source;
use crate::lexer::Kind;
use crate::postgres::answer::Refusal;

/// Rewrites what is PostgreSQL's in CREATE, ALTER and DROP.
pub(super) fn rewrite(source: &Source<'_>, edits: &mut Edits) -> Result<(), Refusal> {
    if source.is_word(0, "drop") {
        let cascade = (1..source.tokens.len()).next_back().filter(|last| source.is_word(*last, "cascade"));
        return match cascade {
            Some(at) => {
                let refusal = Refusal::unsupported("DROP ... CASCADE").at(source.start(at));
                Err(refusal.hint("Drop what depends on it by name."))
            }
            None => Ok(()),
        };
    }
    if source.is_word(0, "create") && source.is_word(1, "or") && source.is_word(2, "replace") {
        let what = format!("CREATE OR REPLACE {}", source.of(3).to_ascii_uppercase());
        return Err(Refusal::unsupported(what).hint("Drop it first.").at(source.start(1)));
    }
    if (0..4).any(|at| source.is_word(at, "trigger")) {
        let execute = |at: &usize| {
            source.is_word(*at, "execute") && source.is_one_of(*at + 1, &["function", "procedure"])
        };
        return match (0..source.tokens.len()).find(execute) {
            Some(at) => {
                let refusal =
                    Refusal::unsupported("CREATE TRIGGER ... EXECUTE FUNCTION").at(source.start(at));
                Err(refusal.hint("SQLite's triggers have their statements between BEGIN and END."))
            }
            None => Ok(()),
        };
    }
    if (0..3).any(|at| source.is_word(at, "index")) {
        return index(source, edits);
    }
    for at in 0..source.tokens.len() {
        if is_serial(source, at) {
            serial(source, at, edits)?;
        }
        zoned(source, at, edits);
        if source.is_word(at, "as") && source.is_word(at + 1, "identity") {
            identity(source, at, edits)?;
        }
    }
    Ok(())
}

/// `timestamp(3) with time zone`: SQLite takes what is in parentheses at the end of a type only.
fn zoned(source: &Source<'_>, at: usize, edits: &mut Edits) {
    if !source.is_one_of(at, &["timestamp", "time"]) || !source.is(at + 1, b'(') {
        return;
    }
    let Some(close) = source.partner(at + 1) else { return };
    let zone = close + 3;
    if source.is_one_of(close + 1, &["with", "without"])
        && source.is_word(close + 2, "time")
        && source.is_word(zone, "zone")
    {
        let modifiers = source.span(at + 1, close + 1);
        edits.replace(source.start(at + 1), source.end(close), "");
        edits.replace(source.end(zone), source.end(zone), modifiers);
    }
}

/// `CREATE INDEX CONCURRENTLY`, and the access method, which is what every index of SQLite's is.
fn index(source: &Source<'_>, edits: &mut Edits) -> Result<(), Refusal> {
    for at in 0..source.tokens.len() {
        if source.is_word(at, "concurrently")
            && source.is_word(at - 1, "index")
            && !source.is_word(at + 1, "on")
        {
            edits.replace(source.start(at), source.start(at + 1), "");
        }
        if source.is_word(at, "using") && source.is(at + 2, b'(') {
            if !source.is_word(at + 1, "btree") {
                let what = format!("an index USING {}", source.of(at + 1));
                return Err(Refusal::unsupported(what).at(source.start(at)));
            }
            edits.replace(source.start(at), source.start(at + 2), "");
            return Ok(());
        }
    }
    Ok(())
}

/// Whether a column's type is `serial`: the word follows a name that begins a column.
fn is_serial(source: &Source<'_>, at: usize) -> bool {
    let kinds = ["serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"];
    at >= 2
        && source.is_one_of(at, &kinds)
        && matches!(source.kind(at - 1), Some(Kind::Word | Kind::QuotedName))
        && (source.is(at - 2, b'(')
            || source.is(at - 2, b',')
            || source.is_one_of(at - 2, &["column", "add"]))
}

/// The end of the column definition in which `at` is.
fn column_end(source: &Source<'_>, at: usize) -> usize {
    let mut end = at;
    while end < source.tokens.len() && !source.is(end, b',') && !source.is(end, b')') {
        end = if source.is(end, b'(') { source.partner(end).unwrap_or(end) + 1 } else { end + 1 };
    }
    end
}

/// A column that counts up is SQLite's `INTEGER PRIMARY KEY AUTOINCREMENT`, and nothing else is.
fn serial(source: &Source<'_>, at: usize, edits: &mut Edits) -> Result<(), Refusal> {
    edits.replace(source.start(at), source.end(at), "INTEGER");
    key(source, at, at + 1, source.of(at), edits)
}

/// Puts AUTOINCREMENT to the primary key that the column is.
fn key(source: &Source<'_>, at: usize, from: usize, what: &str, edits: &mut Edits) -> Result<(), Refusal> {
    let end = column_end(source, from);
    if let Some(primary) =
        (from..end).find(|key| source.is_word(*key, "primary") && source.is_word(*key + 1, "key"))
    {
        let after = source.end(primary + 1);
        edits.replace(after, after, " AUTOINCREMENT");
        return Ok(());
    }
    // `PRIMARY KEY (id)` among the table's constraints.
    let name = source.of(column_name(source, at));
    for primary in end..source.tokens.len() {
        let alone = source.is_word(primary, "primary")
            && source.is_word(primary + 1, "key")
            && source.is(primary + 2, b'(')
            && source.is(primary + 4, b')')
            && source.of(primary + 3).eq_ignore_ascii_case(name);
        if alone {
            let after = source.end(primary + 3);
            edits.replace(after, after, " AUTOINCREMENT");
            return Ok(());
        }
    }
    let refusal =
        Refusal::unsupported(format!("a {} column that is not the primary key", what.to_ascii_uppercase()));
    Err(refusal.hint("SQLite counts up an INTEGER PRIMARY KEY only.").at(source.start(at)))
}

/// The index of the name of the column in whose definition `at` is.
fn column_name(source: &Source<'_>, at: usize) -> usize {
    let mut first = at;
    while first > 0 && !source.is(first - 1, b',') && !source.is(first - 1, b'(') {
        first -= 1;
    }
    first
}

/// `id bigint GENERATED BY DEFAULT AS IDENTITY`.
fn identity(source: &Source<'_>, at: usize, edits: &mut Edits) -> Result<(), Refusal> {
    let start = at.checked_sub(3).filter(|start| {
        source.is_word(*start, "generated")
            && source.is_word(start + 1, "by")
            && source.is_word(start + 2, "default")
    });
    let Some(start) = start else {
        let refusal = Refusal::unsupported("GENERATED ALWAYS AS IDENTITY").at(source.start(at));
        return Err(refusal.hint("GENERATED BY DEFAULT AS IDENTITY is available for the primary key."));
    };
    if source.is(at + 2, b'(') {
        return Err(Refusal::unsupported("options of an IDENTITY column").at(source.start(at + 2)));
    }
    let kind = column_name(source, at) + 1;
    if !source.is_one_of(kind, &["integer", "int", "int4", "bigint", "int8", "smallint", "int2"]) {
        return Err(Refusal::unsupported("an IDENTITY column of that type").at(source.start(kind)));
    }
    edits.replace(source.start(kind), source.end(kind), "INTEGER");
    edits.replace(source.start(start), source.end(at + 1), "");
    key(source, kind, kind + 1, "IDENTITY", edits)
}
