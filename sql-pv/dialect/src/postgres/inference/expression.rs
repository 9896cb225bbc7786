//! Expressions: what type comes out, and what types go in.

use crate::postgres::PgType;
use sqlparser::ast::{BinaryOperator, DataType, Expr, UnaryOperator, Value};

use super::Inference;
use crate::limits::INFERENCE_DEPTH_MAX;

impl Inference<'_> {
    /// The name a result column gets from its expression.
    pub(super) fn name_of(expr: &Expr) -> String {
        match expr {
            Expr::Identifier(ident) => ident.value.to_lowercase(),
            Expr::CompoundIdentifier(parts) => {
                parts.last().map(|part| part.value.to_lowercase()).unwrap_or_default()
            }
            _ => String::new(),
        }
    }

    /// The type of an expression; a parameter in its place is taken for `wanted`.
    pub(super) fn expr(&mut self, expr: &Expr, wanted: Option<PgType>) -> Option<PgType> {
        if self.depth >= INFERENCE_DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let pg = self.shallow(expr, wanted);
        self.depth -= 1;
        pg
    }

    fn shallow(&mut self, expr: &Expr, wanted: Option<PgType>) -> Option<PgType> {
        match expr {
            Expr::Identifier(ident) => self.column(None, &ident.value),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., table, column] => self.column(Some(&table.value), &column.value),
                _ => None,
            },
            Expr::Value(value) => match &value.value {
                Value::Placeholder(placeholder) => self.parameter(placeholder, wanted),
                Value::Number(digits, _) if digits.contains(['.', 'e', 'E']) => Some(PgType::Float8),
                Value::Number(..) => Some(PgType::Int8),
                Value::Boolean(_) => Some(PgType::Bool),
                Value::Null => None,
                Value::HexStringLiteral(_) => Some(PgType::Bytea),
                _ => Some(PgType::Text),
            },
            Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => self.expr(inner, wanted),
            Expr::Cast { expr, data_type, .. } => {
                let pg = declared(data_type);
                self.expr(expr, pg);
                pg
            }
            Expr::TypedString(typed) => declared(&typed.data_type),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                self.expr(expr, Some(PgType::Bool));
                Some(PgType::Bool)
            }
            Expr::UnaryOp { expr, .. } | Expr::Ceil { expr, .. } | Expr::Floor { expr, .. } => {
                self.expr(expr, wanted)
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                let tested = match operand {
                    Some(operand) => self.expr(operand, None),
                    None => Some(PgType::Bool),
                };
                self.visit(conditions.iter().map(|when| &when.condition), tested);
                let results: Vec<&Expr> =
                    conditions.iter().map(|when| &when.result).chain(else_result.as_deref()).collect();
                self.alike(&results, wanted)
            }
            Expr::Function(function) => self.function(function, wanted),
            Expr::Subquery(query) => self.query(query, &[wanted]).first().and_then(|(_, pg)| *pg),
            Expr::Substring { expr, .. } | Expr::Trim { expr, .. } => {
                self.expr(expr, Some(PgType::Text));
                Some(PgType::Text)
            }
            Expr::Position { .. } => Some(PgType::Int8),
            _ => self.condition(expr),
        }
    }

    /// Looks at expressions whose own types do not matter.
    pub(super) fn visit<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>, wanted: Option<PgType>) {
        for expr in exprs {
            self.expr(expr, wanted);
        }
    }

    /// Expressions that are true or false.
    fn condition(&mut self, expr: &Expr) -> Option<PgType> {
        match expr {
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
                self.expr(inner, None);
            }
            Expr::IsTrue(inner) | Expr::IsNotTrue(inner) | Expr::IsFalse(inner) | Expr::IsNotFalse(inner) => {
                self.expr(inner, Some(PgType::Bool));
            }
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.alike(&[&**left, &**right], None);
            }
            Expr::InList { expr, list, .. } => {
                let all: Vec<&Expr> = std::iter::once(&**expr).chain(list).collect();
                self.alike(&all, None);
            }
            Expr::InSubquery { expr, subquery, .. } => {
                let found = self.query(subquery, &[]).first().and_then(|(_, pg)| *pg);
                self.expr(expr, found);
            }
            Expr::Between { expr, low, high, .. } => {
                self.alike(&[&**expr, &**low, &**high], None);
            }
            Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => {
                self.expr(expr, Some(PgType::Text));
                self.expr(pattern, Some(PgType::Text));
            }
            Expr::Exists { subquery, .. } => drop(self.query(subquery, &[])),
            _ => return None,
        }
        Some(PgType::Bool)
    }

    /// Expressions that are compared with each other or chosen from: the parameters among them have the type
    /// of the others. Returns that type.
    pub(super) fn alike(&mut self, exprs: &[&Expr], wanted: Option<PgType>) -> Option<PgType> {
        let known: Vec<Option<PgType>> = exprs.iter().map(|expr| self.expr(expr, None)).collect();
        let common = known.iter().flatten().copied().reduce(wider).or(wanted);
        self.visit(exprs.iter().copied(), common);
        common
    }

    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<PgType> {
        use BinaryOperator as Op;
        match op {
            Op::And | Op::Or | Op::Xor => {
                self.expr(left, Some(PgType::Bool));
                self.expr(right, Some(PgType::Bool));
                Some(PgType::Bool)
            }
            Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq | Op::Spaceship => {
                self.alike(&[left, right], None);
                Some(PgType::Bool)
            }
            Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo => {
                let number = |pg: &PgType| matches!(pg, PgType::Int8 | PgType::Float8 | PgType::Numeric);
                self.alike(&[left, right], None).filter(number)
            }
            Op::BitwiseAnd | Op::BitwiseOr | Op::PGBitwiseShiftLeft | Op::PGBitwiseShiftRight => {
                self.expr(left, Some(PgType::Int8));
                self.expr(right, Some(PgType::Int8));
                Some(PgType::Int8)
            }
            Op::StringConcat | Op::LongArrow => {
                self.expr(left, Some(PgType::Text));
                self.expr(right, Some(PgType::Text));
                Some(PgType::Text)
            }
            Op::PGLikeMatch | Op::PGILikeMatch | Op::PGRegexMatch | Op::Regexp | Op::Match => {
                self.expr(left, Some(PgType::Text));
                self.expr(right, Some(PgType::Text));
                Some(PgType::Bool)
            }
            _ => {
                self.expr(left, None);
                self.expr(right, None);
                None
            }
        }
    }
}

/// The type both values have room in.
fn wider(one: PgType, other: PgType) -> PgType {
    match (one, other) {
        (PgType::Int8, PgType::Float8 | PgType::Numeric) => other,
        (PgType::Numeric, PgType::Float8) => other,
        _ => one,
    }
}

/// The type a cast names.
fn declared(data_type: &DataType) -> Option<PgType> {
    let name = data_type.to_string();
    let base = name.split('(').next().unwrap_or_default().trim();
    PgType::by_name(base).or_else(|| PgType::of_declared(&name))
}
