//! The walk over a catalogue query that makes it SQLite's.
//!
//! Expressions are replaced from the inside out by SQL text over the common table expressions of
//! [`super::relations`]. What has no translation ends the walk with its name.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr, Subscript, TableAlias, TableFactor,
    TableWithJoins, Value, VisitorMut,
};

use super::infer::{Types, cast_type, column_of};
use super::prune;
use super::regs::{self, Reg};
use super::relations;
use super::tree::{arguments, folded, last_part, raw, relation_name, schema, string, string_value};
use super::{arrays, functions, pattern};
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
    substitutes: HashMap<String, String>,
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
            Expr::Identifier(name) => self.substitutes.get(&name.value.to_ascii_lowercase()).map(raw_copy),
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
                Some(raw(arrays::of_values(&values)))
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
        self.substitutes.get(&whole.join(".")).map(raw_copy)
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
        let replaced = functions::call(function, self.session)?;
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
        if let Expr::CompoundIdentifier(names) = &mut list {
            if let Some(replaced) = self.column(names) {
                list = replaced;
            }
        }
        Ok(raw(arrays::item(&list.to_string(), &index.to_string(), from)))
    }

    /// `SELECT unnest(a), generate_subscripts(a, 1)`: a row an element, of all such calls side by side.
    fn rows_of_arrays(&mut self, select: &mut Select) -> Result<(), Refusal> {
        let call = |item: &SelectItem| match item {
            SelectItem::UnnamedExpr(Expr::Function(function))
            | SelectItem::ExprWithAlias { expr: Expr::Function(function), .. } => {
                let name = last_part(&function.name);
                matches!(name.as_str(), "unnest" | "generate_subscripts").then(|| {
                    let list = arguments(function)?.first().map(|list| (*list).clone());
                    list.map(|list| (name, list))
                })?
            }
            _ => None,
        };
        let calls: Vec<Option<(String, Expr)>> = select.projection.iter().map(call).collect();
        let Some((_, first)) = calls.iter().flatten().next() else { return Ok(()) };
        let mut leading = first.clone();
        let vector = matches!(self.types.of(&leading), PgType::Int2Vector | PgType::OidVector);
        self.walk(&mut leading)?;
        for (item, call) in select.projection.iter_mut().zip(&calls) {
            let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
                continue;
            };
            let Some((name, list)) = call else { continue };
            let mut list = list.clone();
            self.walk(&mut list)?;
            *expr = raw(match name.as_str() {
                "generate_subscripts" if vector => "vamos_element.key".to_owned(),
                "generate_subscripts" => "(vamos_element.key + 1)".to_owned(),
                _ if list.to_string() == leading.to_string() => "vamos_element.value".to_owned(),
                _ => arrays::item(&list.to_string(), "vamos_element.key", 0),
            });
        }
        let source = format!("json_each({}) AS vamos_element", arrays::json(&leading.to_string()));
        let relation = table(raw_name(source), None);
        select.from.push(TableWithJoins { relation, joins: Vec::new() });
        Ok(())
    }

    fn walk(&mut self, expr: &mut Expr) -> Result<(), Refusal> {
        match sqlparser::ast::VisitMut::visit(expr, self) {
            ControlFlow::Break(refusal) => Err(refusal),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    fn factor(&mut self, factor: &mut TableFactor) -> Result<(), Refusal> {
        let replaced = match factor {
            TableFactor::Table { name, args: Some(arguments), alias, with_ordinality, .. } => {
                let list = arguments.args.as_slice();
                Some(self.row_function(&last_part(name), list, alias.as_ref(), *with_ordinality)?)
            }
            TableFactor::Function { name, args, alias, with_ordinality, .. } => {
                Some(self.row_function(&last_part(name), args, alias.as_ref(), *with_ordinality)?)
            }
            TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } => {
                let arguments = array_exprs.iter().cloned();
                let list: Vec<FunctionArg> =
                    arguments.map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
                Some(self.row_function("unnest", &list, alias.as_ref(), *with_ordinality)?)
            }
            TableFactor::Table { name, alias, .. } => {
                self.relation(name, alias)?;
                None
            }
            TableFactor::Derived { lateral: true, .. } => return Err(Refusal::unsupported("LATERAL")),
            TableFactor::Derived { alias, .. } => {
                if alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
                    return Err(Refusal::unsupported("a list of column aliases"));
                }
                None
            }
            TableFactor::NestedJoin { .. } => None,
            _ => return Err(Refusal::unsupported("this kind of FROM item")),
        };
        if let Some(replaced) = replaced {
            *factor = replaced;
        }
        Ok(())
    }

    /// A table's name: of the catalogue, or one of the user's.
    fn relation(&mut self, name: &mut ObjectName, alias: &mut Option<TableAlias>) -> Result<(), Refusal> {
        if let Some(full) = relation_name(name) {
            let last = last_part(name);
            let cte = relations::cte_name(&full);
            if cte != last && alias.is_none() {
                *alias = Some(alias_of(&last));
            }
            *name = ObjectName::from(vec![Ident::new(cte)]);
            self.used.insert(full);
            return Ok(());
        }
        match schema(name).as_deref() {
            Some("public") => {
                if let Some(part) = name.0.first_mut() {
                    *part = ObjectNamePart::Identifier(Ident::new("main"));
                }
                Ok(())
            }
            Some("pg_catalog" | "information_schema") => {
                Err(Refusal::unsupported(format!("the catalogue relation {name}")))
            }
            _ => Ok(()),
        }
    }

    /// A function in FROM: the elements of an array.
    fn row_function(
        &mut self,
        name: &str,
        list: &[FunctionArg],
        alias: Option<&TableAlias>,
        ordinality: bool,
    ) -> Result<TableFactor, Refusal> {
        let ("unnest", [FunctionArg::Unnamed(FunctionArgExpr::Expr(list))]) = (name, list) else {
            return Err(Refusal::unsupported(format!("function {name}() in FROM")));
        };
        let mut list = list.clone();
        self.walk(&mut list)?;
        let shown = alias.map_or_else(|| "unnest".to_owned(), |alias| folded(&alias.name));
        let columns: Vec<String> = alias
            .map(|alias| alias.columns.iter().map(|column| folded(&column.name)).collect())
            .unwrap_or_default();
        let value = columns.first().cloned().unwrap_or_else(|| shown.clone());
        let counter = columns.get(1).cloned().or_else(|| ordinality.then(|| "ordinality".to_owned()));
        let quoted = quote_name(&shown);
        let mut put = |column: &str, sql: String| {
            self.substitutes.insert(format!("{shown}.{column}"), sql.clone());
            self.substitutes.insert(column.to_owned(), sql);
        };
        put(&value, format!("{quoted}.value"));
        if let Some(counter) = counter {
            put(&counter, format!("({quoted}.key + 1)"));
        }
        let source = format!("json_each({})", arrays::json(&list.to_string()));
        Ok(table(raw_name(source), Some(alias_of(&shown))))
    }

    fn select(&mut self, select: &mut Select) -> Result<(), Refusal> {
        if matches!(select.distinct, Some(sqlparser::ast::Distinct::On(_))) {
            return Err(Refusal::unsupported("DISTINCT ON"));
        }
        if select.into.is_some() || !select.lateral_views.is_empty() {
            return Err(Refusal::unsupported("SELECT INTO"));
        }
        if prune::select_is_empty(select) {
            let mut types = Types::default();
            let body = SetExpr::Select(Box::new(select.clone()));
            let columns = types.body_columns(&body)?;
            prune::clear(select, &columns);
            return Ok(());
        }
        // Functions in FROM define names that the SELECT list uses.
        for from in &mut select.from {
            self.factor_functions(&mut from.relation)?;
            for join in &mut from.joins {
                self.factor_functions(&mut join.relation)?;
            }
        }
        for item in &mut select.projection {
            let named = match item {
                SelectItem::UnnamedExpr(expr)
                    if !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) =>
                {
                    let name = self.types.name(expr);
                    (name != "?column?").then(|| (expr.clone(), Ident::with_quote('"', name)))
                }
                SelectItem::ExprWithAlias { expr, alias } if alias.quote_style.is_none() => {
                    Some((expr.clone(), Ident::with_quote('"', folded(alias))))
                }
                _ => None,
            };
            if let Some((expr, alias)) = named {
                *item = SelectItem::ExprWithAlias { expr, alias };
            }
        }
        self.rows_of_arrays(select)
    }

    fn factor_functions(&mut self, factor: &mut TableFactor) -> Result<(), Refusal> {
        match factor {
            TableFactor::Table { args: Some(_), .. }
            | TableFactor::Function { .. }
            | TableFactor::UNNEST { .. } => self.factor(factor),
            _ => Ok(()),
        }
    }
}

impl VisitorMut for Rewriter<'_> {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        if !query.locks.is_empty() {
            return ControlFlow::Break(Refusal::unsupported("FOR UPDATE in a query about the catalogue"));
        }
        if let Some(fetch) = query.fetch.take() {
            match (fetch.with_ties || fetch.percent, query.limit_clause.is_some()) {
                (false, false) => query.limit_clause = Some(limit(fetch.quantity)),
                _ => return ControlFlow::Break(Refusal::unsupported("this form of FETCH")),
            }
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

fn raw_copy(sql: &String) -> Expr {
    raw(sql.as_str())
}

fn raw_name(sql: String) -> ObjectName {
    ObjectName::from(vec![Ident::new(sql)])
}

fn alias_of(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: Ident::new(quote_name(name)), columns: Vec::new(), at: None }
}

fn table(name: ObjectName, alias: Option<TableAlias>) -> TableFactor {
    TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

fn limit(quantity: Option<Expr>) -> sqlparser::ast::LimitClause {
    let one = || Expr::Value(Value::Number("1".to_owned(), false).into());
    sqlparser::ast::LimitClause::LimitOffset {
        limit: Some(quantity.unwrap_or_else(one)),
        offset: None,
        limit_by: Vec::new(),
    }
}

/// The expression without parentheses around it.
fn unnested(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => unnested(inner),
        other => other,
    }
}

/// `left = ANY (ARRAY[...])` and `left = ANY (SELECT ...)` are IN; so is a list that is written as text.
fn membership(left: &Expr, right: &Expr, negated: bool) -> Option<Expr> {
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
fn join_subquery(function: &mut Function) {
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

fn truth(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "t" | "true" | "on" | "yes" | "1" => Some("TRUE"),
        "f" | "false" | "off" | "no" | "0" => Some("FALSE"),
        _ => None,
    }
}

fn escape(given: Option<&Expr>) -> Result<Option<char>, Refusal> {
    let Some(given) = given else { return Ok(Some('\\')) };
    match string_value(given) {
        Some(text) => Ok(text.chars().next()),
        None => Err(Refusal::unsupported("this form of ESCAPE")),
    }
}

fn like(
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

fn regex(subject: &Expr, pattern: &Expr, negated: bool, fold: bool) -> Result<Expr, Refusal> {
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
