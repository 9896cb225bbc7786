//! The catalogue as clients ask for it, answered by a real SQLite.

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

/// The number that stands for `book` in the files.
fn told(query: &str) -> String {
    query.replace("16385", "16387")
}

#[test]
fn everything_psql_asks_is_answered() {
    let connection = database();
    for (_, query) in queries(PSQL) {
        ask(&connection, &told(query));
    }
}

#[test]
fn everything_sqlalchemy_asks_is_answered() {
    let connection = database();
    for (_, query) in queries(SQLALCHEMY) {
        let highest = (1..40).rev().find(|number| query.contains(&format!("${number}"))).unwrap_or(0);
        ask_with(&connection, &told(query), &vec!["1"; highest]);
    }
}

/// What the first of psql's queries for a command is answered, or that of its queries that has a text in it.
fn psql(connection: &Connection, command: &str, with: &str) -> Vec<String> {
    let found = queries(PSQL).into_iter().find(|(asked, query)| *asked == command && query.contains(with));
    let (_, query) = found.unwrap_or_else(|| panic!("{command} asks nothing with {with}"));
    lines(connection, &told(query))
}

#[test]
fn psql_lists() {
    let connection = database();
    let all = [
        "public|Odd Name|table|me",
        "public|author|table|me",
        "public|book|table|me",
        "public|cheap|view|me",
        "public|edition|table|me",
    ];
    assert_eq!(psql(&connection, "\\d", ""), all);
    assert_eq!(psql(&connection, "\\dt b*", ""), ["public|book|table|me"]);
    assert_eq!(psql(&connection, "\\dv", ""), ["public|cheap|view|me"]);
    assert_eq!(
        psql(&connection, "\\di", ""),
        [
            "public|Odd Name_pkey|index|me|Odd Name",
            "public|author_name_key|index|me|author",
            "public|author_pkey|index|me|author",
            "public|book_author_id_title_key|index|me|book",
            "public|book_lower|index|me|book",
            "public|book_pkey|index|me|book",
            "public|book_title|index|me|book",
            "public|edition_pkey|index|me|edition",
        ]
    );
    assert_eq!(psql(&connection, "\\l", ""), ["catalog|me|UTF8|C|C||libc|", "other|me|UTF8|C|C||libc|"]);
    assert_eq!(psql(&connection, "\\dn", ""), ["public|me"]);
    assert_eq!(psql(&connection, "\\du", ""), ["me|f|t|f|f|t|-1||{}|f|f"]);
    for nothing in ["\\df", "\\dx", "\\ds", "\\dT", "\\dm"] {
        assert!(psql(&connection, nothing, "").is_empty(), "{nothing}");
    }
}

#[test]
fn psql_describes_a_table() {
    let connection = database();
    let book = |with: &str| psql(&connection, "\\d book", with);
    assert_eq!(book("OPERATOR(pg_catalog.~)"), ["16387|public|book"]);
    assert_eq!(book("c.relchecks"), ["0|r|t|f|t|f|f|f|f||0||p|d|heap"]);
    assert_eq!(
        book("format_type"),
        [
            "id|bigint||t|||",
            "title|character varying(80)|'untitled'|t|||",
            "author_id|bigint||f|||",
            "price|numeric(10,2)||f|||",
            "cover|bytea||f|||",
            "in_print|boolean||f|||",
        ]
    );
    assert_eq!(
        book("pg_get_indexdef"),
        [
            "book_pkey|t|t|f|t|CREATE UNIQUE INDEX book_pkey ON public.book USING btree (id)|PRIMARY KEY (id)|p|f|f|f|0",
            "book_author_id_title_key|f|t|f|t|CREATE UNIQUE INDEX book_author_id_title_key ON public.book USING btree \
             (author_id, title)|UNIQUE (author_id, title)|u|f|f|f|0",
            "book_lower|f|f|f|t|CREATE INDEX book_lower ON public.book USING btree (lower(title))|||||f|0",
            "book_title|f|f|f|t|CREATE INDEX book_title ON public.book USING btree (title DESC) WHERE price > 1|||||f|0",
        ]
    );
    assert_eq!(
        book("sametable"),
        ["t|book_author_id_fkey|FOREIGN KEY (author_id) REFERENCES author(id) ON DELETE CASCADE|book"]
    );
    assert_eq!(
        book("pg_partition_ancestors('"),
        ["edition_book_id_fkey|edition|FOREIGN KEY (book_id) REFERENCES book(id)"]
    );
    assert_eq!(
        book("pg_get_triggerdef"),
        ["book_check|CREATE TRIGGER book_check AFTER INSERT ON book BEGIN SELECT 1; END|O|f|"]
    );
    for nothing in ["pg_policy", "pg_statistic_ext", "pg_publication", "inhseqno", "inhdetachpending"] {
        assert!(book(nothing).is_empty(), "{nothing}");
    }
}

#[test]
fn catalog_columns_have_their_types() {
    let connection = database();
    let rows = ask(
        &connection,
        "SELECT oid, relname, relkind, relhasindex, relnatts + 1, relname = 'book' AS is_book FROM pg_class",
    );
    let columns: Vec<(&str, PgType)> =
        rows.columns.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
    assert_eq!(
        columns,
        [
            ("oid", PgType::Oid),
            ("relname", PgType::Name),
            ("relkind", PgType::Char),
            ("relhasindex", PgType::Bool),
            ("?column?", PgType::Int4),
            ("is_book", PgType::Bool),
        ]
    );
    assert_eq!(ask(&connection, "SELECT * FROM pg_catalog.pg_namespace").columns.len(), 4);
}

#[test]
fn names_and_numbers_of_things() {
    let connection = database();
    for (query, expected) in [
        (
            "SELECT 'book'::regclass, 16387::regclass::text, 'int8'::regtype, 'book'::regclass::oid",
            "book|book|bigint|16387",
        ),
        ("SELECT to_regclass('public.\"Odd Name\"')", "\"Odd Name\""),
        ("SELECT oid::regclass FROM pg_class WHERE relname = 'book'", "book"),
        ("SELECT pg_get_viewdef('cheap'::regclass)", "SELECT id, title FROM book WHERE price < 10;"),
        (
            "SELECT current_setting('server_version_num'), pg_catalog.version() LIKE 'PostgreSQL 15%'",
            "150008|t",
        ),
        ("SELECT typname, typarray FROM pg_type WHERE oid = 25", "text|1009"),
        ("SELECT count(*) FROM pg_proc", "0"),
        (
            "SELECT attidentity, attnotnull FROM pg_attribute WHERE attrelid = 'author'::regclass AND attname = 'id'",
            "d|t",
        ),
        (
            "SELECT array_agg(indisunique ORDER BY indexrelid) FROM pg_index WHERE indrelid = 'book'::regclass",
            "{t,f,f,t}",
        ),
        ("SELECT indisprimary = 't' FROM pg_index WHERE indexrelid = 'book_pkey'::regclass", "t"),
        ("SELECT setting FROM pg_settings WHERE name = 'server_version'", "15.8 (VAMOS)"),
        ("SELECT relname FROM pg_class WHERE relname LIKE 'CHEAP'", ""),
        ("SELECT relname FROM pg_class WHERE relname ILIKE 'CHEAP'", "cheap"),
        ("SELECT 1 FROM pg_class WHERE oid = ANY ('{16387,1}')", "1"),
        ("SELECT relname FROM pg_class ORDER BY relname DESC OFFSET 1 FETCH FIRST 0 ROWS ONLY", ""),
        (
            "SELECT column_name, data_type, is_nullable, character_maximum_length FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 'book' AND ordinal_position = 2",
            "title|character varying|NO|80",
        ),
        (
            "SELECT table_name FROM information_schema.tables WHERE table_type = 'VIEW' AND table_schema = 'public'",
            "cheap",
        ),
        (
            "SELECT string_agg(column_name, ',' ORDER BY ordinal_position) FROM information_schema.key_column_usage WHERE constraint_name = 'edition_pkey'",
            "book_id,number",
        ),
        (
            "SELECT c.conname, array(SELECT attname FROM unnest(c.conkey) WITH ORDINALITY cols(colid, arridx) JOIN pg_attribute AS ca ON cols.colid = ca.attnum WHERE ca.attrelid = c.conrelid ORDER BY cols.arridx), c.conkey[1] FROM pg_constraint c WHERE conname = 'Odd Name_pkey'",
            "Odd Name_pkey|{k,\"a b\"}|2",
        ),
    ] {
        let lines = lines(&connection, query);
        assert_eq!(lines.join("/"), expected, "{query}");
    }
}

#[test]
fn numbers_stay_while_the_schema_does() {
    let connection = database();
    let query = "SELECT oid, relname FROM pg_class ORDER BY 1";
    let before = lines(&connection, query);
    connection
        .execute_batch("INSERT INTO author(name) VALUES ('a'); ANALYZE; CREATE TABLE later (x)")
        .expect("changes");
    let after = lines(&connection, query);
    assert!(before.iter().all(|line| after.contains(line)));
    let distinct = lines(&connection, "SELECT count(*) = count(DISTINCT oid) FROM pg_class");
    assert_eq!(distinct, ["t"]);
}

#[test]
fn declared_types_are_read_alike_here_and_in_sql() {
    let declared = [
        "INTEGER",
        "int",
        "smallint",
        "varchar(20)",
        "character varying(3)",
        "NATIVE CHARACTER(70)",
        "numeric(10, 2)",
        "real",
        "timestamp with time zone(3)",
        "timestamptz",
        "timestamp",
        "datetime",
        "date",
        "boolean",
        "BLOB",
        "bytea",
        "STRING",
        "json",
        "double precision",
        "text",
    ];
    let connection = Connection::open_in_memory().expect("a database");
    let columns: Vec<String> =
        declared.iter().enumerate().map(|(at, declared)| format!("c{at} {declared}")).collect();
    connection.execute_batch(&format!("CREATE TABLE t ({})", columns.join(", "))).expect("a table");
    let found = lines(
        &connection,
        "SELECT atttypid FROM pg_attribute WHERE attrelid = 't'::regclass ORDER BY attnum",
    );
    let expected = declared
        .iter()
        .map(|declared| PgType::of_declared(declared).unwrap_or(PgType::Text).oid().to_string());
    assert_eq!(found, expected.collect::<Vec<_>>());
}

#[test]
fn platform_tables_are_not_shown() {
    let connection = database();
    assert!(lines(&connection, "SELECT relname FROM pg_class WHERE relname LIKE '%vamos%'").is_empty());
}

#[test]
fn what_cannot_be_said_is_refused_by_name() {
    for (query, named) in [
        ("SELECT pg_get_keywords()", "pg_get_keywords"),
        ("SELECT * FROM pg_catalog.pg_stat_activity", "pg_stat_activity"),
        ("SELECT relname FROM pg_class WHERE relname ~ '(a)+'", "regular expression"),
        ("SELECT relname FROM pg_class FOR UPDATE", "FOR UPDATE"),
        ("SELECT now() - interval '1 day' FROM pg_class", "INTERVAL"),
        ("SELECT relname::hstore FROM pg_class", "hstore"),
    ] {
        match translated(query) {
            Translated::Refused(refusal) => {
                assert_eq!(refusal.sqlstate, "0A000", "{query}");
                assert!(refusal.message.contains(named), "{query}: {}", refusal.message);
            }
            other => panic!("{query}: {other:?}"),
        }
    }
}
