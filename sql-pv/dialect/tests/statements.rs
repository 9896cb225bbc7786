//! What statements of a session turn out to be.

use vamos_sql_dialect::postgres::{
    Action, Direction, Discard, Format, Header, Lock, PgType, Scope, SessionView, Settings, Subject,
    Transaction, Translated, translate,
};

fn translated(statement: &str) -> Translated {
    let settings = Settings::new("me", [("application_name", "test")]).expect("settings");
    let session = SessionView {
        database: "catalog",
        databases: &["catalog", "other"],
        user: "me",
        backend_pid: 7,
        settings: &settings,
    };
    translate(statement, &session)
}

fn rewritten(statement: &str) -> String {
    match translated(statement) {
        Translated::PassThrough => statement.to_owned(),
        Translated::Rewritten(rewritten) => rewritten.sql,
        other => panic!("{statement}: {other:?}"),
    }
}

fn refused(statement: &str) -> (&'static str, String) {
    match translated(statement) {
        Translated::Refused(refusal) => (refusal.sqlstate, refusal.message),
        other => panic!("{statement}: {other:?}"),
    }
}

#[test]
fn sqlites_own_sql_is_not_touched() {
    for statement in [
        "SELECT * FROM t WHERE a = 'it''s $1' AND [b c] = \"d\" -- $2",
        "INSERT INTO t VALUES (?1, :name, @other) ON CONFLICT DO NOTHING RETURNING *",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5) SELECT i FROM n",
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT CASE WHEN 1 THEN 2 END; END",
        "PRAGMA table_info(t)",
        "EXPLAIN QUERY PLAN SELECT 1",
        "CREATE UNIQUE INDEX i ON t(a COLLATE NOCASE) WHERE b IS NOT NULL",
        "nonsense that only the engine complains about",
        "",
    ] {
        assert_eq!(translated(statement), Translated::PassThrough, "{statement}");
    }
}

#[test]
fn parameters_keep_their_places() {
    let statement = "SELECT $1, '$1', \"$1\" /* $1 */ FROM t WHERE a = $12";
    assert_eq!(rewritten(statement), "SELECT ?1, '$1', \"$1\" /* $1 */ FROM t WHERE a = ?12");
    let Translated::Rewritten(rewritten) = translated(statement) else { panic!("rewritten") };
    for position in 0..statement.len() {
        assert_eq!(rewritten.positions.original(position), position);
    }
}

#[test]
fn postgres_strings_become_sqlites() {
    assert_eq!(rewritten(r"SELECT E'a\'b', $x$it's$x$"), "SELECT 'a''b', 'it''s'");
    assert_eq!(rewritten("SELECT /* a /* b */ c */ 1"), "SELECT   1");
    assert_eq!(refused("SELECT U&'\\0061'").0, "0A000");
    assert_eq!(refused("SELECT 'a").0, "42601");
    assert_eq!(refused("SELECT '\0'").0, "42601");
}

#[test]
fn transactions_in_both_spellings() {
    let begin = |lock, read_only, start| Transaction::Begin { lock, read_only, start };
    for (statement, expected, sql, tag) in [
        ("begin", begin(Lock::Deferred, false, false), "BEGIN", "BEGIN"),
        ("BEGIN IMMEDIATE TRANSACTION", begin(Lock::Immediate, false, false), "BEGIN IMMEDIATE", "BEGIN"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", begin(Lock::Deferred, false, false), "BEGIN", "BEGIN"),
        ("START TRANSACTION READ ONLY", begin(Lock::Deferred, true, true), "BEGIN", "START TRANSACTION"),
        (
            "begin transaction isolation level read committed, read write not deferrable",
            begin(Lock::Deferred, false, false),
            "BEGIN",
            "BEGIN",
        ),
        ("COMMIT", Transaction::Commit, "COMMIT", "COMMIT"),
        ("END TRANSACTION", Transaction::Commit, "COMMIT", "COMMIT"),
        ("commit work and no chain", Transaction::Commit, "COMMIT", "COMMIT"),
        ("ABORT", Transaction::Rollback, "ROLLBACK", "ROLLBACK"),
        ("ROLLBACK WORK", Transaction::Rollback, "ROLLBACK", "ROLLBACK"),
        ("SAVEPOINT A", Transaction::Savepoint("a".into()), "SAVEPOINT \"a\"", "SAVEPOINT"),
        ("RELEASE SAVEPOINT \"A\"", Transaction::Release("A".into()), "RELEASE SAVEPOINT \"A\"", "RELEASE"),
        (
            "ROLLBACK TRANSACTION TO a",
            Transaction::RollbackTo("a".into()),
            "ROLLBACK TO SAVEPOINT \"a\"",
            "ROLLBACK",
        ),
    ] {
        assert_eq!(translated(statement), Translated::Transaction(expected.clone()), "{statement}");
        assert_eq!((expected.sql().as_str(), expected.tag()), (sql, tag), "{statement}");
    }
    assert_eq!(refused("COMMIT AND CHAIN"), ("0A000", "COMMIT AND CHAIN is not supported".to_owned()));
    assert_eq!(refused("ROLLBACK PREPARED 'x'").0, "0A000");
    assert_eq!(refused("BEGIN ISOLATION LEVEL none").0, "42601");
    assert_eq!(refused("SAVEPOINT").0, "42601");
    assert_eq!(refused("START TRANSACTION READ ONLY,").0, "42601");
}

#[test]
fn settings_are_set_and_shown() {
    let set = |statement: &str| match translated(statement) {
        Translated::Set { change, .. } => (change.scope, change.action),
        other => panic!("{statement}: {other:?}"),
    };
    let to = |name: &str, value: &str| Action::Set { name: name.into(), value: value.into() };
    assert_eq!(set("SET extra_float_digits = -3"), (Scope::Session, to("extra_float_digits", "-3")));
    assert_eq!(set("SET LOCAL search_path TO a, \"B c\""), (Scope::Local, to("search_path", "a, \"B c\"")));
    assert_eq!(set("set session time zone 'UTC'"), (Scope::Session, to("timezone", "UTC")));
    assert_eq!(set("SET my.own = on"), (Scope::Session, to("my.own", "on")));
    assert_eq!(set("SET names 'UTF8'"), (Scope::Session, to("client_encoding", "UTF8")));
    assert_eq!(set("SET datestyle TO DEFAULT"), (Scope::Session, Action::Reset { name: "datestyle".into() }));
    assert_eq!(set("RESET ALL"), (Scope::Session, Action::ResetAll));
    assert_eq!(set("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"), (Scope::Session, Action::Nothing));
    assert_eq!(set("SELECT pg_catalog.set_config('search_path', '', false)").1, to("search_path", ""));
    assert_eq!(refused("SET x").0, "42601");
    assert_eq!(refused("SET ROLE admin").0, "0A000");
    assert_eq!(refused("SET CONSTRAINTS ALL DEFERRED").0, "0A000");

    let Translated::Answer(shown) = translated("SHOW transaction isolation level") else { panic!("answer") };
    assert_eq!(shown.columns, [("transaction_isolation".to_owned(), PgType::Text)]);
    assert_eq!(shown.rows, [[Some("serializable".to_owned())]]);
    let Translated::Answer(all) = translated("SHOW ALL") else { panic!("answer") };
    assert!(
        all.rows
            .iter()
            .any(|row| row[0].as_deref() == Some("application_name") && row[1].as_deref() == Some("test"))
    );
    assert_eq!(refused("SHOW nothing").0, "42704");
}

#[test]
fn copy_is_read() {
    let copy = |statement: &str| match translated(statement) {
        Translated::Copy(copy) => copy,
        other => panic!("{statement}: {other:?}"),
    };
    let plain = copy("COPY public.Packages (name, \"Size\") FROM STDIN");
    assert_eq!(
        plain.subject,
        Subject::Table { name: "packages".into(), columns: vec!["name".into(), "Size".into()] }
    );
    assert_eq!(
        (plain.direction, plain.options.format, plain.options.delimiter),
        (Direction::In, Format::Text, b'\t')
    );
    assert_eq!(plain.options.null, "\\N");
    assert_eq!(
        plain.insert_sql(2).as_deref(),
        Some("INSERT INTO main.\"packages\" (\"name\", \"Size\") VALUES (?1, ?2)")
    );
    assert_eq!(plain.select_sql(false), "SELECT \"name\", \"Size\" FROM main.\"packages\" LIMIT 0");
    let csv =
        copy("copy t from stdin with (format csv, header match, delimiter ';', null 'NULL', escape E'\\\\')");
    assert_eq!((csv.options.header, csv.options.delimiter, csv.options.escape), (Header::Match, b';', b'\\'));
    let old = copy("COPY t TO STDOUT WITH DELIMITER AS ',' NULL AS '' CSV HEADER QUOTE ''''");
    assert_eq!(
        (old.options.format, old.options.header, old.options.quote),
        (Format::Csv, Header::Present, b'\'')
    );
    let query = copy("COPY (SELECT (1), ')' FROM t) TO STDOUT");
    assert_eq!(query.subject, Subject::Query("SELECT (1), ')' FROM t".into()));
    for (statement, sqlstate) in [
        ("COPY t FROM '/etc/passwd'", "0A000"),
        ("COPY t TO PROGRAM 'sh'", "0A000"),
        ("COPY t FROM STDIN BINARY", "0A000"),
        ("COPY t FROM STDIN (FORMAT parquet)", "22023"),
        ("COPY t FROM STDIN (DELIMITER 'ab')", "0A000"),
        ("COPY t FROM STDIN (FORMAT csv, DELIMITER '\"')", "22023"),
        ("COPY t FROM STDIN (FORCE_NULL (a))", "0A000"),
        ("COPY other.t FROM STDIN", "3F000"),
        ("COPY (SELECT 1) FROM STDIN", "42601"),
        ("COPY t", "42601"),
        ("COPY (SELECT 1", "42601"),
    ] {
        assert_eq!(refused(statement).0, sqlstate, "{statement}");
    }
}

#[test]
fn what_has_no_counterpart_is_refused_by_name() {
    for (statement, message) in [
        ("CREATE EXTENSION hstore", "CREATE EXTENSION is not supported"),
        ("CREATE OR REPLACE FUNCTION f() RETURNS int AS $$ $$", "CREATE FUNCTION is not supported"),
        ("DROP SCHEMA s", "DROP SCHEMA is not supported"),
        ("ALTER ROLE me", "ALTER ROLE is not supported"),
        ("TRUNCATE t", "TRUNCATE is not supported"),
        ("LISTEN x", "LISTEN is not supported"),
        ("DO $$ $$", "DO is not supported"),
        ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN ANALYZE is not supported"),
    ] {
        assert_eq!(refused(statement), ("0A000", message.to_owned()));
    }
    assert_eq!(translated("UNLISTEN *"), Translated::Done("UNLISTEN"));
    assert_eq!(translated("DISCARD ALL"), Translated::Discard(Discard::All));
    assert_eq!(translated("DEALLOCATE ALL"), Translated::Deallocate(None));
    assert_eq!(translated("DEALLOCATE PREPARE P1"), Translated::Deallocate(Some("p1".into())));
    assert_eq!(translated("CLOSE ALL"), Translated::ClosePortal(None));
    assert_eq!(refused("DISCARD").0, "42601");
}
