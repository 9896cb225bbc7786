//! SELECTs that have no rows because something they join never has.
//!
//! psql asks about policies, publications, inheritance and much else that no database here has. What such a
//! SELECT says cannot matter then, so it need not be translatable: an inner join with an empty relation is
//! replaced by a SELECT of no rows with the same columns.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, GroupByExpr, Ident, JoinOperator, Query, Select, SelectItem, SetExpr, TableFactor, Value, Visit,
    Visitor,
};

use super::functions;
use super::infer::Columns;
use super::relations::relation;
use super::tree::{last_part, relation_name};

/// Functions that return rows and never have any here.
const EMPTY_FUNCTIONS: &[&str] = &[
    "aclexplode",
    "pg_available_extensions",
    "pg_listening_channels",
    "pg_options_to_table",
    "pg_partition_ancestors",
    "pg_partition_tree",
];

/// Whether a query never has rows.
pub(super) fn is_empty(query: &Query) -> bool {
    body_is_empty(&query.body)
}

fn body_is_empty(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select_is_empty(select),
        SetExpr::Query(query) => is_empty(query),
        SetExpr::SetOperation { left, right, .. } => body_is_empty(left) && body_is_empty(right),
        _ => false,
    }
}

/// Whether a SELECT never has rows.
pub(super) fn select_is_empty(select: &Select) -> bool {
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    if !grouped && select.projection.iter().any(aggregates) {
        return false;
    }
    let joins = || select.from.iter().flat_map(|from| &from.joins);
    let keeps_others = |operator: &JoinOperator| {
        matches!(operator, JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_))
    };
    if joins().any(|join| keeps_others(&join.join_operator)) {
        return false;
    }
    let inner = |operator: &JoinOperator| {
        matches!(operator, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_))
    };
    let joined = joins().filter(|join| inner(&join.join_operator)).map(|join| &join.relation);
    select.from.iter().map(|from| &from.relation).chain(joined).any(factor_is_empty)
        || select.projection.iter().any(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => calls_empty(expr),
            _ => false,
        })
}

fn factor_is_empty(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
            EMPTY_FUNCTIONS.contains(&last_part(name).as_str())
        }
        TableFactor::Table { name, .. } => {
            relation_name(name).and_then(|name| relation(&name)).is_some_and(|relation| relation.is_empty)
        }
        TableFactor::Derived { subquery, .. } => is_empty(subquery),
        _ => false,
    }
}

fn calls_empty(expr: &Expr) -> bool {
    match expr {
        Expr::Function(function) => EMPTY_FUNCTIONS.contains(&last_part(&function.name).as_str()),
        Expr::Nested(inner) => calls_empty(inner),
        Expr::CompoundFieldAccess { root, .. } => calls_empty(root),
        _ => false,
    }
}

/// Whether an item aggregates, which makes a row of none. What a subquery in it aggregates is its own.
fn aggregates(item: &SelectItem) -> bool {
    item.visit(&mut Aggregates { subqueries: 0 }).is_break()
}

struct Aggregates {
    subqueries: u32,
}

impl Visitor for Aggregates {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.subqueries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.subqueries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function)
                if self.subqueries == 0
                    && function.over.is_none()
                    && functions::is_aggregate(&last_part(&function.name)) =>
            {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Makes the SELECT one of no rows, with those columns.
pub(super) fn clear(select: &mut Select, columns: &Columns) {
    let null = || Expr::Value(Value::Null.into());
    let items = columns.iter().map(|(name, _)| SelectItem::ExprWithAlias {
        expr: null(),
        alias: Ident::with_quote('"', name.clone()),
    });
    select.projection = items.collect();
    select.from = Vec::new();
    select.distinct = None;
    select.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
    select.having = None;
    select.named_window = Vec::new();
    select.selection = Some(Expr::Value(Value::Boolean(false).into()));
}
