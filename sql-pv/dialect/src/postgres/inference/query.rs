//! Statements and queries: what tables are in sight where, and what columns come out.

use crate::postgres::PgType;
use sqlparser::ast::{
    Assignment, AssignmentTarget, FromTable, Insert, JoinConstraint, JoinOperator, LimitClause, ObjectName,
    OnConflictAction, OnInsert, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    Statement as Ast, TableFactor, TableObject, TableWithJoins, UpdateTableFromKind,
};

use super::{Columns, Inference};
use crate::limits::INFERENCE_DEPTH_MAX;

type Wanted<'w> = &'w [Option<PgType>];

/// The last part of a name that may have a schema.
fn last(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.clone()).unwrap_or_default()
}

impl Inference<'_> {
    /// The columns a statement returns.
    pub(super) fn statement(&mut self, ast: &Ast) -> Columns {
        match ast {
            Ast::Query(query) => self.query(query, &[]),
            Ast::Insert(insert) => self.insert(insert),
            Ast::Update(update) => {
                self.scopes.push(Vec::new());
                self.joined(&update.table);
                if let Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) =
                    &update.from
                {
                    from.iter().for_each(|table| self.joined(table));
                }
                self.assignments(&update.assignments);
                self.visit(&update.selection, Some(PgType::Bool));
                let columns = self.items(update.returning.as_deref().unwrap_or_default(), &[]);
                self.scopes.pop();
                columns
            }
            Ast::Delete(delete) => {
                self.scopes.push(Vec::new());
                let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
                from.iter().chain(delete.using.iter().flatten()).for_each(|table| self.joined(table));
                self.visit(&delete.selection, Some(PgType::Bool));
                let columns = self.items(delete.returning.as_deref().unwrap_or_default(), &[]);
                self.scopes.pop();
                columns
            }
            _ => Columns::new(),
        }
    }

    fn insert(&mut self, insert: &Insert) -> Columns {
        let TableObject::TableName(name) = &insert.table else { return Columns::new() };
        let name = last(name);
        let table = self.table(&name);
        let wanted: Vec<Option<PgType>> = if insert.columns.is_empty() {
            table.iter().map(|(_, pg)| *pg).collect()
        } else {
            let known = |name: &ObjectName| {
                let name = last(name).to_lowercase();
                table.iter().find(|(known, _)| *known == name).and_then(|(_, pg)| *pg)
            };
            insert.columns.iter().map(known).collect()
        };
        insert.source.iter().for_each(|query| drop(self.query(query, &wanted)));
        self.scopes.push(vec![(name, table.clone()), ("excluded".to_owned(), table)]);
        if let Some(OnInsert::OnConflict(conflict)) = &insert.on
            && let OnConflictAction::DoUpdate(update) = &conflict.action
        {
            self.assignments(&update.assignments);
            self.visit(&update.selection, Some(PgType::Bool));
        }
        // Only the table itself is what RETURNING sees.
        self.scopes.last_mut().into_iter().for_each(|scope| scope.truncate(1));
        let columns = self.items(insert.returning.as_deref().unwrap_or_default(), &[]);
        self.scopes.pop();
        columns
    }

    fn assignments(&mut self, assignments: &[Assignment]) {
        for assignment in assignments {
            let wanted = match &assignment.target {
                AssignmentTarget::ColumnName(name) => self.column(None, &last(name)),
                AssignmentTarget::Tuple(_) => None,
            };
            self.expr(&assignment.value, wanted);
        }
    }

    /// The columns of a query; `wanted` are the types of where its columns go.
    pub(super) fn query(&mut self, query: &Query, wanted: Wanted<'_>) -> Columns {
        if self.depth >= INFERENCE_DEPTH_MAX {
            return Columns::new();
        }
        self.depth += 1;
        let named = self.named.len();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = cte.alias.name.value.to_lowercase();
            // A recursive part sees the columns of the other one, which comes first.
            self.named.push((name, Columns::new()));
            let at = self.named.len() - 1;
            let mut columns = self.query(&cte.query, &[]);
            for (column, alias) in columns.iter_mut().zip(&cte.alias.columns) {
                column.0 = alias.name.value.to_lowercase();
            }
            self.named[at].1 = columns;
        }
        let columns = self.body(&query.body, wanted);
        match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                let counts = limit.iter().chain(offset.iter().map(|offset| &offset.value));
                self.visit(counts, Some(PgType::Int8));
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                self.expr(offset, Some(PgType::Int8));
                self.expr(limit, Some(PgType::Int8));
            }
            None => {}
        }
        self.named.truncate(named);
        self.depth -= 1;
        columns
    }

    fn body(&mut self, body: &SetExpr, wanted: Wanted<'_>) -> Columns {
        match body {
            SetExpr::Select(select) => self.select(select, wanted),
            SetExpr::Query(query) => self.query(query, wanted),
            SetExpr::SetOperation { left, right, .. } => {
                let mut columns = self.body(left, wanted);
                let right = self.body(right, wanted);
                for (column, (_, pg)) in columns.iter_mut().zip(right) {
                    column.1 = column.1.or(pg);
                }
                columns
            }
            SetExpr::Values(values) => {
                let mut columns = Columns::new();
                for row in &values.rows {
                    for (at, expr) in row.content.iter().enumerate() {
                        let pg = self.expr(expr, wanted.get(at).copied().flatten());
                        match columns.get_mut(at) {
                            Some(column) => column.1 = column.1.or(pg),
                            None => columns.push((format!("column{}", at + 1), pg)),
                        }
                    }
                }
                columns
            }
            SetExpr::Insert(ast) | SetExpr::Update(ast) | SetExpr::Delete(ast) => self.statement(ast),
            _ => Columns::new(),
        }
    }

    fn select(&mut self, select: &Select, wanted: Wanted<'_>) -> Columns {
        self.scopes.push(Vec::new());
        select.from.iter().for_each(|table| self.joined(table));
        let conditions = select.selection.iter().chain(&select.having);
        self.visit(conditions, Some(PgType::Bool));
        let columns = self.items(&select.projection, wanted);
        self.scopes.pop();
        columns
    }

    /// Brings tables into sight, then looks at the conditions that join them.
    fn joined(&mut self, tables: &TableWithJoins) {
        self.factor(&tables.relation);
        for join in &tables.joins {
            self.factor(&join.relation);
            let constraint = match &join.join_operator {
                JoinOperator::Join(constraint)
                | JoinOperator::Inner(constraint)
                | JoinOperator::Left(constraint)
                | JoinOperator::LeftOuter(constraint)
                | JoinOperator::Right(constraint)
                | JoinOperator::RightOuter(constraint)
                | JoinOperator::FullOuter(constraint)
                | JoinOperator::CrossJoin(constraint) => constraint,
                _ => continue,
            };
            if let JoinConstraint::On(condition) = constraint {
                self.expr(condition, Some(PgType::Bool));
            }
        }
    }

    fn factor(&mut self, factor: &TableFactor) {
        let (name, columns) = match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let name = last(name);
                let columns = self.table(&name);
                (alias.as_ref().map_or(name, |alias| alias.name.value.clone()), columns)
            }
            TableFactor::Derived { subquery, alias, .. } => {
                let columns = self.query(subquery, &[]);
                (alias.as_ref().map(|alias| alias.name.value.clone()).unwrap_or_default(), columns)
            }
            TableFactor::NestedJoin { table_with_joins, .. } => return self.joined(table_with_joins),
            _ => return,
        };
        self.scopes.last_mut().into_iter().for_each(|scope| scope.push((name.clone(), columns.clone())));
    }

    /// The columns of a list of results.
    fn items(&mut self, items: &[SelectItem], wanted: Wanted<'_>) -> Columns {
        let mut columns = Columns::new();
        for item in items {
            let wanted = wanted.get(columns.len()).copied().flatten();
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    let name = Self::name_of(expr);
                    columns.push((name, self.expr(expr, wanted)));
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    columns.push((alias.value.to_lowercase(), self.expr(expr, wanted)));
                }
                SelectItem::Wildcard(_) => {
                    let scope = self.scopes.last().into_iter().flatten();
                    columns.extend(scope.flat_map(|(_, columns)| columns.iter().cloned()));
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    let name = last(name);
                    let mut scope = self.scopes.last().into_iter().flatten();
                    let table = scope.find(|(known, _)| known.eq_ignore_ascii_case(&name));
                    columns.extend(table.iter().flat_map(|(_, columns)| columns.iter().cloned()));
                }
                _ => {}
            }
        }
        columns
    }
}
