//! Whatever is said, in whatever order, is answered as a bare SQLite answers it.

mod support;

use proptest::prelude::*;
use support::{Host, Outcome};
use vamos_sql_protocol::Value;

/// One line of a script; every one means something to a table `t (a INTEGER PRIMARY KEY, b, c UNIQUE)`.
fn line() -> impl Strategy<Value = (String, Vec<Value>)> {
    let value = prop_oneof![
        Just(Value::Null),
        (-5i64..20).prop_map(Value::Integer),
        (-2.0f64..2.0).prop_map(Value::Real),
        "[a-c]{0,3}".prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..4).prop_map(Value::Blob),
    ];
    let one = |text: &'static str| value.clone().prop_map(move |v| (text.to_owned(), vec![v]));
    let two = |text: &'static str| {
        (value.clone(), value.clone()).prop_map(move |(v, w)| (text.to_owned(), vec![v, w]))
    };
    let none = |text: &'static str| Just((text.to_owned(), Vec::new()));
    prop_oneof![
        4 => two("INSERT INTO t (b, c) VALUES (?, ?)"),
        1 => two("INSERT OR IGNORE INTO t (b, c) VALUES (?, ?)"),
        1 => two("INSERT OR REPLACE INTO t (a, b) VALUES (abs(typeof(?) = 'integer'), ?)"),
        1 => two("INSERT OR ROLLBACK INTO t (b, c) VALUES (?, ?)"),
        1 => two("INSERT INTO t (b, c) VALUES (?, ?), (1, 'twice'), (2, 'twice')"),
        1 => two("INSERT OR FAIL INTO t (b, c) VALUES (?, 'x'), (?, 'x')"),
        1 => two("INSERT INTO t (b, c) VALUES (?, ?) RETURNING a, b, typeof(c)"),
        2 => two("UPDATE t SET b = ? WHERE b IS ?"),
        1 => one("UPDATE t SET c = ? WHERE a % 2"),
        1 => one("DELETE FROM t WHERE c = ?"),
        1 => one("SELECT a, b, c FROM t WHERE b > ? ORDER BY a"),
        2 => none("SELECT count(*), sum(a), max(c), group_concat(b, '/') FROM t"),
        1 => none("SELECT changes(), last_insert_rowid(), total_changes()"),
        1 => none("WITH x AS (SELECT max(a) AS m FROM t) DELETE FROM t WHERE a = (SELECT m FROM x)"),
        1 => none("SELECT a, row_number() OVER (ORDER BY b, a) FROM t ORDER BY 2"),
        2 => none("BEGIN"),
        1 => none("BEGIN IMMEDIATE"),
        2 => none("COMMIT"),
        1 => none("ROLLBACK"),
        1 => none("SAVEPOINT s"),
        1 => none("ROLLBACK TO s"),
        1 => none("RELEASE s"),
        1 => none("CREATE TABLE u (x)"),
        1 => none("INSERT INTO u SELECT b FROM t"),
        1 => none("SELECT * FROM u ORDER BY 1"),
        1 => none("DROP TABLE u"),
        1 => none("CREATE TEMP TABLE u (y)"),
        1 => none("CREATE INDEX i ON t (b)"),
        1 => none("DROP INDEX i"),
        1 => none("PRAGMA user_version = 5"),
        1 => none("PRAGMA user_version"),
        1 => none("SELEC"),
    ]
}

/// What a bare SQLite says: rows and changes, or its code.
fn native(db: &rusqlite::Connection, text: &str, values: &[Value]) -> Result<(Vec<Vec<Value>>, u64), ()> {
    let mut statement = db.prepare(text).map_err(drop)?;
    for (at, value) in values.iter().enumerate() {
        match value {
            Value::Null => statement.raw_bind_parameter(at + 1, rusqlite::types::Null),
            Value::Integer(i) => statement.raw_bind_parameter(at + 1, i),
            Value::Real(r) => statement.raw_bind_parameter(at + 1, r),
            Value::Text(t) => statement.raw_bind_parameter(at + 1, t),
            Value::Blob(b) => statement.raw_bind_parameter(at + 1, b),
        }
        .unwrap();
    }
    let columns = statement.column_count();
    let mut rows = statement.raw_query();
    let mut all = Vec::new();
    while let Some(row) = rows.next().map_err(drop)? {
        all.push((0..columns).map(|at| own(row.get_ref(at).unwrap())).collect());
    }
    drop(rows);
    let is_write = ["INSERT", "UPDATE", "DELETE", "WITH"].iter().any(|word| text.starts_with(word));
    Ok((all, if is_write { db.changes() } else { 0 }))
}

fn own(value: rusqlite::types::ValueRef<'_>) -> Value {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(i) => Value::Integer(i),
        ValueRef::Real(r) => Value::Real(r),
        ValueRef::Text(t) => Value::Text(String::from_utf8_lossy(t).into_owned()),
        ValueRef::Blob(b) => Value::Blob(b.to_vec()),
    }
}

fn told(outcome: Outcome) -> Result<(Vec<Vec<Value>>, u64), String> {
    outcome
        .map(|answer| (answer.rows, answer.changes))
        .map_err(|error| format!("{}: {}", error.sqlstate, error.message))
}

const SCHEMA: &str = "CREATE TABLE t (a INTEGER PRIMARY KEY, b, c UNIQUE)";

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn any_script_is_answered_as_sqlite_answers_it(script in proptest::collection::vec(line(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let db = rusqlite::Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA).unwrap();
        runtime.block_on(async {
            let host = Host::start();
            let mut client = host.session().await;
            client.run(SCHEMA).await;
            for (at, (text, values)) in script.iter().enumerate() {
                let was_open = !db.is_autocommit();
                let expected = native(&db, text, values);
                let given = told(client.try_with(1, text, values).await);
                match (&expected, &given) {
                    (Ok(expected), Ok(given)) => assert_eq!(expected, given, "line {at}: {text} {values:?}"),
                    (Err(()), Err(_)) => {}
                    _ => panic!("line {at}: {text} {values:?}: expected {expected:?}, given {given:?}"),
                }
                // SQLite goes on in autocommit mode after it rolled a transaction back by itself; here the
                // client has to take note of that first.
                let is_lost = was_open && db.is_autocommit() && expected.is_err();
                if is_lost {
                    client.run("ROLLBACK").await;
                }
            }
        });
    }
}
