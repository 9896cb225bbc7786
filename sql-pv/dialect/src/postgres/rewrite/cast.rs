//! `x::type`.
//!
//! It is written as SQLite's `CAST(x AS type)`, and converts as that does. Types of which SQLite's CAST would make
//! something else (dates, booleans, JSON) get an expression of their own, or are refused.

use super::edits::Edits;
use super::source::Source;
use crate::lexer::Kind;
use crate::postgres::answer::Refusal;
use crate::postgres::literal;
use crate::postgres::types::PgType;

/// A cast that was read.
pub(super) struct Cast {
    /// The index of the operand's first token.
    pub operand: usize,
    /// The index after the type's last token.
    pub end: usize,
    /// The type's name in the catalogue.
    pub name: &'static str,
    /// The name of the column or function that is cast.
    pub label: Option<String>,
}

/// A type as it is written after `::`.
struct Written {
    known: Option<PgType>,
    name: String,
    modifiers: Vec<String>,
    is_array: bool,
    end: usize,
}

/// Words that may follow the first of a type's name.
const MORE_WORDS: &[&[&str]] =
    &[&["precision"], &["varying"], &["with", "time", "zone"], &["without", "time", "zone"]];

fn written(source: &Source<'_>, first: usize) -> Option<Written> {
    let mut at = first;
    let name = match source.kind(at)? {
        Kind::Word => source.of(at).to_ascii_lowercase(),
        Kind::QuotedName => source.of(at).to_owned(),
        _ => return None,
    };
    let mut words = vec![name];
    at += 1;
    let mut modifiers = Vec::new();
    loop {
        if source.is(at, b'(') && modifiers.is_empty() {
            let close = source.partner(at)?;
            let inner = (at + 1..close).filter(|item| source.kind(*item) == Some(Kind::Number));
            modifiers = inner.map(|item| source.of(item).to_owned()).collect();
            at = close + 1;
            continue;
        }
        let more = MORE_WORDS.iter().find(|words| {
            let fits = match words[0] {
                "precision" => source.is_word(first, "double"),
                "varying" => source.is_one_of(first, &["character", "char", "bit"]),
                _ => source.is_one_of(first, &["timestamp", "time"]),
            };
            fits && words.iter().enumerate().all(|(offset, word)| source.is_word(at + offset, word))
        });
        match more {
            Some(more) => {
                words.extend(more.iter().map(|word| (*word).to_owned()));
                at += more.len();
            }
            None => break,
        }
    }
    let mut is_array = false;
    while source.is(at, b'[') {
        is_array = true;
        at += if source.is(at + 1, b']') { 2 } else { 3 };
    }
    let name = words.join(" ");
    let known = match name.as_str() {
        "\"char\"" => None,
        quoted if quoted.starts_with('"') => PgType::by_name(quoted.trim_matches('"')),
        plain => PgType::by_name(plain),
    };
    Some(Written { known, name, modifiers, is_array, end: at })
}

/// Rewrites the cast whose `::` is at `at`; `earlier` is the cast before, which may be its operand.
pub(super) fn rewrite(
    source: &Source<'_>,
    at: usize,
    earlier: Option<&Cast>,
    edits: &mut Edits,
) -> Result<Cast, Refusal> {
    let here = source.start(at);
    let syntax = || Refusal::syntax("syntax error at or near \"::\"").at(here);
    let target = written(source, at + 1).ok_or_else(syntax)?;
    let chained = earlier.filter(|earlier| earlier.end == at).map(|earlier| earlier.operand);
    let operand = match chained.or_else(|| source.operand_start(at.checked_sub(1)?)) {
        Some(operand) => operand,
        None => return Err(syntax()),
    };
    let refuse = || {
        let brackets = if target.is_array { "[]" } else { "" };
        let modifiers = match target.modifiers.as_slice() {
            [] => String::new(),
            some => format!("({})", some.join(", ")),
        };
        Refusal::unsupported(format!("a cast to {}{modifiers}{brackets}", target.name)).at(here)
    };
    let Some(known) = target.known.filter(|_| !target.is_array) else { return Err(refuse()) };
    let text_end = source.end(target.end - 1);
    let lone = (operand + 1 == at).then(|| source.tokens[operand]);
    let parameter = lone.filter(|token| token.kind == Kind::Parameter);
    let string = lone.and_then(|token| literal::string_value(token, source.text));
    if let Some(number) = parameter.and_then(|token| token.of(source.text)[1..].parse().ok()) {
        edits.parameters.push((number, known));
    }
    let whole = |edits: &mut Edits, with: String| edits.replace(source.start(operand), text_end, with);
    let mut around = |before: &str, after: &str| {
        edits.before(source.start(operand), before);
        edits.replace(here, text_end, after);
    };
    match known {
        PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Oid => around("CAST(", " AS INTEGER)"),
        PgType::Float4 | PgType::Float8 => around("CAST(", " AS REAL)"),
        PgType::Numeric if target.modifiers.is_empty() || parameter.is_some() => {
            around("CAST(", " AS NUMERIC)")
        }
        PgType::Numeric => return Err(refuse().hint("round(x, n) rounds to n digits.")),
        PgType::Text | PgType::Name | PgType::Varchar if target.modifiers.is_empty() => match &string {
            // A string is text already.
            Some(text) => whole(edits, literal::quote(text)),
            None => around("CAST(", " AS TEXT)"),
        },
        PgType::Varchar => around("substr(", &format!(", 1, {})", target.modifiers.join(", "))),
        PgType::Bool => match &string {
            Some(text) => {
                let value = truth(text).ok_or_else(|| invalid("boolean", text, here))?;
                whole(edits, value.to_owned());
            }
            None => around("(lower(CAST(", " AS TEXT)) NOT IN ('f', 'false', 'n', 'no', 'off', '0'))"),
        },
        PgType::Json | PgType::Jsonb => around("json(", ")"),
        PgType::Uuid => around("lower(", ")"),
        PgType::Bytea => match &string {
            Some(text) => {
                let digits = text.strip_prefix("\\x").filter(|hex| is_hex(hex));
                let digits =
                    digits.ok_or_else(|| refuse().hint("Write a blob as X'...' or '\\x...'::bytea."))?;
                whole(edits, format!("X'{digits}'"));
            }
            None => around("CAST(", " AS BLOB)"),
        },
        PgType::Date | PgType::Time | PgType::Timestamp | PgType::Timestamptz => {
            // Drivers send times in the form they are kept in; a cast only tells their type.
            let is_now = source.is_one_of(operand, &["now", "current_timestamp"]);
            match (&string, known) {
                (Some(text), _) => {
                    let value = moment(known, text).ok_or_else(|| invalid(known.sql_name(), text, here))?;
                    whole(edits, literal::quote(&value));
                }
                _ if parameter.is_some() => edits.replace(here, text_end, ""),
                (None, PgType::Date) => around("date(", ")"),
                (None, PgType::Time) => around("time(", ")"),
                _ if is_now => edits.replace(here, text_end, ""),
                _ => {
                    return Err(
                        refuse().hint("Times are kept as text; datetime(x) and strftime(..) convert them.")
                    );
                }
            }
        }
        _ => return Err(refuse()),
    }
    Ok(Cast { operand, end: target.end, name: known.catalog_name(), label: None })
}

fn invalid(kind: &str, text: &str, position: usize) -> Refusal {
    let state = if kind == "boolean" { "22P02" } else { "22007" };
    Refusal::new(state, format!("invalid input syntax for type {kind}: \"{text}\"")).at(position)
}

fn truth(text: &str) -> Option<&'static str> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => Some("TRUE"),
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => Some("FALSE"),
        _ => None,
    }
}

fn is_hex(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A date or time in the ISO form PostgreSQL prints; None if the text is in another or is none.
pub(super) fn moment(kind: PgType, text: &str) -> Option<String> {
    let text = text.trim();
    let date = |text: &str| {
        let digits = text.len() == 10
            && text.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        digits.then(|| text.to_owned()).filter(|text| {
            let field = |range: std::ops::Range<usize>| text[range].parse::<u32>().unwrap_or(0);
            let (year, month, day) = (field(0..4), field(5..7), field(8..10));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let days = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                1..=12 => 31,
                _ => 0,
            };
            year > 0 && (1..=days).contains(&day)
        })
    };
    let time = |text: &str| {
        let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let fields: Vec<Option<u32>> = clock.split(':').map(|field| field.parse().ok()).collect();
        let widths = clock.split(':').all(|field| field.len() == 2);
        let fits = match fields.as_slice() {
            [Some(hour), Some(minute)] => *hour < 24 && *minute < 60 && !text.contains('.'),
            [Some(hour), Some(minute), Some(second)] => *hour < 24 && *minute < 60 && *second < 60,
            _ => false,
        };
        let digits =
            fraction.len() <= 6 && !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
        let seconds = if fields.len() == 2 { ":00" } else { "" };
        (widths && fits && digits).then(|| format!("{text}{seconds}"))
    };
    match kind {
        PgType::Date => date(text),
        PgType::Time => time(text),
        // A time with an offset would have to be converted.
        _ => match text.split_once([' ', 'T']) {
            None => date(text).map(|date| format!("{date} 00:00:00")),
            Some((day, clock)) => Some(format!("{} {}", date(day)?, time(clock)?)),
        },
    }
}
