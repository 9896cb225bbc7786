//! Names and types of a catalogue query's columns, as PostgreSQL would report them.
//!
//! Types follow names: catalogue columns hardly share a name, and where two do they agree in type, so no scopes
//! are needed. What is not known is text, which is how it is sent anyway.

use std::collections::HashMap;

use sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, FunctionArguments, ObjectName, Query, Select, SelectItem, SetExpr,
    TableFactor, UnaryOperator, Value,
};

use super::functions;
use super::relations::relation;
use super::tree::{folded, last_part, relation_name};
use crate::postgres::answer::Refusal;
use crate::postgres::types::PgType;

/// What is known of the names in a query.
#[derive(Default)]
pub(super) struct Types {
    names: HashMap<String, PgType>,
}

/// A result's columns.
pub(super) type Columns = Vec<(String, PgType)>;

impl Types {
    /// The type of a column of that name.
    pub fn of_name(&self, name: &str) -> Option<PgType> {
        self.names.get(name).copied()
    }

    /// The columns of a query; what it names is remembered.
    pub fn query(&mut self, query: &Query) -> Result<Columns, Refusal> {
        let mut derived = HashMap::new();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let columns = self.query(&cte.query)?;
            derived.insert(cte.alias.name.value.clone(), columns);
        }
        self.body(&query.body, &derived)
    }

    /// The columns of a part of a query.
    pub fn body_columns(&mut self, body: &SetExpr) -> Result<Columns, Refusal> {
        self.body(body, &HashMap::new())
    }

    fn body(&mut self, body: &SetExpr, derived: &HashMap<String, Columns>) -> Result<Columns, Refusal> {
        match body {
            SetExpr::Select(select) => self.select(select, derived),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, right, .. } => {
                let columns = self.body(left, derived)?;
                self.body(right, derived)?;
                Ok(columns)
            }
            SetExpr::Values(values) => {
                let first = values.rows.first().map(|row| row.content.as_slice()).unwrap_or_default();
                let columns = first.iter().zip(1..);
                Ok(columns.map(|(value, number)| (format!("column{number}"), self.of(value))).collect())
            }
            _ => Err(Refusal::unsupported("a statement within a query about the catalogue")),
        }
    }

    fn select(&mut self, select: &Select, derived: &HashMap<String, Columns>) -> Result<Columns, Refusal> {
        // Tables by the name they have in this SELECT.
        let mut tables: Vec<(String, Columns)> = Vec::new();
        let factors = select.from.iter().flat_map(|from| {
            std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
        });
        for factor in factors {
            self.factor(factor, derived, &mut tables)?;
        }
        let mut columns = Columns::new();
        for item in &select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) => columns.push((self.name(expr), self.of(expr))),
                SelectItem::ExprWithAlias { expr, alias } => {
                    columns.push((alias.value.clone(), self.of(expr)))
                }
                SelectItem::Wildcard(_) => {
                    columns.extend(tables.iter().flat_map(|(_, columns)| columns.iter().cloned()));
                }
                SelectItem::QualifiedWildcard(kind, _) => {
                    let wanted = kind.to_string();
                    let wanted = wanted
                        .trim_end_matches(".*")
                        .rsplit('.')
                        .next()
                        .unwrap_or_default()
                        .trim_matches('"');
                    let table = tables.iter().find(|(name, _)| name == wanted);
                    columns.extend(table.map(|(_, columns)| columns.clone()).unwrap_or_default());
                }
                SelectItem::ExprWithAliases { .. } => {
                    return Err(Refusal::unsupported("a list of aliases"));
                }
            }
        }
        for (name, kind) in &columns {
            self.names.entry(name.clone()).or_insert(*kind);
        }
        Ok(columns)
    }

    fn factor(
        &mut self,
        factor: &TableFactor,
        derived: &HashMap<String, Columns>,
        tables: &mut Vec<(String, Columns)>,
    ) -> Result<(), Refusal> {
        match factor {
            TableFactor::Table { name, alias, .. } => {
                let shown = alias.as_ref().map_or_else(|| last_part(name), |alias| alias.name.value.clone());
                let columns = self.table(name, derived);
                tables.push((shown, columns));
            }
            TableFactor::Derived { subquery, alias, .. } => {
                let mut columns = self.query(subquery)?;
                let alias = alias.as_ref();
                for (column, renamed) in columns.iter_mut().zip(alias.iter().flat_map(|alias| &alias.columns))
                {
                    column.0.clone_from(&renamed.name.value);
                    self.names.entry(column.0.clone()).or_insert(column.1);
                }
                tables.push((alias.map(|alias| alias.name.value.clone()).unwrap_or_default(), columns));
            }
            TableFactor::NestedJoin { table_with_joins, .. } => {
                self.factor(&table_with_joins.relation, derived, tables)?;
                for join in &table_with_joins.joins {
                    self.factor(&join.relation, derived, tables)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn table(&mut self, name: &ObjectName, derived: &HashMap<String, Columns>) -> Columns {
        if let Some(columns) = derived.get(&last_part(name)) {
            return columns.clone();
        }
        let Some(relation) = relation_name(name).and_then(|name| relation(&name)) else {
            return Columns::new();
        };
        let columns: Columns = relation.columns.iter().map(|&(name, kind)| (name.to_owned(), kind)).collect();
        for (name, kind) in &columns {
            self.names.insert(name.clone(), *kind);
        }
        columns
    }

    /// The name PostgreSQL gives a column without alias.
    pub fn name(&self, expr: &Expr) -> String {
        self.figure(expr).0
    }

    /// Such a name, and whether it is one: types and `case` yield to what is around them.
    fn figure(&self, expr: &Expr) -> (String, bool) {
        let none = || ("?column?".to_owned(), false);
        let firm = |name: &str| (name.to_owned(), true);
        match expr {
            Expr::Identifier(name) => firm(&folded(name)),
            Expr::CompoundIdentifier(names) => names.last().map_or_else(none, |name| firm(&folded(name))),
            Expr::CompoundFieldAccess { root, access_chain } => {
                let field = access_chain.iter().rev().find_map(|access| match access {
                    AccessExpr::Dot(Expr::Identifier(name)) => Some(firm(&folded(name))),
                    _ => None,
                });
                field.unwrap_or_else(|| self.figure(root))
            }
            Expr::Function(function) => firm(&last_part(&function.name)),
            Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => self.figure(inner),
            Expr::Cast { expr: inner, data_type, .. } => match self.figure(inner) {
                (name, true) => (name, true),
                _ => (cast_name(&data_type.to_string()), false),
            },
            Expr::Case { else_result, .. } => match else_result.as_ref().map(|inner| self.figure(inner)) {
                Some((name, true)) => (name, true),
                _ => ("case".to_owned(), false),
            },
            Expr::Exists { .. } => firm("exists"),
            Expr::Array(_) => firm("array"),
            Expr::Trim { trim_where, .. } => match trim_where.map(|place| place.to_string()).as_deref() {
                Some("TRAILING") => firm("rtrim"),
                Some("LEADING") => firm("ltrim"),
                _ => firm("btrim"),
            },
            Expr::Substring { .. } => firm("substring"),
            Expr::Position { .. } => firm("position"),
            Expr::Value(value) if matches!(value.value, Value::Boolean(_)) => ("bool".to_owned(), false),
            Expr::Subquery(query) => {
                match query.body.as_select().and_then(|select| select.projection.first()) {
                    Some(SelectItem::UnnamedExpr(expr)) => self.figure(expr),
                    Some(SelectItem::ExprWithAlias { alias, .. }) => firm(&folded(alias)),
                    _ => none(),
                }
            }
            _ => none(),
        }
    }

    /// The type of an expression.
    pub fn of(&mut self, expr: &Expr) -> PgType {
        match expr {
            Expr::Identifier(name) => self.of_name(&name.value).unwrap_or(PgType::Text),
            Expr::CompoundIdentifier(names) => {
                names.last().and_then(|name| self.of_name(&name.value)).unwrap_or(PgType::Text)
            }
            Expr::Value(value) => match &value.value {
                Value::Boolean(_) => PgType::Bool,
                Value::Number(number, _) if number.parse::<i32>().is_ok() => PgType::Int4,
                Value::Number(number, _) if number.parse::<i64>().is_ok() => PgType::Int8,
                Value::Number(..) => PgType::Numeric,
                _ => PgType::Text,
            },
            Expr::Cast { data_type, .. } => cast_type(&data_type.to_string()).unwrap_or(PgType::Text),
            Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => self.of(inner),
            Expr::UnaryOp { op: UnaryOperator::Not, .. } => PgType::Bool,
            Expr::UnaryOp { expr, .. } => self.of(expr),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::Case { conditions, else_result, .. } => {
                let results = conditions.iter().map(|when| &when.result).chain(else_result.as_deref());
                let known = results.filter(|result| !is_null(result)).collect::<Vec<_>>();
                known.first().map_or(PgType::Text, |result| self.of(result))
            }
            Expr::Function(function) => {
                let name = last_part(&function.name);
                if let FunctionArguments::Subquery(query) = &function.args {
                    let element =
                        self.query(query).ok().and_then(|columns| columns.first().map(|column| column.1));
                    return element.and_then(PgType::array).unwrap_or(PgType::TextArray);
                }
                let first = super::tree::arguments(function).and_then(|arguments| arguments.first().copied());
                let first = first.map(|first| self.of(first));
                functions::result_type(&name, first)
            }
            Expr::Subquery(query) => {
                let columns = self.query(query).unwrap_or_default();
                columns.first().map_or(PgType::Text, |column| column.1)
            }
            Expr::Array(array) => {
                let element = array.elem.first().map(|element| self.of(element));
                element.and_then(PgType::array).unwrap_or(PgType::TextArray)
            }
            Expr::CompoundFieldAccess { root, access_chain } => match self.of(&column_of(root, access_chain))
            {
                PgType::Int2Vector => PgType::Int2,
                PgType::OidVector => PgType::Oid,
                other => PgType::ALL
                    .into_iter()
                    .find(|element| element.array() == Some(other))
                    .unwrap_or(PgType::Text),
            },
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
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. }
            | Expr::Exists { .. } => PgType::Bool,
            Expr::Position { .. } => PgType::Int4,
            _ => PgType::Text,
        }
    }

    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> PgType {
        match op {
            BinaryOperator::StringConcat => PgType::Text,
            BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo => match (self.of(left), self.of(right)) {
                (PgType::Int2 | PgType::Int4, PgType::Int2 | PgType::Int4) => PgType::Int4,
                (PgType::Float4 | PgType::Float8, _) | (_, PgType::Float4 | PgType::Float8) => PgType::Float8,
                (PgType::Numeric, _) | (_, PgType::Numeric) => PgType::Numeric,
                _ => PgType::Int8,
            },
            BinaryOperator::BitwiseAnd
            | BinaryOperator::BitwiseOr
            | BinaryOperator::PGBitwiseShiftLeft
            | BinaryOperator::PGBitwiseShiftRight => PgType::Int4,
            BinaryOperator::Arrow | BinaryOperator::LongArrow => PgType::Text,
            _ => PgType::Bool,
        }
    }
}

/// The array that is subscripted: sqlparser has `a.b[1]` as the fields `b` and `[1]` of `a`.
pub(super) fn column_of(root: &Expr, chain: &[AccessExpr]) -> Expr {
    let mut names = match root {
        Expr::Identifier(name) => vec![name.clone()],
        Expr::CompoundIdentifier(names) => names.clone(),
        other => return other.clone(),
    };
    names.extend(chain.iter().filter_map(|access| match access {
        AccessExpr::Dot(Expr::Identifier(name)) => Some(name.clone()),
        _ => None,
    }));
    Expr::CompoundIdentifier(names)
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if value.value == Value::Null)
}

/// The type a cast is to, by its text: `pg_catalog.regclass`, `character varying(3)`, `INT2[]`.
pub(super) fn cast_type(text: &str) -> Option<PgType> {
    let text = text.to_ascii_lowercase();
    let text = text.strip_prefix("pg_catalog.").unwrap_or(&text);
    if let Some(element) = text.strip_suffix("[]") {
        return cast_type(element).and_then(PgType::array);
    }
    if text == "\"char\"" {
        return Some(PgType::Char);
    }
    let base = text.split('(').next().unwrap_or_default().trim();
    PgType::by_name(base.trim_matches('"'))
}

fn cast_name(text: &str) -> String {
    let name = cast_type(text).map(|known| known.catalog_name().trim_start_matches('_').to_owned());
    name.unwrap_or_else(|| text.rsplit('.').next().unwrap_or_default().trim_matches('"').to_ascii_lowercase())
}
