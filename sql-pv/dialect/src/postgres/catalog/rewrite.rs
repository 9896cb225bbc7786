//! The walk over a catalogue query that makes it SQLite's.
//!
//! Expressions are replaced from the inside out by SQL text over the common table expressions of
//! [`super::relations`]. What has no translation ends the walk with its name.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Function, Ident, Query, Select, SetExpr, Subscript, TableFactor, Value,
    VisitorMut,
};

use super::from::limit;
use super::infer::{Types, cast_type, column_of};
use super::operators::{escape, join_subquery, like, membership, regex, truth};
use super::prune;
use super::regs::{self, Reg};
use super::tree::{arguments, last_part, raw, string, string_value};
use super::{arrays, functions};
use crate::postgres::answer::Refusal;
use crate::postgres::literal::quote_name;
use crate::postgres::session::SessionView;
use crate::postgres::types::PgType;

/// The walk's state.
pub(super) struct Rewriter<'a> {
    pub session: &'a SessionView<'a>,
    pub types: Types,
    /// Catalogue relations that the query reads.
    pub used: BTreeSet<String>,
    /// OIDs that are of a `reg...` type, by their SQL.
    regs: HashMap<String, Reg>,
    /// Columns of functions in FROM that return rows, by `column` and `table.column`.
    pub substitutes: HashMap<String, String>,
}

type Flow = ControlFlow<Refusal>;

impl<'a> Rewriter<'a> {
    pub fn new(session: &'a SessionView<'a>, types: Types) -> Self {
        Self { session, types, used: BTreeSet::new(), regs: HashMap::new(), substitutes: HashMap::new() }
    }

    /// What an OID of a `reg...` type in the result is printed as.
    pub fn shown(&self, expr: &Expr) -> Option<Expr> {
        let sql = expr.to_string();
        self.regs.get(&sql).map(|reg| raw(regs::to_name(*reg, &sql)))
    }

    fn expression(&mut self, expr: &mut Expr) -> Result<(), Refusal> {
        let replaced = match expr {
            Expr::Value(value) => self.value(&value.value)?,
            Expr::Identifier(name) => {
                self.substitutes.get(&name.value.to_ascii_lowercase()).map(|sql| raw(sql.as_str()))
            }
            Expr::CompoundIdentifier(names) => self.column(names),
            Expr::Cast { expr: inner, data_type, .. } => Some(self.cast(inner, &data_type.to_string())?),
            Expr::Collate { expr: inner, collation } if last_part(collation) == "default" => {
                Some(inner.as_ref().clone())
            }
            Expr::Collate { collation, .. } => {
                return Err(Refusal::unsupported(format!("COLLATE {collation}")));
            }
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right)?,
            Expr::Like { negated, any: false, expr: subject, pattern, escape_char } => {
                Some(like(subject, pattern, escape(escape_char.as_deref())?, *negated, false)?)
            }
            Expr::ILike { negated, any: false, expr: subject, pattern, escape_char } => {
                Some(like(subject, pattern, escape(escape_char.as_deref())?, *negated, true)?)
            }
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                Some(raw(arrays::contains(&right.to_string(), &left.to_string())))
            }
            Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => {
                Some(raw(format!("(NOT {})", arrays::contains(&right.to_string(), &left.to_string()))))
            }
            Expr::Array(array) => {
                let values: Vec<String> = array.elem.iter().map(ToString::to_string).collect();
                let kind = array.elem.first().map_or(PgType::Text, |element| self.types.of(element));
                Some(raw(arrays::of_values(&values, kind)))
            }
            Expr::Function(function) => Some(self.function(function)?),
            Expr::Trim { trim_where, trim_what, expr: inner, .. } => {
                let name = match trim_where.map(|place| place.to_string()).as_deref() {
                    Some("LEADING") => "ltrim",
                    Some("TRAILING") => "rtrim",
                    _ => "trim",
                };
                let what = trim_what.as_ref().map(|what| format!(", {what}")).unwrap_or_default();
                Some(raw(format!("{name}({inner}{what})")))
            }
            Expr::Substring { expr: inner, substring_from: Some(from), substring_for, .. } => {
                let length = substring_for.as_ref().map(|length| format!(", {length}")).unwrap_or_default();
                Some(raw(format!("substr({inner}, {from}{length})")))
            }
            Expr::Position { expr: inner, r#in } => Some(raw(format!("instr({}, {inner})", r#in))),
            Expr::CompoundFieldAccess { root, access_chain } => Some(self.access(root, access_chain)?),
            Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Between { .. }
            | Expr::UnaryOp { .. }
            | Expr::Nested(_)
            | Expr::Case { .. }
            | Expr::Exists { .. }
            | Expr::Subquery(_)
            | Expr::Tuple(_) => None,
            other => {
                let text: String = other.to_string().chars().take(60).collect();
                return Err(Refusal::unsupported(format!("\"{text}\" in a query about the catalogue")));
            }
        };
        if let Some(replaced) = replaced {
            *expr = replaced;
        }
        Ok(())
    }

    fn value(&self, value: &Value) -> Result<Option<Expr>, Refusal> {
        Ok(match value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(string(text)),
            Value::DollarQuotedString(text) => Some(string(&text.value)),
            Value::Placeholder(text) => text
                .strip_prefix('$')
                .map(|number| Expr::Value(Value::Placeholder(format!("?{number}")).into())),
            Value::Number(..) | Value::Boolean(_) | Value::Null => None,
            other => return Err(Refusal::unsupported(format!("the literal {other}"))),
        })
    }

    /// A qualified column, without the schema of its table.
    fn column(&self, names: &mut Vec<Ident>) -> Option<Expr> {
        let first = names.first()?.value.to_ascii_lowercase();
        if names.len() > 2 && matches!(first.as_str(), "pg_catalog" | "information_schema" | "public") {
            names.remove(0);
        }
        let whole: Vec<String> = names.iter().map(|name| name.value.to_ascii_lowercase()).collect();
        self.substitutes.get(&whole.join(".")).map(|sql| raw(sql.as_str()))
    }

    fn cast(&mut self, inner: &Expr, to: &str) -> Result<Expr, Refusal> {
        let lower = to.to_ascii_lowercase();
        let name = lower.strip_prefix("pg_catalog.").unwrap_or(&lower);
        let sql = unnested(inner).to_string();
        let from = self.regs.get(&sql).copied();
        if let Some(reg) = Reg::by_name(name) {
            let oid = if from.is_some() { sql } else { regs::to_oid(reg, unnested(inner)) };
            self.used.extend(match reg {
                Reg::Class => Some("pg_class".to_owned()),
                Reg::Type => Some("pg_type".to_owned()),
                Reg::Namespace => Some("pg_namespace".to_owned()),
                Reg::Role => Some("pg_roles".to_owned()),
                Reg::Other => None,
            });
            self.regs.insert(oid.clone(), reg);
            return Ok(raw(oid));
        }
        let Some(known) = cast_type(to) else {
            return Err(Refusal::unsupported(format!("a cast to {to} in a query about the catalogue")));
        };
        Ok(match known {
            PgType::Text | PgType::Name | PgType::Varchar | PgType::Bpchar | PgType::Char => match from {
                Some(reg) => raw(regs::to_name(reg, &sql)),
                None if string_value(inner).is_some() => inner.clone(),
                None => raw(format!("CAST({sql} AS TEXT)")),
            },
            PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Oid => {
                raw(format!("CAST({sql} AS INTEGER)"))
            }
            PgType::Float4 | PgType::Float8 => raw(format!("CAST({sql} AS REAL)")),
            PgType::Numeric => raw(format!("CAST({sql} AS NUMERIC)")),
            PgType::Bool => match string_value(inner).as_deref().map(truth) {
                Some(Some(value)) => raw(value),
                Some(None) => {
                    return Err(Refusal::new("22P02", format!("invalid input for type boolean: {inner}")));
                }
                None => inner.clone(),
            },
            _ if known.category() == 'A' => inner.clone(),
            _ => return Err(Refusal::unsupported(format!("a cast to {to} in a query about the catalogue"))),
        })
    }

    fn binary(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Option<Expr>, Refusal> {
        let custom;
        let op = match op {
            BinaryOperator::PGCustomBinaryOperator(parts) => {
                custom = parts.last().map(String::as_str).unwrap_or_default();
                match custom {
                    "~" => &BinaryOperator::PGRegexMatch,
                    "~*" => &BinaryOperator::PGRegexIMatch,
                    "!~" => &BinaryOperator::PGRegexNotMatch,
                    "!~*" => &BinaryOperator::PGRegexNotIMatch,
                    "=" => &BinaryOperator::Eq,
                    "<>" => &BinaryOperator::NotEq,
                    _ => return Err(Refusal::unsupported(format!("OPERATOR({custom})"))),
                }
            }
            other => other,
        };
        let replaced = match op {
            BinaryOperator::PGRegexMatch => regex(left, right, false, false)?,
            BinaryOperator::PGRegexIMatch => regex(left, right, false, true)?,
            BinaryOperator::PGRegexNotMatch => regex(left, right, true, false)?,
            BinaryOperator::PGRegexNotIMatch => regex(left, right, true, true)?,
            BinaryOperator::PGLikeMatch => like(left, right, Some('\\'), false, false)?,
            BinaryOperator::PGNotLikeMatch => like(left, right, Some('\\'), true, false)?,
            BinaryOperator::PGILikeMatch => like(left, right, Some('\\'), false, true)?,
            BinaryOperator::PGNotILikeMatch => like(left, right, Some('\\'), true, true)?,
            // Two strings are one, so that patterns put together are known.
            BinaryOperator::StringConcat => match (string_value(left), string_value(right)) {
                (Some(left), Some(right)) => string(&(left + &right)),
                _ => return Ok(None),
            },
            BinaryOperator::Eq | BinaryOperator::NotEq => {
                let Some(truth) =
                    self.is_bool(left).then(|| string_value(right)).flatten().and_then(|text| truth(&text))
                else {
                    let spelled = if *op == BinaryOperator::Eq { "=" } else { "<>" };
                    return Ok(Some(raw(format!("{left} {spelled} {right}"))));
                };
                let spelled = if *op == BinaryOperator::Eq { "=" } else { "<>" };
                raw(format!("{left} {spelled} {truth}"))
            }
            BinaryOperator::And
            | BinaryOperator::Or
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
            | BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
            | BinaryOperator::BitwiseAnd
            | BinaryOperator::BitwiseOr
            | BinaryOperator::PGBitwiseShiftLeft
            | BinaryOperator::PGBitwiseShiftRight
            | BinaryOperator::Arrow
            | BinaryOperator::LongArrow => return Ok(None),
            other => {
                return Err(Refusal::unsupported(format!("operator {other} in a query about the catalogue")));
            }
        };
        Ok(Some(replaced))
    }

    fn is_bool(&self, expr: &Expr) -> bool {
        let name = match expr {
            Expr::Identifier(name) => Some(name),
            Expr::CompoundIdentifier(names) => names.last(),
            _ => None,
        };
        name.and_then(|name| self.types.of_name(&name.value)) == Some(PgType::Bool)
    }

    fn function(&mut self, function: &mut Function) -> Result<Expr, Refusal> {
        let name = last_part(&function.name);
        // What the expressions of these functions read.
        let reads: &[&str] = match name.as_str() {
            "pg_get_indexdef" => &["vamos_index_def", "vamos_index_key"],
            "pg_get_constraintdef" => &["vamos_constraint_def"],
            "pg_get_viewdef" | "pg_get_triggerdef" => &["vamos_definition", "pg_class"],
            "to_regclass" => &["pg_class"],
            "to_regtype" => &["pg_type"],
            "current_setting" => &["pg_settings"],
            _ => &[],
        };
        self.used.extend(reads.iter().map(|&name| name.to_owned()));
        let first =
            arguments(function).and_then(|arguments| arguments.first().map(|first| self.types.of(first)));
        let replaced = functions::call(function, first.unwrap_or(PgType::Text), self.session)?;
        let reg = match name.as_str() {
            "to_regclass" => Some(Reg::Class),
            "to_regtype" => Some(Reg::Type),
            _ => None,
        };
        if let Some(reg) = reg {
            self.regs.insert(replaced.to_string(), reg);
        }
        Ok(replaced)
    }

    fn access(&mut self, root: &Expr, chain: &[AccessExpr]) -> Result<Expr, Refusal> {
        let Some((AccessExpr::Subscript(Subscript::Index { index }), fields)) = chain.split_last() else {
            return Err(Refusal::unsupported("a slice or field of a value"));
        };
        if fields.iter().any(|field| !matches!(field, AccessExpr::Dot(Expr::Identifier(_)))) {
            return Err(Refusal::unsupported("an element of an element"));
        }
        let mut list = column_of(root, fields);
        let from = if matches!(self.types.of(&list), PgType::Int2Vector | PgType::OidVector) { 0 } else { 1 };
        if let Expr::CompoundIdentifier(names) = &mut list
            && let Some(replaced) = self.column(names)
        {
            list = replaced;
        }
        Ok(raw(arrays::item(&list.to_string(), &index.to_string(), from)))
    }
}

impl VisitorMut for Rewriter<'_> {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        if !query.locks.is_empty() {
            return ControlFlow::Break(Refusal::unsupported("FOR UPDATE in a query about the catalogue"));
        }
        if let Err(refusal) = limit(query) {
            return ControlFlow::Break(refusal);
        }
        // What a query of no rows is ordered by may not be among its columns.
        if prune::is_empty(query) && matches!(query.body.as_ref(), SetExpr::Select(_)) {
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        flow(self.select(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        flow(self.factor(factor))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        match expr {
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                if let Some(replaced) = membership(left, right, false) {
                    *expr = replaced;
                }
            }
            Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => {
                if let Some(replaced) = membership(left, right, true) {
                    *expr = replaced;
                }
            }
            Expr::Function(function) if last_part(&function.name) == "array_to_string" => {
                join_subquery(function);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        flow(self.expression(expr))
    }

    fn post_visit_ident(&mut self, ident: &mut Ident) -> Flow {
        // sqlparser's own printing of quoted names leaves some quotes as they are.
        if ident.quote_style.take().is_some() {
            ident.value = quote_name(&ident.value);
        }
        ControlFlow::Continue(())
    }
}

fn flow(result: Result<(), Refusal>) -> Flow {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(refusal) => ControlFlow::Break(refusal),
    }
}

/// The expression without parentheses around it.
fn unnested(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => unnested(inner),
        other => other,
    }
}
