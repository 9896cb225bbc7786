//! PostgreSQL's functions as expressions over the catalogue.

use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName,
};

use super::macros::{quoted_name, type_name};
use super::tree::{arguments, last_part, raw, string, string_value};
use super::{arrays, regs};
use crate::postgres::answer::Refusal;
use crate::postgres::known_settings::VERSION;
use crate::postgres::literal::quote;
use crate::postgres::session::SessionView;
use crate::postgres::types::PgType;

/// Functions that are the same in SQLite.
const SAME: &[&str] = &[
    "abs",
    "avg",
    "coalesce",
    "concat",
    "concat_ws",
    "count",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "length",
    "lower",
    "ltrim",
    "max",
    "min",
    "nth_value",
    "nullif",
    "octet_length",
    "rank",
    "replace",
    "round",
    "row_number",
    "rtrim",
    "substr",
    "sum",
    "trim",
    "upper",
];

/// Functions with another name in SQLite.
const RENAMED: &[(&str, &str)] = &[
    ("bool_and", "min"),
    ("bool_or", "max"),
    ("btrim", "trim"),
    ("char_length", "length"),
    ("character_length", "length"),
    ("every", "min"),
    ("json_agg", "json_group_array"),
    ("json_build_array", "json_array"),
    ("json_build_object", "json_object"),
    ("jsonb_build_object", "json_object"),
    ("string_agg", "group_concat"),
    ("strpos", "instr"),
    ("substring", "substr"),
];

/// Functions about what no database here has.
const NULLS: &[&str] = &[
    "col_description",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "obj_description",
    "pg_database_size",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_functiondef",
    "pg_get_partition_constraintdef",
    "pg_get_partkeydef",
    "pg_get_ruledef",
    "pg_get_serial_sequence",
    "pg_get_statisticsobjdef_columns",
    "pg_indexes_size",
    "pg_relation_filenode",
    "pg_relation_size",
    "pg_stat_get_numscans",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "shobj_description",
];

/// Whether it makes one row of many.
pub(super) fn is_aggregate(name: &str) -> bool {
    const AGGREGATES: &[&str] = &[
        "array_agg",
        "avg",
        "bool_and",
        "bool_or",
        "count",
        "every",
        "json_agg",
        "jsonb_agg",
        "json_object_agg",
        "max",
        "min",
        "string_agg",
        "sum",
        "xmlagg",
    ];
    AGGREGATES.contains(&name)
}

/// The type of a call's result; `first` is its first argument's.
pub(super) fn result_type(name: &str, first: Option<PgType>) -> PgType {
    match name {
        "coalesce" | "max" | "min" | "nullif" | "first_value" | "lag" | "last_value" | "lead"
        | "nth_value" => first.unwrap_or(PgType::Text),
        "array_agg" => first.and_then(PgType::array).unwrap_or(PgType::TextArray),
        "unnest" => match first {
            Some(PgType::Int2Vector) => PgType::Int2,
            Some(PgType::OidVector) => PgType::Oid,
            other => PgType::ALL
                .into_iter()
                .find(|element| element.array().is_some() && element.array() == other)
                .unwrap_or(PgType::Text),
        },
        "bool_and" | "bool_or" | "every" | "pg_is_in_recovery" | "pg_relation_is_publishable" => PgType::Bool,
        "count"
        | "sum"
        | "rank"
        | "dense_rank"
        | "row_number"
        | "pg_database_size"
        | "pg_relation_size"
        | "pg_table_size"
        | "pg_total_relation_size"
        | "pg_indexes_size" => PgType::Int8,
        "array_length"
        | "array_lower"
        | "array_upper"
        | "cardinality"
        | "generate_subscripts"
        | "length"
        | "strpos"
        | "pg_backend_pid"
        | "pg_char_to_encoding" => PgType::Int4,
        "avg" | "round" => PgType::Numeric,
        "current_database"
        | "current_schema"
        | "current_user"
        | "session_user"
        | "user"
        | "current_role"
        | "pg_get_userbyid"
        | "pg_encoding_to_char" => PgType::Name,
        "current_schemas" => PgType::NameArray,
        "to_regclass" => PgType::Regclass,
        "to_regtype" => PgType::Regtype,
        "json_build_object" | "json_agg" | "json_build_array" => PgType::Json,
        "now" => PgType::Timestamptz,
        _ if name.ends_with("_is_visible") => PgType::Bool,
        _ if name.starts_with("has_") && name.ends_with("_privilege") => PgType::Bool,
        _ => PgType::Text,
    }
}

/// The call as an expression of SQLite's. Its arguments are translated already; `kind` is its elements' type if it
/// makes an array.
pub(super) fn call(
    function: &mut Function,
    kind: PgType,
    session: &SessionView<'_>,
) -> Result<Expr, Refusal> {
    let name = last_part(&function.name);
    let name = name.trim_matches('"');
    if let FunctionArguments::Subquery(query) = &function.args {
        return match name {
            "array" => Ok(raw(arrays::of_query(&query.to_string(), kind))),
            _ => Err(unknown(name)),
        };
    }
    if SAME.contains(&name) {
        function.name = ObjectName::from(vec![Ident::new(name)]);
        return Ok(Expr::Function(function.clone()));
    }
    if let Some((_, other)) = RENAMED.iter().find(|(known, _)| *known == name) {
        function.name = ObjectName::from(vec![Ident::new(*other)]);
        return Ok(Expr::Function(function.clone()));
    }
    if name == "array_agg" {
        return array_agg(function, kind);
    }
    let Some(arguments) = arguments(function) else { return Err(unknown(name)) };
    if let Some(value) = session_value(name, &arguments, session) {
        return Ok(value);
    }
    let all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let texts: Vec<&str> = all.iter().map(String::as_str).collect();
    let sql = match (name, texts.as_slice()) {
        (known, _) if NULLS.contains(&known) => "NULL".to_owned(),
        (known, _) if known.starts_with("has_") && known.ends_with("_privilege") => "TRUE".to_owned(),
        (known, [oid]) if known.ends_with("_is_visible") => format!("({oid} IS NOT NULL)"),
        ("pg_get_expr", [expr, ..]) => format!("({expr})"),
        ("format_type", [oid, modifier]) => format_type(oid, modifier),
        ("pg_get_indexdef", [oid]) => lookup("definition", "vamos_index_def", oid),
        ("pg_get_indexdef", [oid, "0", ..]) => lookup("definition", "vamos_index_def", oid),
        ("pg_get_indexdef", [oid, column, ..]) => index_column(oid, column),
        ("pg_get_constraintdef", [oid, ..]) => lookup("definition", "vamos_constraint_def", oid),
        ("pg_get_viewdef" | "pg_get_triggerdef", [oid, ..]) => {
            let oid = match arguments.first().and_then(|first| string_value(first)) {
                Some(name) => regs::relation_oid(&name),
                None => (*oid).to_owned(),
            };
            lookup("definition", "vamos_definition", &oid)
        }
        ("pg_relation_is_publishable" | "pg_is_in_recovery", _) => "FALSE".to_owned(),
        ("pg_tablespace_location", [_]) => "''".to_owned(),
        ("pg_size_pretty", [size]) => format!("({size} || ' bytes')"),
        ("to_regclass", [_]) | ("to_regtype", [_]) => {
            let argument = arguments[0];
            let reg = if name == "to_regclass" { regs::Reg::Class } else { regs::Reg::Type };
            regs::to_oid(reg, argument)
        }
        ("quote_ident", [value]) => quoted_name(value),
        ("quote_literal", [value]) => format!("quote({value})"),
        ("left", [value, count]) => format!("substr({value}, 1, {count})"),
        ("now", []) => "CURRENT_TIMESTAMP".to_owned(),
        ("array_to_string", [list, separator, ..]) => arrays::joined(arguments[0], list, separator),
        ("array_length" | "array_upper", [list, "1"]) | ("cardinality", [list]) => arrays::length(list),
        ("array_lower", [list, "1"]) => format!("(CASE WHEN {list} <> '{{}}' THEN 1 END)"),
        // Options of relations are never set, and nothing can be removed from them.
        ("array_remove", [list, _]) if list.contains("reloptions") => (*list).to_owned(),
        _ => return Err(unknown(name)),
    };
    Ok(raw(sql))
}

fn unknown(name: &str) -> Refusal {
    Refusal::unsupported(format!("function {name}() in a query about the catalogue"))
}

/// What the session alone answers.
fn session_value(name: &str, arguments: &[&Expr], session: &SessionView<'_>) -> Option<Expr> {
    let value = match (name, arguments) {
        ("version", []) => string(VERSION),
        ("current_database" | "current_catalog", []) => string(session.database),
        ("current_user" | "session_user" | "user" | "current_role", []) => string(session.user),
        ("pg_get_userbyid", [_]) => string(session.user),
        ("current_schema", []) => string("public"),
        ("current_schemas", [all]) => {
            let all = all.to_string().eq_ignore_ascii_case("true");
            string(if all { "{pg_catalog,public}" } else { "{public}" })
        }
        ("pg_backend_pid", []) => raw(session.backend_pid.to_string()),
        ("pg_encoding_to_char" | "getdatabaseencoding" | "pg_client_encoding", _) => string("UTF8"),
        ("pg_char_to_encoding", [_]) => raw("6"),
        ("pg_my_temp_schema", []) => raw("0"),
        ("current_setting", [setting, ..]) => match string_value(setting) {
            Some(name) => session.settings.value(&name).map_or_else(|| raw("NULL"), string),
            None => raw(format!(
                "(SELECT vamos_value FROM (SELECT name AS vamos_name, setting AS vamos_value FROM pg_settings) \
                 WHERE vamos_name = {setting} COLLATE NOCASE)"
            )),
        },
        _ => return None,
    };
    Some(value)
}

fn lookup(what: &str, table: &str, oid: &str) -> String {
    // Under another name, so that an argument that is a plain `oid` keeps its meaning inside.
    format!(
        "(SELECT {what} FROM (SELECT oid AS vamos_oid, {what} FROM {table}) WHERE vamos_oid = CAST({oid} AS INTEGER))"
    )
}

/// One key of an index. A lone expression is all that is between its parentheses.
fn index_column(oid: &str, column: &str) -> String {
    format!(
        "(SELECT coalesce(k.name, 'expr') FROM vamos_index_key AS k \
         WHERE k.index_oid = CAST({oid} AS INTEGER) AND k.position = {column})"
    )
}

fn format_type(oid: &str, modifier: &str) -> String {
    let name = type_name(oid);
    if modifier.eq_ignore_ascii_case("null") {
        return name;
    }
    format!(
        "(CASE WHEN {modifier} >= 4 AND {oid} IN (1042, 1043) THEN {name} || '(' || ({modifier} - 4) || ')' \
         WHEN {modifier} >= 4 AND {oid} = 1700 THEN \
         'numeric(' || (({modifier} - 4) >> 16) || ',' || (({modifier} - 4) & 65535) || ')' ELSE {name} END)"
    )
}

/// `array_agg(x ORDER BY y)` in the text form of arrays.
fn array_agg(function: &mut Function, kind: PgType) -> Result<Expr, Refusal> {
    let FunctionArguments::List(list) = &mut function.args else { return Err(unknown("array_agg")) };
    let element = match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => arrays::element(&expr.to_string(), kind),
        _ => return Err(unknown("array_agg")),
    };
    if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) {
        return Err(Refusal::unsupported("array_agg(DISTINCT ...)"));
    }
    let argument = |sql: String| FunctionArg::Unnamed(FunctionArgExpr::Expr(raw(sql)));
    let args = vec![argument(element), argument(quote(","))];
    *list =
        FunctionArgumentList { duplicate_treatment: None, args, clauses: std::mem::take(&mut list.clauses) };
    function.name = ObjectName::from(vec![Ident::new("group_concat")]);
    Ok(raw(format!("('{{' || {function} || '}}')")))
}
