//! What a statement is, by its first words and by the spellings that occur in it.

use super::answer::{Discard, Refusal, Translated};
use super::cursor::Cursor;
use super::session::SessionView;
use super::{copy, rewrite, set, transaction};
use crate::lexer::{Kind, Lexer, Token};
use crate::limits::STATEMENT_BYTES_MAX;

/// Says what a statement is and what to do about it. `statement` is one statement, as [`super::split`] cuts
/// them.
pub fn translate(statement: &str, session: &SessionView<'_>) -> Translated {
    read(statement, session).unwrap_or_else(Translated::Refused)
}

fn read(text: &str, session: &SessionView<'_>) -> Result<Translated, Refusal> {
    if text.len() > STATEMENT_BYTES_MAX {
        let message =
            format!("a statement of {} bytes is over the limit of {STATEMENT_BYTES_MAX}", text.len());
        return Err(Refusal::new("54000", message));
    }
    let (tokens, comments) = lex(text)?;
    let Some(first) = tokens.first().filter(|token| token.kind == Kind::Word) else {
        return rewrite::statement(text, &tokens, &comments, session);
    };
    // Longer words are no statement's first; a name of any length costs nothing here.
    let first = first.of(text);
    let first = if first.len() <= 12 { first.to_ascii_lowercase() } else { String::new() };
    let mut cursor = Cursor::new(text, &tokens[1..]);
    match first.as_str() {
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
            transaction::parse(&first, &mut cursor)
        }
        "set" => set::set(text, &mut cursor),
        "reset" => set::reset(&mut cursor),
        "show" => set::show(&mut cursor, session),
        "copy" => copy::parse(text, &mut cursor),
        "deallocate" => {
            cursor.word("prepare");
            all_or_name(&mut cursor).map(Translated::Deallocate)
        }
        "close" => all_or_name(&mut cursor).map(Translated::ClosePortal),
        "discard" => discard(&mut cursor),
        // Nothing listens, so there is nothing to stop.
        "unlisten" => Ok(Translated::Done("UNLISTEN")),
        "select" => match set::set_config(text, cursor) {
            Some(set) => Ok(set),
            None => rewrite::statement(text, &tokens, &comments, session),
        },
        _ => match refusal(&first, &mut cursor) {
            Some(refusal) => Err(refusal),
            None => rewrite::statement(text, &tokens, &comments, session),
        },
    }
}

/// The tokens that count, and the comments SQLite would end too early.
fn lex(text: &str) -> Result<(Vec<Token>, Vec<Token>), Refusal> {
    let (mut tokens, mut comments) = (Vec::new(), Vec::new());
    for token in Lexer::new(text) {
        let token = token.map_err(|error| Refusal::syntax(error.to_string()).at(error.position()))?;
        match token.kind {
            Kind::Comment { nested: true } => comments.push(token),
            Kind::Comment { nested: false } | Kind::Space => {}
            _ => tokens.push(token),
        }
    }
    Ok((tokens, comments))
}

fn all_or_name(cursor: &mut Cursor<'_>) -> Result<Option<String>, Refusal> {
    let name = match cursor.word("all") {
        true => None,
        false => Some(cursor.name().ok_or_else(|| cursor.syntax_error())?),
    };
    cursor.expect_end()?;
    Ok(name)
}

fn discard(cursor: &mut Cursor<'_>) -> Result<Translated, Refusal> {
    let what = match cursor.one_of(&["all", "plans", "sequences", "temp", "temporary"]) {
        Some("all") => Discard::All,
        Some("plans") => Discard::Plans,
        Some("sequences") => Discard::Sequences,
        Some(_) => {
            return Err(Refusal::unsupported("DISCARD TEMP").hint("Drop the temporary tables by name."));
        }
        None => return Err(cursor.syntax_error()),
    };
    cursor.expect_end()?;
    Ok(Translated::Discard(what))
}

/// Statements of PostgreSQL that have no counterpart.
fn refusal(first: &str, cursor: &mut Cursor<'_>) -> Option<Refusal> {
    let objects: &[&str] = match first {
        "create" => &["table", "index", "view", "trigger", "virtual", "unique"],
        "drop" => &["table", "index", "view", "trigger"],
        "alter" => &["table"],
        "explain" if cursor.is("analyze") || cursor.is("verbose") => {
            let hint = "EXPLAIN QUERY PLAN shows SQLite's plan.";
            return Some(Refusal::unsupported("EXPLAIN ANALYZE").hint(hint));
        }
        _ => return statement_refusal(first),
    };
    if first == "create" {
        cursor.words(&["or", "replace"]);
        cursor.one_of(&["temp", "temporary", "local", "global", "recursive", "constraint"]);
        cursor.one_of(&["temp", "temporary"]);
    }
    let object = cursor.peek().filter(|token| token.kind == Kind::Word)?;
    if objects.iter().any(|known| cursor.is(known)) {
        return None;
    }
    let object = cursor.text_of(object).to_ascii_uppercase();
    let known = ["EXTENSION", "SCHEMA", "SEQUENCE", "FUNCTION", "PROCEDURE", "TYPE", "DOMAIN", "DATABASE"];
    let more =
        ["ROLE", "USER", "GROUP", "MATERIALIZED", "AGGREGATE", "OPERATOR", "CAST", "COLLATION", "POLICY"];
    let rest =
        ["RULE", "SERVER", "FOREIGN", "PUBLICATION", "SUBSCRIPTION", "TABLESPACE", "UNLOGGED", "EVENT"];
    let named = [&known[..], &more, &rest].concat().contains(&object.as_str());
    // An unknown word is the engine's to complain about.
    named.then(|| Refusal::unsupported(format!("{} {object}", first.to_ascii_uppercase())))
}

fn statement_refusal(first: &str) -> Option<Refusal> {
    let (what, hint) = match first {
        "truncate" => ("TRUNCATE", "DELETE FROM without WHERE removes all rows."),
        "prepare" => ("PREPARE", "Prepare statements through the protocol; every driver can."),
        "execute" => ("EXECUTE", "Prepare statements through the protocol; every driver can."),
        "declare" => ("DECLARE CURSOR", "Fetch a query's rows in parts through the protocol."),
        "fetch" => ("FETCH", "Fetch a query's rows in parts through the protocol."),
        "move" => ("MOVE", ""),
        "listen" => ("LISTEN", ""),
        "notify" => ("NOTIFY", ""),
        "lock" => ("LOCK", "BEGIN IMMEDIATE takes the write lock at once."),
        "grant" => ("GRANT", "A guest's identity is the device it speaks through; it has no roles."),
        "revoke" => ("REVOKE", "A guest's identity is the device it speaks through; it has no roles."),
        "reassign" => ("REASSIGN OWNED", ""),
        "comment" => ("COMMENT ON", ""),
        "security" => ("SECURITY LABEL", ""),
        "do" => ("DO", "There is no procedural language."),
        "call" => ("CALL", "There are no procedures."),
        "merge" => ("MERGE", "INSERT ... ON CONFLICT DO UPDATE is available."),
        "refresh" => ("REFRESH MATERIALIZED VIEW", ""),
        "cluster" => ("CLUSTER", ""),
        "checkpoint" => ("CHECKPOINT", "Checkpoints are the host's."),
        "load" => ("LOAD", ""),
        "import" => ("IMPORT FOREIGN SCHEMA", ""),
        "table" => ("TABLE", "SELECT * FROM the table says the same."),
        _ => return None,
    };
    Some(Refusal::unsupported(what).hint(hint))
}
