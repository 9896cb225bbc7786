//! Queries about `pg_catalog` and `information_schema`, run over SQLite's own schema.
//!
//! The query is parsed, its tables become common table expressions ([`relations`]) and its expressions SQLite's
//! ([`rewrite`]); the engine then executes an ordinary SELECT, so joins, filters and orders are the client's
//! own. Parts that cannot have rows are cut first ([`prune`]), because much of what clients ask is about things
//! that do not exist here.

mod arrays;
mod from;
mod functions;
mod infer;
mod macros;
mod operators;
mod pattern;
mod prune;
mod regs;
mod relations;
mod rewrite;
mod tree;

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Query, SelectItem, SetExpr, Statement, Value, VisitMut, visit_expressions};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::answer::{CatalogQuery, Refusal, Translated};
use super::session::SessionView;
use super::types::PgType;
use crate::lexer::{Kind, Token};
use crate::limits::{CATALOG_DEPTH_MAX, CATALOG_OPERATORS_MAX, CATALOG_STATEMENT_BYTES_MAX};
use infer::Types;
use rewrite::Rewriter;

/// Whether a relation of the catalogue has that name without a schema.
pub(super) fn is_relation(name: &str) -> bool {
    relations::relation(name).is_some()
}

/// The GLOB patterns that are a regular expression's alternatives, if GLOB can say it.
pub(super) fn glob_of_regex(regex: &str) -> Option<Vec<String>> {
    pattern::from_regex(regex)
}

/// Translates a query about the catalogue.
pub(super) fn query(text: &str, tokens: &[Token], session: &SessionView<'_>) -> Result<Translated, Refusal> {
    check_size(text, tokens)?;
    let mut query = parse(text)?;
    let parameters = highest_parameter(&query);
    let mut types = Types::default();
    let columns = types.query(&query)?;
    let mut rewriter = Rewriter::new(session, types);
    if let ControlFlow::Break(refusal) = query.visit(&mut rewriter) {
        return Err(refusal);
    }
    show_names(&mut query.body, &rewriter);
    let mut ctes = relations::ctes(&rewriter.used, session);
    if parameters > 0 {
        // Parameters that were in parts cut away are still bound.
        ctes.push(format!("vamos_parameter AS (SELECT ?{parameters})"));
    }
    let mut recursive = false;
    if let Some(with) = query.with.take() {
        recursive = with.recursive;
        ctes.extend(with.cte_tables.iter().map(ToString::to_string));
    }
    let with = match (ctes.is_empty(), recursive) {
        (true, _) => String::new(),
        (false, true) => format!("WITH RECURSIVE {} ", ctes.join(", ")),
        (false, false) => format!("WITH {} ", ctes.join(", ")),
    };
    let columns = columns.into_iter().map(|(name, kind)| match kind {
        // They are sent as the names they stand for.
        PgType::Regclass | PgType::Regtype => (name, PgType::Text),
        _ => (name, kind),
    });
    Ok(Translated::Catalog(CatalogQuery { sql: format!("{with}{query}"), columns: columns.collect() }))
}

/// Bounds what the parser and the walks over its tree may have to do.
fn check_size(text: &str, tokens: &[Token]) -> Result<(), Refusal> {
    let too_complex =
        |what: String| Err(Refusal::new("54001", format!("a query about the catalogue has {what}")));
    if text.len() > CATALOG_STATEMENT_BYTES_MAX {
        return too_complex(format!("at most {CATALOG_STATEMENT_BYTES_MAX} bytes"));
    }
    const NESTING: [&str; 14] = [
        "and",
        "or",
        "not",
        "is",
        "in",
        "like",
        "ilike",
        "between",
        "collate",
        "at",
        "union",
        "except",
        "intersect",
        "operator",
    ];
    let operators = tokens.iter().filter(|token| match token.kind {
        Kind::Cast => true,
        Kind::Symbol(symbol) => b"+-*/%^|&<>=!~#@[".contains(&symbol),
        Kind::Word => NESTING.iter().any(|word| token.is_word(text, word)),
        _ => false,
    });
    if operators.count() > CATALOG_OPERATORS_MAX {
        return too_complex(format!("at most {CATALOG_OPERATORS_MAX} operators"));
    }
    Ok(())
}

fn parse(text: &str) -> Result<Query, Refusal> {
    let dialect = PostgreSqlDialect {};
    let parsed = Parser::new(&dialect)
        .with_recursion_limit(CATALOG_DEPTH_MAX)
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_statements());
    let mut statements = match parsed {
        Ok(statements) => statements,
        Err(sqlparser::parser::ParserError::RecursionLimitExceeded) => {
            return Err(Refusal::new("54001", "a query about the catalogue is nested too deeply"));
        }
        Err(error) => {
            return Err(Refusal::syntax(format!("cannot read this query about the catalogue: {error}")));
        }
    };
    match (statements.pop(), statements.is_empty()) {
        (Some(Statement::Query(query)), true) => Ok(*query),
        _ => Err(Refusal::unsupported("the catalogue in a statement other than SELECT")),
    }
}

fn highest_parameter(query: &Query) -> u32 {
    let mut highest = 0;
    let _ = visit_expressions(query, |expr| {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &value.value
        {
            let number = name.strip_prefix('$').and_then(|number| number.parse().ok());
            highest = highest.max(number.unwrap_or(0));
        }
        ControlFlow::<()>::Continue(())
    });
    highest
}

/// In the result, OIDs of `reg...` types are shown as names.
fn show_names(body: &mut SetExpr, rewriter: &Rewriter<'_>) {
    match body {
        SetExpr::Select(select) => {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                    && let Some(shown) = rewriter.shown(expr)
                {
                    *expr = shown;
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            show_names(left, rewriter);
            show_names(right, rewriter);
        }
        SetExpr::Query(query) => show_names(&mut query.body, rewriter),
        _ => {}
    }
}
