//! Functions: SQLite's own, by what they return.

use crate::postgres::PgType;
use sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments};

use super::Inference;

/// What a function returns.
enum Returns {
    /// Always this.
    Always(PgType),
    /// Its first argument's type.
    First,
    /// The type its arguments have in common, after so many.
    Common(usize),
    /// Unknown.
    Unknown,
}

fn returns(name: &str) -> Returns {
    match name {
        "count" | "row_number" | "rank" | "dense_rank" | "ntile" | "length" | "char_length"
        | "octet_length" | "instr" | "unicode" | "unixepoch" | "changes" | "total_changes"
        | "last_insert_rowid" | "random" | "sign" | "json_array_length" => Returns::Always(PgType::Int8),
        "avg" | "total" | "percent_rank" | "cume_dist" | "julianday" | "exp" | "ln" | "log" | "log2"
        | "log10" | "sqrt" | "pow" | "power" | "pi" | "sin" | "cos" | "tan" | "asin" | "acos" | "atan"
        | "atan2" | "radians" | "degrees" | "round" => Returns::Always(PgType::Float8),
        "lower" | "upper" | "substr" | "substring" | "trim" | "ltrim" | "rtrim" | "replace" | "printf"
        | "format" | "hex" | "quote" | "group_concat" | "string_agg" | "concat" | "concat_ws" | "char"
        | "typeof" | "date" | "time" | "datetime" | "strftime" | "timediff" | "json" | "json_object"
        | "json_array" | "json_group_array" | "json_group_object" | "json_type" | "json_quote"
        | "version" | "current_date" | "current_time" | "current_timestamp" => Returns::Always(PgType::Text),
        "randomblob" | "zeroblob" | "unhex" => Returns::Always(PgType::Bytea),
        "sum" | "min" | "max" | "abs" | "first_value" | "last_value" | "nth_value" | "lag" | "lead" => {
            Returns::First
        }
        "coalesce" | "ifnull" | "nullif" | "greatest" | "least" => Returns::Common(0),
        "iif" | "if" => Returns::Common(1),
        _ => Returns::Unknown,
    }
}

impl Inference<'_> {
    pub(super) fn function(&mut self, function: &Function, wanted: Option<PgType>) -> Option<PgType> {
        let name = function.name.0.last().and_then(|part| part.as_ident());
        let name = name.map(|ident| ident.value.to_lowercase()).unwrap_or_default();
        let arguments: Vec<&Expr> = match &function.args {
            FunctionArguments::List(list) => list.args.iter().filter_map(argument).collect(),
            FunctionArguments::Subquery(query) => {
                return self.query(query, &[]).first().and_then(|(_, pg)| *pg);
            }
            FunctionArguments::None => Vec::new(),
        };
        self.visit(function.filter.as_deref(), Some(PgType::Bool));
        match returns(&name) {
            Returns::Always(pg) => {
                // What makes text takes text; what counts takes anything.
                let wanted = Some(PgType::Text).filter(|_| pg == PgType::Text);
                self.visit(arguments, wanted);
                Some(pg)
            }
            Returns::First => {
                let types: Vec<_> = arguments.iter().map(|argument| self.expr(argument, None)).collect();
                types.first().copied().flatten()
            }
            Returns::Common(skipped) => {
                let (before, common) = arguments.split_at(skipped.min(arguments.len()));
                self.visit(before.iter().copied(), Some(PgType::Bool));
                self.alike(common, wanted)
            }
            Returns::Unknown => {
                self.visit(arguments, None);
                None
            }
        }
    }
}

fn argument(argument: &FunctionArg) -> Option<&Expr> {
    let (FunctionArg::Named { arg, .. } | FunctionArg::ExprNamed { arg, .. } | FunctionArg::Unnamed(arg)) =
        argument;
    match arg {
        FunctionArgExpr::Expr(expr) => Some(expr),
        _ => None,
    }
}
