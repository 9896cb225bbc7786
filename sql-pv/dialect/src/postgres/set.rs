//! `SET`, `SHOW`, `RESET`, and `set_config` where it is a whole statement.

use super::answer::{Answer, Refusal, Translated};
use super::cursor::Cursor;
use super::session::SessionView;
use super::settings::{Action, Scope, SettingChange};
use super::transaction;
use super::types::PgType;
use crate::lexer::Kind;

/// Reads what follows `SET`.
pub(super) fn set(text: &str, cursor: &mut Cursor<'_>) -> Result<Translated, Refusal> {
    if cursor.words(&["session", "characteristics", "as", "transaction"]) {
        let what = "SET SESSION CHARACTERISTICS AS TRANSACTION";
        return transaction::set_transaction(what, cursor);
    }
    let scope = match cursor.one_of(&["session", "local"]) {
        Some("local") => Scope::Local,
        _ => Scope::Session,
    };
    if cursor.word("transaction") {
        return transaction::set_transaction("SET TRANSACTION", cursor);
    }
    if cursor.word("constraints") {
        let hint = "PRAGMA defer_foreign_keys postpones the checks of foreign keys.";
        return Err(Refusal::unsupported("SET CONSTRAINTS").hint(hint));
    }
    let name = if cursor.words(&["time", "zone"]) {
        "timezone".to_owned()
    } else if cursor.word("names") {
        "client_encoding".to_owned()
    } else if cursor.word("schema") {
        "search_path".to_owned()
    } else if cursor.is("role") || cursor.is("authorization") {
        return role(scope, cursor);
    } else {
        let name = setting_name(cursor)?;
        if !(cursor.symbol(b'=') || cursor.word("to")) {
            return Err(cursor.syntax_error());
        }
        name
    };
    let action = match value(text, &name, cursor)? {
        Some(value) => Action::Set { name, value },
        None => Action::Reset { name },
    };
    Ok(Translated::Set { change: SettingChange { scope, action }, answer: None })
}

/// `SET ROLE NONE` and `SET SESSION AUTHORIZATION DEFAULT` are how things are; there are no other roles.
fn role(scope: Scope, cursor: &mut Cursor<'_>) -> Result<Translated, Refusal> {
    let what = if cursor.word("role") { "SET ROLE" } else { "SET SESSION AUTHORIZATION" };
    cursor.one_of(&["authorization", "to"]);
    cursor.symbol(b'=');
    if cursor.one_of(&["none", "default"]).is_none() || !cursor.at_end() {
        let hint = "A guest's identity is the device it speaks through; it has no roles.";
        return Err(Refusal::unsupported(what).hint(hint));
    }
    Ok(Translated::Set { change: SettingChange { scope, action: Action::Nothing }, answer: None })
}

/// A setting's name, perhaps with dots.
fn setting_name(cursor: &mut Cursor<'_>) -> Result<String, Refusal> {
    let mut name = cursor.name().ok_or_else(|| cursor.syntax_error())?;
    while cursor.symbol(b'.') {
        name.push('.');
        name.push_str(&cursor.name().ok_or_else(|| cursor.syntax_error())?);
    }
    Ok(name)
}

/// The value up to the end of the statement; None for `DEFAULT`.
fn value(text: &str, name: &str, cursor: &mut Cursor<'_>) -> Result<Option<String>, Refusal> {
    if cursor.word("default") || (name == "timezone" && cursor.word("local")) {
        cursor.expect_end()?;
        return Ok(None);
    }
    let mut parts = Vec::new();
    loop {
        let negative = cursor.symbol(b'-');
        let sign = if negative || cursor.symbol(b'+') { "-" } else { "" };
        let part = match cursor.peek() {
            Some(token) if token.kind == Kind::Number => {
                cursor.next();
                format!("{}{}", if negative { sign } else { "" }, token.of(text))
            }
            _ if !sign.is_empty() => return Err(cursor.syntax_error()),
            Some(token) if token.kind == Kind::Word => {
                cursor.next();
                token.of(text).to_owned()
            }
            // A name that needs its quotes keeps them, as in `SHOW search_path`.
            Some(token) if token.kind == Kind::QuotedName => {
                cursor.next();
                if name == "search_path" {
                    token.of(text).to_owned()
                } else {
                    super::literal::unquote_name(token.of(text))
                }
            }
            _ => cursor.string().ok_or_else(|| cursor.syntax_error())?,
        };
        parts.push(part);
        if !cursor.symbol(b',') {
            break;
        }
    }
    cursor.expect_end()?;
    Ok(Some(parts.join(", ")))
}

/// Reads what follows `RESET`.
pub(super) fn reset(cursor: &mut Cursor<'_>) -> Result<Translated, Refusal> {
    let action = if cursor.word("all") {
        Action::ResetAll
    } else if cursor.words(&["time", "zone"]) {
        Action::Reset { name: "timezone".to_owned() }
    } else if cursor.word("role") || cursor.words(&["session", "authorization"]) {
        // There is one role, and it is in force.
        Action::Reset { name: "session_authorization".to_owned() }
    } else {
        Action::Reset { name: setting_name(cursor)? }
    };
    cursor.expect_end()?;
    Ok(Translated::Set { change: SettingChange { scope: Scope::Session, action }, answer: None })
}

/// Reads what follows `SHOW`.
pub(super) fn show(cursor: &mut Cursor<'_>, session: &SessionView<'_>) -> Result<Translated, Refusal> {
    if cursor.word("all") {
        cursor.expect_end()?;
        let columns = ["name", "setting", "description"].map(|column| (column.to_owned(), PgType::Text));
        let all = session.settings.all().into_iter();
        let rows = all.map(|(name, value, about)| vec![Some(name), Some(value), Some(about.to_owned())]);
        return Ok(Translated::Answer(Answer { columns: columns.into(), rows: rows.collect(), tag: "SHOW" }));
    }
    let name = if cursor.words(&["time", "zone"]) {
        "TimeZone".to_owned()
    } else if cursor.words(&["transaction", "isolation", "level"]) {
        "transaction_isolation".to_owned()
    } else if cursor.words(&["session", "authorization"]) {
        "session_authorization".to_owned()
    } else {
        setting_name(cursor)?
    };
    cursor.expect_end()?;
    match session.settings.value(&name) {
        Some(value) => Ok(Translated::Answer(Answer::single(shown_name(&name), value, "SHOW"))),
        None => Err(Refusal::new("42704", format!("unrecognized configuration parameter \"{name}\""))),
    }
}

/// The setting's name as PostgreSQL spells it.
fn shown_name(name: &str) -> &str {
    super::known_settings::known(name).map_or(name, |known| known.name)
}

/// Reads `[pg_catalog.]set_config('name', 'value', true|false)` as all that a `SELECT` has; None if
/// the statement is something else.
pub(super) fn set_config(text: &str, mut cursor: Cursor<'_>) -> Option<Translated> {
    cursor.words(&["pg_catalog"]).then(|| cursor.symbol(b'.'));
    if !cursor.word("set_config") || !cursor.symbol(b'(') {
        return None;
    }
    let name = cursor.string()?;
    cursor.symbol(b',').then_some(())?;
    let value = cursor.string()?;
    cursor.symbol(b',').then_some(())?;
    let local = match cursor.next()?.of(text).to_ascii_lowercase().as_str() {
        "true" => true,
        "false" => false,
        _ => return None,
    };
    (cursor.symbol(b')') && cursor.at_end()).then_some(())?;
    let answer = Answer::single("set_config", &value, "SELECT");
    let scope = if local { Scope::Local } else { Scope::Session };
    let change = SettingChange { scope, action: Action::Set { name, value } };
    Some(Translated::Set { change, answer: Some(answer) })
}
