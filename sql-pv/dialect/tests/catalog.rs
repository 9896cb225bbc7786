//! The catalogue as clients ask for it, answered by a real SQLite.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::types::Value;
use vamos_sql_dialect::postgres::{PgType, SessionView, Settings, Translated, split, translate};

const SCHEMA: &str = "
CREATE TABLE author (id INTEGER PRIMARY KEY, name text NOT NULL UNIQUE, born date);
CREATE TABLE book (id bigint PRIMARY KEY, title varchar(80) NOT NULL DEFAULT 'untitled',
  author_id bigint REFERENCES author(id) ON DELETE CASCADE, price numeric(10,2) CHECK (price > 0), cover bytea,
  in_print boolean, UNIQUE (author_id, title));
CREATE INDEX book_title ON book(title DESC) WHERE price > 1;
CREATE INDEX book_lower ON book(lower(title));
CREATE VIEW cheap AS SELECT id, title FROM book WHERE price < 10;
CREATE TRIGGER book_check AFTER INSERT ON book BEGIN SELECT 1; END;
CREATE TABLE \"Odd Name\" (\"a b\" INTEGER, k TEXT, PRIMARY KEY (k, \"a b\")) WITHOUT ROWID;
CREATE TABLE edition (book_id bigint, number int, PRIMARY KEY (book_id, number), FOREIGN KEY (book_id) REFERENCES book);
CREATE TABLE _vamos_completion (id INTEGER PRIMARY KEY);
";

struct Rows {
    columns: Vec<(String, PgType)>,
    rows: Vec<Vec<Value>>,
}

fn database() -> Connection {
    let connection = Connection::open_in_memory().expect("a database");
    connection.execute_batch(SCHEMA).expect("the schema");
    connection
}

fn translated(query: &str) -> Translated {
    let settings = Settings::new("me", []).expect("settings");
    let session = SessionView {
        database: "catalog",
        databases: &["catalog", "other"],
        user: "me",
        backend_pid: 7,
        settings: &settings,
    };
    translate(query, &session)
}

fn ask_with(connection: &Connection, query: &str, parameters: &[&str]) -> Rows {
    let catalog = match translated(query) {
        Translated::Catalog(catalog) => catalog,
        other => panic!("{query}\n{other:?}"),
    };
    let mut statement =
        connection.prepare(&catalog.sql).unwrap_or_else(|error| panic!("{query}\n{}\n{error}", catalog.sql));
    let width = statement.column_count();
    assert_eq!(width, catalog.columns.len(), "{query}\n{:?}", catalog.columns);
    let rows = statement
        .query_map(rusqlite::params_from_iter(parameters), |row| {
            (0..width).map(|column| row.get(column)).collect()
        })
        .and_then(Iterator::collect)
        .unwrap_or_else(|error| panic!("{query}\n{}\n{error}", catalog.sql));
    Rows { columns: catalog.columns, rows }
}

fn ask(connection: &Connection, query: &str) -> Rows {
    ask_with(connection, query, &[])
}

/// Rows as psql prints them unaligned.
fn printed(rows: &Rows) -> Vec<String> {
    let value = |(value, column): (&Value, &(String, PgType))| match value {
        Value::Null => String::new(),
        Value::Integer(number) if column.1 == PgType::Bool => if *number == 0 { "f" } else { "t" }.to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(_) => "blob".to_owned(),
    };
    rows.rows
        .iter()
        .map(|row| row.iter().zip(&rows.columns).map(value).collect::<Vec<_>>().join("|"))
        .collect()
}

fn lines(connection: &Connection, query: &str) -> Vec<String> {
    printed(&ask(connection, query))
}

/// The queries of a file: the comment before each names the command that asks it.
fn queries(file: &'static str) -> Vec<(&'static str, &'static str)> {
    let spans = split(file).expect("splits");
    let named = |span: vamos_sql_dialect::postgres::Span| {
        let before = file[..span.start].trim_end().lines().last().unwrap_or_default();
        (before.trim_start_matches("-- "), span.of(file))
    };
    spans.into_iter().map(named).collect()
}

const PSQL: &str = include_str!("queries/psql-15.sql");
const SQLALCHEMY: &str = include_str!("queries/sqlalchemy-2.sql");

#[test]
fn everything_psql_asks_runs() {
    let connection = database();
    let mut refused = BTreeMap::new();
    for (command, query) in queries(PSQL) {
        match translated(query) {
            Translated::Refused(refusal) => drop(refused.insert(command, refusal.message)),
            _ => drop(ask(&connection, query)),
        }
    }
    eprintln!("{refused:#?}");
}

#[test]
fn everything_sqlalchemy_asks_runs() {
    let connection = database();
    for (_, query) in queries(SQLALCHEMY) {
        let highest = (1..40).rev().find(|number| query.contains(&format!("${number}"))).unwrap_or(0);
        ask_with(&connection, query, &vec!["1"; highest]);
    }
}

#[test]
fn scratch() {
    let connection = database();
    for (command, query) in queries(PSQL) {
        let query = query.replace("16385", "16387");
        if let Translated::Catalog(c) = translated(&query) {
            eprintln!("== {command}: {:?}", c.columns);
            for line in lines(&connection, &query) {
                eprintln!("   {line}");
            }
        }
    }
    for q in [
        "select * from information_schema.columns where table_name='book'",
        "select oid, relname, relkind from pg_class where relnamespace=2200",
        "select * from information_schema.key_column_usage",
        "select * from information_schema.table_constraints",
        "select constraint_name, table_name, column_name from information_schema.constraint_column_usage",
        "select indexdef from pg_indexes",
        "select conname, pg_get_constraintdef(oid) from pg_constraint",
        "select attname, format_type(atttypid, atttypmod), attidentity, attnotnull from pg_attribute where attrelid = 'book'::regclass",
        "select 'book'::regclass, 16387::regclass::text, 'int8'::regtype",
        "select c.conname, array(select attname from unnest(c.conkey) with ordinality cols(colid, arridx) join pg_attribute as ca on cols.colid = ca.attnum where ca.attrelid = c.conrelid order by cols.arridx), c.conkey[1] from pg_constraint c",
    ] {
        eprintln!("== {q}");
        for line in lines(&connection, q) {
            eprintln!("   {line}");
        }
    }
    for (c, query) in queries(SQLALCHEMY) {
        let query = query.replace("16385", "16387");
        if c == "psycopg 2" {
            eprintln!("== {}", query.chars().take(60).collect::<String>());
            for line in lines(&connection, &query) {
                eprintln!("   {line}");
            }
        }
    }
}
