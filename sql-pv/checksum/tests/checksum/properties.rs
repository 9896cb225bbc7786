//! Whatever is done to a database, it is with checksums what it is without.

use proptest::prelude::*;
use rusqlite::{Connection, OpenFlags};
use vamos_sql_checksum::prepare;

use crate::support::{check, copy, open_plainly, read_all};

fn statement() -> impl Strategy<Value = String> {
    let key = 0..300_u32;
    let bytes = prop_oneof![3 => 0..200_u32, 1 => 3_900..4_200_u32, 1 => 0..40_000_u32];
    prop_oneof![
        6 => (key.clone(), bytes.clone()).prop_map(|(k, n)| {
            format!("INSERT OR REPLACE INTO t VALUES ({k}, substr(hex(zeroblob({n})), 1, {n}) || {k})")
        }),
        2 => (key.clone(), 1..60_u32, bytes).prop_map(|(k, span, n)| {
            format!("UPDATE t SET b = substr(hex(zeroblob({n})), 1, {n}) WHERE a BETWEEN {k} AND {k} + {span}")
        }),
        2 => (key, 1..80_u32).prop_map(|(k, span)| format!("DELETE FROM t WHERE a BETWEEN {k} AND {k} + {span}")),
        1 => Just("BEGIN".to_owned()),
        1 => Just("COMMIT".to_owned()),
        1 => Just("ROLLBACK".to_owned()),
        1 => Just("SAVEPOINT s".to_owned()),
        1 => Just("ROLLBACK TO s".to_owned()),
        1 => Just("CREATE TABLE IF NOT EXISTS u AS SELECT * FROM t".to_owned()),
        1 => Just("DROP TABLE IF EXISTS u".to_owned()),
        1 => Just("CREATE INDEX IF NOT EXISTS i ON t (b)".to_owned()),
        1 => Just("DROP INDEX IF EXISTS i".to_owned()),
        1 => Just("VACUUM".to_owned()),
        2 => Just("PRAGMA wal_checkpoint(PASSIVE)".to_owned()),
        1 => Just("PRAGMA wal_checkpoint(TRUNCATE)".to_owned()),
        1 => Just("PRAGMA incremental_vacuum(3)".to_owned()),
    ]
}

fn settle(db: &Connection, journal: &str, vacuum: u8) {
    let settings = format!("PRAGMA page_size = 1024; PRAGMA auto_vacuum = {vacuum}");
    db.execute_batch(&settings).unwrap();
    prepare(db).unwrap();
    let settings = format!(
        "PRAGMA journal_mode = {journal}; PRAGMA synchronous = OFF; PRAGMA cache_size = 8;
         PRAGMA wal_autocheckpoint = 40; CREATE TABLE t (a INTEGER PRIMARY KEY, b)"
    );
    db.execute_batch(&settings).unwrap();
}

fn content(db: &Connection) -> Vec<(i64, String)> {
    let mut rows = db.prepare("SELECT a, b FROM t ORDER BY a").unwrap();
    rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

/// Whether it is done, or why not.
fn told(db: &Connection, statement: &str) -> Result<(), String> {
    db.execute_batch(statement).map_err(|error| error.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn with_checksums_all_is_as_without(
        statements in proptest::collection::vec(statement(), 1..60),
        journal in prop_oneof![3 => Just("WAL"), 1 => Just("DELETE"), 1 => Just("TRUNCATE")],
        vacuum in 0..3_u8,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        let db = vamos_sql_checksum::open(&path, OpenFlags::default()).unwrap();
        settle(&db, journal, vacuum);
        let plain = open_plainly(&directory.path().join("plain.db"));
        plain.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b); PRAGMA synchronous = OFF").unwrap();
        for statement in &statements {
            let outcome = told(&db, statement);
            if !statement.starts_with("PRAGMA") {
                prop_assert_eq!(outcome, told(&plain, statement), "{}", statement);
            }
        }
        prop_assert_eq!(content(&db), content(&plain));
        // As a kill leaves it, to us and to another.
        if journal == "WAL" && db.is_autocommit() {
            let left = directory.path().join("left.db");
            copy(&path, &left);
            let left = open_plainly(&left);
            prop_assert_eq!(content(&left), content(&db));
            check(&left);
        }
        let _ = told(&db, "ROLLBACK");
        let _ = told(&plain, "ROLLBACK");
        check(&db);
        prop_assert_eq!(content(&db), content(&plain));
        drop(db);
        read_all(&path).unwrap();
        let again = vamos_sql_checksum::open(&path, OpenFlags::default()).unwrap();
        prop_assert_eq!(content(&again), content(&plain));
        check(&again);
    }
}
