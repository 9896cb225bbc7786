//! The relations of `pg_catalog` and `information_schema`, as queries over SQLite's own schema.
//!
//! `columns.txt` has every relation known here with its columns as PostgreSQL 15 has them; one that has an
//! SQL file has rows, the others are empty, as they are in a PostgreSQL database that uses nothing of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use super::macros;
use crate::lexer::{Kind, Lexer};
use crate::postgres::literal::{quote, quote_name};
use crate::postgres::session::SessionView;
use crate::postgres::types::PgType;

/// Queries by the name of their relation. `vamos_...` are no relations of PostgreSQL's but what those share.
macro_rules! bodies {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("sql/", $name, ".sql")))),*]
    };
}

const BODIES: &[(&str, &str)] = bodies![
    "information_schema.columns",
    "information_schema.constraint_column_usage",
    "information_schema.key_column_usage",
    "information_schema.referential_constraints",
    "information_schema.schemata",
    "information_schema.table_constraints",
    "information_schema.tables",
    "information_schema.views",
    "pg_am",
    "pg_attrdef",
    "pg_attribute",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_index",
    "pg_indexes",
    "pg_namespace",
    "pg_roles",
    "pg_tables",
    "pg_tablespace",
    "pg_trigger",
    "pg_user",
    "pg_views",
    "vamos_column",
    "vamos_constraint_def",
    "vamos_definition",
    "vamos_foreign_key",
    "vamos_index",
    "vamos_index_def",
    "vamos_index_key",
    "vamos_object",
];

/// OIDs of the catalogue's own tables, which clients compare `classoid` with.
const SYSTEM_RELATIONS: &[(u32, &str)] = &[
    (1247, "pg_type"),
    (1249, "pg_attribute"),
    (1255, "pg_proc"),
    (1259, "pg_class"),
    (1262, "pg_database"),
    (1213, "pg_tablespace"),
    (2601, "pg_am"),
    (2604, "pg_attrdef"),
    (2606, "pg_constraint"),
    (2608, "pg_depend"),
    (2609, "pg_description"),
    (2610, "pg_index"),
    (2611, "pg_inherits"),
    (2612, "pg_language"),
    (2615, "pg_namespace"),
    (2616, "pg_opclass"),
    (2617, "pg_operator"),
    (2618, "pg_rewrite"),
    (2620, "pg_trigger"),
    (3079, "pg_extension"),
    (3256, "pg_policy"),
    (3456, "pg_collation"),
    (3501, "pg_enum"),
    (3541, "pg_range"),
];

/// A relation's columns.
pub(super) struct Relation {
    pub columns: Vec<(&'static str, PgType)>,
    /// It never has rows.
    pub is_empty: bool,
}

/// The relation of that name: `pg_class`, `information_schema.tables`.
pub(super) fn relation(name: &str) -> Option<&'static Relation> {
    static RELATIONS: OnceLock<BTreeMap<&'static str, Relation>> = OnceLock::new();
    RELATIONS.get_or_init(read_columns).get(name)
}

fn read_columns() -> BTreeMap<&'static str, Relation> {
    let generated = ["pg_type", "pg_database", "pg_settings"];
    let lines = include_str!("columns.txt").lines();
    lines
        .filter_map(|line| {
            let (name, columns) = line.split_once(' ')?;
            let columns = columns.split(' ').filter_map(|column| column.split_once(':'));
            let columns = columns.map(|(column, kind)| (column, column_type(kind))).collect();
            Some((name, Relation { columns, is_empty: body(name).is_none() && !generated.contains(&name) }))
        })
        .collect()
}

/// The type a catalogue column is reported with.
fn column_type(name: &str) -> PgType {
    match name {
        "char" => PgType::Char,
        "xid" => PgType::Int8,
        // What PostgreSQL has as trees, functions and access lists is text here.
        _ => PgType::ALL.into_iter().find(|known| known.catalog_name() == name).unwrap_or(PgType::Text),
    }
}

fn body(name: &str) -> Option<&'static str> {
    BODIES.iter().find(|(known, _)| *known == name).map(|(_, sql)| *sql)
}

/// The name its common table expression has.
pub(super) fn cte_name(relation: &str) -> String {
    relation.replace('.', "_")
}

/// The common table expressions for these relations and what they are made of, each before its use.
pub(super) fn ctes(names: &BTreeSet<String>, session: &SessionView<'_>) -> Vec<String> {
    let mut done = BTreeSet::new();
    let mut ctes = Vec::new();
    for name in names {
        add(name, session, &mut done, &mut ctes);
    }
    ctes
}

fn add(name: &str, session: &SessionView<'_>, done: &mut BTreeSet<String>, ctes: &mut Vec<String>) {
    if !done.insert(name.to_owned()) {
        return;
    }
    let sql = match name {
        "pg_type" => Some(types()),
        "pg_database" => Some(databases(session)),
        "pg_settings" => Some(settings(session)),
        "vamos_system_relation" => Some(system_relations()),
        _ => body(name).map(|sql| macros::expanded(sql, session)),
    };
    let mut given = BTreeSet::new();
    if let Some(sql) = &sql {
        let mut after_as = false;
        for token in Lexer::new(sql).filter_map(Result::ok).filter(|token| !token.is_blank()) {
            let word = token.of(sql);
            if token.kind == Kind::Word && after_as {
                given.insert(word.to_owned());
            } else if token.kind == Kind::Word
                && (word.starts_with("vamos_") || word.starts_with("pg_"))
                && (word == "vamos_system_relation" || body(word).is_some())
            {
                add(word, session, done, ctes);
            }
            after_as = token.is_word(sql, "as");
        }
    }
    let text = match (relation(name), sql) {
        (None, Some(sql)) => sql,
        (Some(relation), sql) => typed(relation, sql.as_deref(), &given),
        (None, None) => return,
    };
    ctes.push(format!("{} AS ({})", cte_name(name), text.trim()));
}

/// All of a relation's columns with the affinity their type has: clients compare OIDs with strings.
fn typed(relation: &Relation, sql: Option<&str>, given: &BTreeSet<String>) -> String {
    let columns: Vec<String> = relation
        .columns
        .iter()
        .map(|&(column, kind)| {
            let name = quote_name(column);
            let value = if given.contains(column) { name.as_str() } else { "NULL" };
            format!("CAST({value} AS {}) AS {name}", affinity(kind))
        })
        .collect();
    let source = sql.map_or("WHERE 0".to_owned(), |sql| format!("FROM ({sql})"));
    format!("SELECT {} {source}", columns.join(", "))
}

fn affinity(kind: PgType) -> &'static str {
    match kind {
        PgType::Bool | PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Oid => "INTEGER",
        PgType::Float4 | PgType::Float8 => "REAL",
        _ => "TEXT",
    }
}

fn system_relations() -> String {
    let tables = SYSTEM_RELATIONS.iter().map(|(oid, name)| format!("({oid}, '{name}', 'r')"));
    let views = ["pg_indexes", "pg_roles", "pg_settings", "pg_tables", "pg_user", "pg_views"];
    let views = views.iter().zip(12_000..).map(|(name, oid)| format!("({oid}, '{name}', 'v')"));
    let rows: Vec<String> = tables.chain(views).collect();
    format!("SELECT column1 AS oid, column2 AS name, column3 AS kind FROM (VALUES {})", rows.join(", "))
}

fn types() -> String {
    let rows: Vec<String> = PgType::ALL
        .into_iter()
        .map(|known| {
            let element = PgType::ALL.into_iter().find(|element| element.array() == Some(known));
            format!(
                "({}, {}, {}, '{}', {}, {})",
                known.oid(),
                quote(known.catalog_name()),
                known.length(),
                known.category(),
                element.map_or(0, PgType::oid),
                known.array().map_or(0, PgType::oid)
            )
        })
        .collect();
    format!(
        "SELECT column1 AS oid, column2 AS typname, 11 AS typnamespace, 10 AS typowner, column3 AS typlen, \
         column3 IN (1, 2, 4, 8) AS typbyval, 'b' AS typtype, column4 AS typcategory, 0 AS typispreferred, \
         1 AS typisdefined, ',' AS typdelim, 0 AS typrelid, column5 AS typelem, column6 AS typarray, \
         'i' AS typalign, 'p' AS typstorage, 0 AS typnotnull, 0 AS typbasetype, -1 AS typtypmod, 0 AS typndims, \
         '-' AS typsubscript, column2 || 'in' AS typinput, column2 || 'out' AS typoutput, \
         column2 || 'recv' AS typreceive, column2 || 'send' AS typsend, '-' AS typmodin, '-' AS typmodout, \
         '-' AS typanalyze, CASE WHEN column4 = 'S' THEN 100 ELSE 0 END AS typcollation FROM (VALUES {})",
        rows.join(", ")
    )
}

fn databases(session: &SessionView<'_>) -> String {
    let mut names: Vec<&str> = session.databases.to_vec();
    if !names.contains(&session.database) {
        names.push(session.database);
    }
    let rows: Vec<String> =
        names.iter().zip(16_384u32..).map(|(name, oid)| format!("({oid}, {})", quote(name))).collect();
    format!(
        "SELECT column1 AS oid, column2 AS datname, 10 AS datdba, 6 AS encoding, 'c' AS datlocprovider, \
         0 AS datistemplate, 1 AS datallowconn, -1 AS datconnlimit, 0 AS datfrozenxid, 0 AS datminmxid, \
         1663 AS dattablespace, 'C' AS datcollate, 'C' AS datctype FROM (VALUES {})",
        rows.join(", ")
    )
}

fn settings(session: &SessionView<'_>) -> String {
    let rows: Vec<String> = session
        .settings
        .all()
        .into_iter()
        .map(|(name, value, about)| format!("({}, {}, {})", quote(&name), quote(&value), quote(about)))
        .collect();
    format!(
        "SELECT column1 AS name, column2 AS setting, column3 AS short_desc, 'user' AS context, 'string' AS vartype, \
         'default' AS source, column2 AS boot_val, column2 AS reset_val, 0 AS pending_restart FROM (VALUES {})",
        rows.join(", ")
    )
}
