//! What a guest may call and make, by name, out of what the bundled SQLite has. Each list was made from
//! SQLite's own (`pragma_function_list`, `pragma_module_list`) and reviewed; a test walks those again.
//!
//! Not allowed on purpose: `load_extension`, `fts3_tokenizer`, `readfile`, `writefile`, `edit` (not built
//! in anyway); `sqlite_log` (writes into the host's log); `fts5` (takes a pointer); `rtreecheck` and
//! `rtreenode` (read raw pages of damaged tables).

/// Functions, lower case, sorted.
const FUNCTIONS: [&str; 159] = [
    "->",
    "->>",
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "avg",
    "bm25",
    "ceil",
    "ceiling",
    "changes",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "cos",
    "cosh",
    "count",
    "cume_dist",
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "degrees",
    "dense_rank",
    "exp",
    "first_value",
    "floor",
    "format",
    "fts5_get_locale",
    "fts5_insttoken",
    "fts5_locale",
    "fts5_source_id",
    "glob",
    "group_concat",
    "hex",
    "highlight",
    "if",
    "ifnull",
    "iif",
    "instr",
    "json",
    "json_array",
    "json_array_insert",
    "json_array_length",
    "json_error_position",
    "json_extract",
    "json_group_array",
    "json_group_object",
    "json_insert",
    "json_object",
    "json_patch",
    "json_pretty",
    "json_quote",
    "json_remove",
    "json_replace",
    "json_set",
    "json_type",
    "json_valid",
    "jsonb",
    "jsonb_array",
    "jsonb_array_insert",
    "jsonb_extract",
    "jsonb_group_array",
    "jsonb_group_object",
    "jsonb_insert",
    "jsonb_object",
    "jsonb_patch",
    "jsonb_remove",
    "jsonb_replace",
    "jsonb_set",
    "julianday",
    "lag",
    "last_insert_rowid",
    "last_value",
    "lead",
    "length",
    "like",
    "likelihood",
    "likely",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "match",
    "max",
    "min",
    "mod",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "pi",
    "pow",
    "power",
    "printf",
    "quote",
    "radians",
    "random",
    "randomblob",
    "rank",
    "replace",
    "round",
    "row_number",
    "rtreedepth",
    "rtrim",
    "sign",
    "sin",
    "sinh",
    "snippet",
    "soundex",
    "sqlite_add_constraint",
    "sqlite_compileoption_get",
    "sqlite_compileoption_used",
    "sqlite_drop_column",
    "sqlite_drop_constraint",
    "sqlite_fail",
    "sqlite_find_constraint",
    "sqlite_rename_column",
    "sqlite_rename_quotefix",
    "sqlite_rename_table",
    "sqlite_rename_test",
    "sqlite_source_id",
    "sqlite_version",
    "sqrt",
    "stat_get",
    "stat_init",
    "stat_push",
    "strftime",
    "string_agg",
    "substr",
    "substring",
    "subtype",
    "sum",
    "tan",
    "tanh",
    "time",
    "timediff",
    "total",
    "total_changes",
    "trim",
    "trunc",
    "typeof",
    "unhex",
    "unicode",
    "unistr",
    "unistr_quote",
    "unixepoch",
    "unlikely",
    "upper",
    "zeroblob",
];

/// Modules a guest may make virtual tables of.
const MODULES: [&str; 4] = ["fts5", "fts5vocab", "rtree", "rtree_i32"];

/// Tables that exist without being made and show more than a guest's own data. None is built in but
/// the first, which would show where the file is.
const HIDDEN_TABLES: [&str; 7] = [
    "pragma_database_list",
    "bytecode",
    "dbstat",
    "sqlite_dbdata",
    "sqlite_dbpage",
    "sqlite_stmt",
    "tables_used",
];

/// Whether a guest may call the function; `name` in lower case.
pub(crate) fn function(name: &str) -> bool {
    FUNCTIONS.binary_search(&name).is_ok()
}

/// Whether a guest may make virtual tables of the module.
pub(crate) fn module(name: &str) -> bool {
    MODULES.iter().any(|module| module.eq_ignore_ascii_case(name))
}

/// Whether a table is not to be read; `name` in lower case.
pub(crate) fn is_hidden_table(name: &str) -> bool {
    HIDDEN_TABLES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_without_doubles() {
        assert!(FUNCTIONS.windows(2).all(|pair| pair[0] < pair[1]));
    }

    /// Everything the bundled SQLite has is either in a list or refused, and what is refused is known.
    #[test]
    fn t07_every_function_and_module_has_been_judged() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        let names = |query: &str| -> Vec<String> {
            let mut statement = db.prepare(query).unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.collect::<Result<_, _>>().unwrap()
        };
        let functions = names("SELECT DISTINCT lower(name) FROM pragma_function_list ORDER BY 1");
        assert!(functions.len() > 140, "{functions:?}");
        let refused: Vec<_> = functions.iter().filter(|name| !function(name)).collect();
        assert_eq!(refused, ["fts5", "rtreecheck", "rtreenode", "sqlite_log"]);
        let modules = names("SELECT lower(name) FROM pragma_module_list ORDER BY 1");
        let refused: Vec<_> =
            modules.iter().filter(|name| !module(name) && !name.starts_with("pragma_")).collect();
        assert!(refused.is_empty(), "{refused:?}");
        assert!(!modules.iter().any(|name| is_hidden_table(name) && !name.starts_with("pragma_")));
    }
}
