//! Small questions about sqlparser's tree, and how parts of it are replaced by SQL text.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Value,
};

use super::relations::relation;
use crate::postgres::literal;

/// The last part of a name, as PostgreSQL folds it.
pub(super) fn last_part(name: &ObjectName) -> String {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.map(folded).unwrap_or_default()
}

/// A name as PostgreSQL folds it.
pub(super) fn folded(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_ascii_lowercase(),
    }
}

/// The schema part of a name, if it has one.
pub(super) fn schema(name: &ObjectName) -> Option<String> {
    let before_last = name.0.len().checked_sub(2)?;
    name.0[before_last].as_ident().map(folded)
}

/// The catalogue relation that a name means: with its schema, or without where that is in the search path.
pub(super) fn relation_name(name: &ObjectName) -> Option<String> {
    let last = last_part(name);
    let full = match schema(name).as_deref() {
        None | Some("pg_catalog") => last,
        Some("information_schema") => format!("information_schema.{last}"),
        Some(_) => return None,
    };
    relation(&full).map(|_| full)
}

/// The arguments of an ordinary call; None if it is anything else.
pub(super) fn arguments(function: &Function) -> Option<Vec<&Expr>> {
    let list = match &function.args {
        FunctionArguments::None => return Some(Vec::new()),
        FunctionArguments::List(list) => &list.args,
        FunctionArguments::Subquery(_) => return None,
    };
    let plain = list.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    plain.collect()
}

/// An expression that is this SQL and is not looked into again.
pub(super) fn raw(sql: impl Into<String>) -> Expr {
    Expr::Identifier(Ident::new(sql))
}

/// A string, in SQLite's spelling.
pub(super) fn string(value: &str) -> Expr {
    Expr::Value(Value::Placeholder(literal::quote(value)).into())
}

/// The value of what [`string`] made.
pub(super) fn string_value(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(text) => {
                let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
                Some(inner.replace("''", "'"))
            }
            _ => None,
        },
        Expr::Nested(inner) => string_value(inner),
        _ => None,
    }
}
