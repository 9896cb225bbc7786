//! Operators that SQLite spells another way or does not have.

use sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value};

use super::pattern;
use super::tree::{last_part, raw, string, string_value};
use crate::postgres::answer::Refusal;

/// `left = ANY (ARRAY[...])` and `left = ANY (SELECT ...)` are IN; so is a list that is written as text.
pub(super) fn membership(left: &Expr, right: &Expr, negated: bool) -> Option<Expr> {
    let expr = || Box::new(left.clone());
    match right {
        Expr::Array(array) => Some(Expr::InList { expr: expr(), list: array.elem.clone(), negated }),
        Expr::Subquery(query) => Some(Expr::InSubquery { expr: expr(), subquery: query.clone(), negated }),
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => membership(left, inner, negated),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) if !text.contains(['"', '\\']) => {
                let items = text.strip_prefix('{')?.strip_suffix('}')?;
                let items = items.split(',').filter(|item| !item.is_empty());
                let list =
                    items.map(|item| Expr::Value(Value::SingleQuotedString(item.trim().to_owned()).into()));
                Some(Expr::InList { expr: expr(), list: list.collect(), negated })
            }
            _ => None,
        },
        _ => None,
    }
}

/// Hands `array_to_string(ARRAY(SELECT ...), ...)` the subquery itself, whose values need no quotes then.
pub(super) fn join_subquery(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = list.args.first_mut() {
        let query = match first {
            Expr::Function(inner) if last_part(&inner.name) == "array" => match &inner.args {
                FunctionArguments::Subquery(query) => Some(query.clone()),
                _ => None,
            },
            _ => None,
        };
        if let Some(query) = query {
            *first = Expr::Subquery(query);
        }
    }
}

pub(super) fn truth(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "t" | "true" | "on" | "yes" | "1" => Some("TRUE"),
        "f" | "false" | "off" | "no" | "0" => Some("FALSE"),
        _ => None,
    }
}

pub(super) fn escape(given: Option<&Expr>) -> Result<Option<char>, Refusal> {
    let Some(given) = given else { return Ok(Some('\\')) };
    match string_value(given) {
        Some(text) => Ok(text.chars().next()),
        None => Err(Refusal::unsupported("this form of ESCAPE")),
    }
}

pub(super) fn like(
    subject: &Expr,
    pattern: &Expr,
    escape: Option<char>,
    negated: bool,
    fold: bool,
) -> Result<Expr, Refusal> {
    let not = if negated { "NOT " } else { "" };
    match string_value(pattern) {
        Some(text) => {
            let glob = pattern::from_like(&text, escape);
            let glob =
                glob.ok_or_else(|| Refusal::new("22025", "LIKE pattern must not end with escape character"))?;
            Ok(globbed(subject, &[glob], negated, fold))
        }
        // Only known when it runs: LIKE, which folds the case of ASCII letters as ILIKE does.
        None => {
            let escape =
                escape.map(|escape| format!(" ESCAPE {}", string(&escape.to_string()))).unwrap_or_default();
            Ok(raw(format!("({subject} {not}LIKE {pattern}{escape})")))
        }
    }
}

pub(super) fn regex(subject: &Expr, pattern: &Expr, negated: bool, fold: bool) -> Result<Expr, Refusal> {
    let text = string_value(pattern);
    match text.as_deref().and_then(pattern::from_regex) {
        Some(globs) => Ok(globbed(subject, &globs, negated, fold)),
        None => Err(Refusal::unsupported(format!("the regular expression {pattern}"))),
    }
}

fn globbed(subject: &Expr, globs: &[String], negated: bool, fold: bool) -> Expr {
    let not = if negated { "NOT " } else { "" };
    let subject = if fold { format!("lower({subject})") } else { subject.to_string() };
    let tests: Vec<String> = globs
        .iter()
        .map(|glob| {
            let glob = if fold { glob.to_ascii_lowercase() } else { glob.clone() };
            format!("{subject} GLOB {}", string(&glob))
        })
        .collect();
    raw(format!("({not}({}))", tests.join(" OR ")))
}
