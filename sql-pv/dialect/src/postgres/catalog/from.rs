//! SELECT and FROM of a catalogue query: its tables, and its functions that return rows.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, LimitClause, ObjectName, ObjectNamePart, OffsetRows, Query,
    Select, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins, Value,
};

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::infer::Types;
use super::rewrite::Rewriter;
use super::tree::{arguments, folded, last_part, raw, relation_name, schema};
use super::{arrays, prune, relations};
use crate::postgres::answer::Refusal;
use crate::postgres::literal::quote_name;
use crate::postgres::types::PgType;

impl Rewriter<'_> {
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

    pub(super) fn factor(&mut self, factor: &mut TableFactor) -> Result<(), Refusal> {
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
            TableFactor::Derived { subquery, alias: Some(alias), .. } if !alias.columns.is_empty() => {
                if !name_values(subquery, alias) {
                    return Err(Refusal::unsupported("a list of column aliases"));
                }
                None
            }
            TableFactor::Derived { .. } => None,
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

    pub(super) fn select(&mut self, select: &mut Select) -> Result<(), Refusal> {
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

/// `(VALUES ...) AS t (a, b)`, which psql's `\gdesc` says: SQLite calls such columns `column1` and so on, and
/// has no list of names. False if it is not `VALUES` that is named.
fn name_values(values: &mut Box<Query>, alias: &mut TableAlias) -> bool {
    if !matches!(*values.body, SetExpr::Values(_)) {
        return false;
    }
    let names = std::mem::take(&mut alias.columns);
    let named = names.iter().enumerate();
    let named = named.map(|(at, name)| format!("column{} AS {}", at + 1, quote_name(&folded(&name.name))));
    let sql = format!("SELECT {} FROM (SELECT 1) AS vamos_values", named.collect::<Vec<_>>().join(", "));
    let parsed =
        Parser::new(&PostgreSqlDialect {}).try_with_sql(&sql).and_then(|mut parser| parser.parse_query());
    let Ok(mut outer) = parsed else { return false };
    let SetExpr::Select(select) = &mut *outer.body else { return false };
    let Some(TableWithJoins { relation: TableFactor::Derived { subquery, .. }, .. }) =
        select.from.first_mut()
    else {
        return false;
    };
    std::mem::swap(subquery, values);
    *values = outer;
    true
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

/// `OFFSET n ROWS FETCH FIRST m ROWS ONLY` as SQLite has it: a LIMIT, then perhaps an OFFSET.
pub(super) fn limit(query: &mut Query) -> Result<(), Refusal> {
    let number = |text: &str| Expr::Value(Value::Number(text.to_owned(), false).into());
    let fetched = match query.fetch.take() {
        Some(fetch) if fetch.with_ties || fetch.percent => {
            return Err(Refusal::unsupported("this form of FETCH"));
        }
        Some(fetch) => Some(fetch.quantity.unwrap_or_else(|| number("1"))),
        None => None,
    };
    match &mut query.limit_clause {
        None => {
            let clause =
                |limit| LimitClause::LimitOffset { limit: Some(limit), offset: None, limit_by: Vec::new() };
            query.limit_clause = fetched.map(clause);
        }
        Some(LimitClause::LimitOffset { limit, offset, .. }) => {
            if let Some(offset) = offset {
                offset.rows = OffsetRows::None;
            }
            if fetched.is_some() {
                *limit = fetched;
            }
            limit.get_or_insert_with(|| number("-1"));
        }
        Some(LimitClause::OffsetCommaLimit { .. }) => {}
    }
    Ok(())
}
