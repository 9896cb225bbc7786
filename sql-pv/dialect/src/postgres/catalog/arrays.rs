//! Arrays, which SQLite does not have, in the text form PostgreSQL sends them in: `{1,2}`, `{"a b",NULL}`;
//! vectors of the catalogue have blanks instead: `1 2`.

use sqlparser::ast::Expr;

use crate::postgres::types::PgType;

/// A value as an element.
pub(super) fn element(value: &str, kind: PgType) -> String {
    if kind == PgType::Bool {
        return format!("(CASE WHEN {value} IS NULL THEN 'NULL' WHEN {value} THEN 't' ELSE 'f' END)");
    }
    format!(
        "(CASE WHEN {value} IS NULL THEN 'NULL' WHEN {value} = '' OR lower({value}) = 'null' \
         OR {value} GLOB '*[ ,{{}}\"\\]*' THEN '\"' || replace(replace({value}, '\\', '\\\\'), '\"', '\\\"') || '\"' \
         ELSE {value} END)"
    )
}

/// `ARRAY(SELECT ...)`.
pub(super) fn of_query(query: &str, kind: PgType) -> String {
    format!(
        "(WITH vamos_list(v) AS ({query}) SELECT '{{' || coalesce(group_concat({}, ','), '') || '}}' FROM vamos_list)",
        element("v", kind)
    )
}

/// `ARRAY[...]`.
pub(super) fn of_values(values: &[String], kind: PgType) -> String {
    let elements: Vec<String> = values.iter().map(|value| element(value, kind)).collect();
    if elements.is_empty() {
        return "'{}'".to_owned();
    }
    format!("('{{' || {} || '}}')", elements.join(" || ',' || "))
}

/// `array_to_string(list, separator)`. Of a subquery the values are joined as they are.
pub(super) fn joined(list: &Expr, text: &str, separator: &str) -> String {
    match list {
        Expr::Subquery(query) => format!(
            "(WITH vamos_list(v) AS ({query}) SELECT coalesce(group_concat(v, {separator}), '') FROM vamos_list)"
        ),
        _ => format!("replace(trim({text}, '{{}}'), ',', {separator})"),
    }
}

/// The number of elements; NULL for none, as PostgreSQL has it.
pub(super) fn length(list: &str) -> String {
    let items = commas(list);
    format!(
        "(CASE WHEN {list} NOT IN ('', '{{}}') THEN length({items}) - length(replace({items}, ',', '')) + 1 END)"
    )
}

/// The elements of an array or vector with commas between them.
fn commas(list: &str) -> String {
    format!("replace(trim({list}, '{{}}'), ' ', ',')")
}

/// Whether a number or plain word is among the elements: `value = ANY (list)`.
pub(super) fn contains(list: &str, value: &str) -> String {
    format!("(instr(',' || {} || ',', ',' || {value} || ',') > 0)", commas(list))
}

/// The elements as JSON. Elements are numbers or plain words, which is what the catalogue's arrays have.
pub(super) fn json(list: &str) -> String {
    format!(
        "(CASE WHEN {list} GLOB '*[a-zA-Z_]*' THEN '[\"' || replace({items}, ',', '\",\"') || '\"]' \
         ELSE '[' || {items} || ']' END)",
        items = commas(list)
    )
}

/// The element at a place: vectors count from 0, arrays from 1.
pub(super) fn item(list: &str, index: &str, from: u8) -> String {
    format!("json_extract({}, '$[' || ({index} - {from}) || ']')", json(list))
}
