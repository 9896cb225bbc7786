//! What is sound is served: by us, after a kill, after VACUUM, and by any other SQLite.

use std::fs;

use rusqlite::{Connection, OpenFlags};
use vamos_sql_checksum::{RESERVED_BYTES, is_prepared, prepare};

use crate::support::{PAGE, check, copy, fill, found, log, open, open_plainly, read_all, rows};

/// Spills into the log before it commits, writes over what it has spilled, and takes a part of it back.
const LARGE: &str = "PRAGMA cache_size = 5; BEGIN;
    UPDATE t SET b = b || 'x'; UPDATE t SET b = b || 'y'; SAVEPOINT s; DELETE FROM t WHERE a % 2; ROLLBACK TO s;
    UPDATE t SET b = b || 'z' WHERE a % 3 = 0; DELETE FROM t WHERE a % 5 = 0; COMMIT";

#[test]
fn the_log_is_whole_to_recovery_and_to_any_other_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    fill(&path);
    let db = open(&path);
    db.execute_batch(LARGE).unwrap();
    db.execute_batch("INSERT INTO t (b) VALUES ('last')").unwrap();
    let sum = "SELECT group_concat(a || b) FROM (SELECT * FROM t ORDER BY a)";
    let content = |db: &Connection| db.query_row(sum, [], |row| row.get::<_, String>(0)).unwrap();
    for other in [open, open_plainly] {
        let left = directory.path().join("left.db");
        copy(&path, &left);
        let found = other(&left);
        assert_eq!(content(&found), content(&db));
        check(&found);
        // Copies the log into the database, and removes it.
        drop(found);
        assert!(!log(&left).exists());
        read_all(&left).unwrap();
    }
}

#[test]
fn checkpoints_and_logs_that_begin_anew_go_round() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    fill(&path);
    let (writing, reading) = (open(&path), open(&path));
    for round in 0..20 {
        writing
            .execute_batch(&format!("UPDATE t SET b = b || {round}; INSERT INTO t (b) VALUES ('n')"))
            .unwrap();
        if round % 3 == 0 {
            writing.execute_batch("PRAGMA wal_checkpoint(RESTART)").unwrap();
        }
        check(&reading);
        assert_eq!(rows(&reading), 2_001 + round);
        read_all(&path).unwrap();
    }
    writing.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    read_all(&path).unwrap();
}

#[test]
fn vacuum_keeps_checksums() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    fill(&path);
    let db = open(&path);
    db.execute_batch(
        "PRAGMA cache_size = 5; DELETE FROM t WHERE a > 100; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)",
    )
    .unwrap();
    drop(db);
    assert_eq!(usize::from(fs::read(&path).unwrap()[20]), RESERVED_BYTES);
    assert!(fs::metadata(&path).unwrap().len() < 40 * PAGE as u64);
    read_all(&path).unwrap();
}

#[test]
fn a_database_without_checksums_stays_one() {
    let directory = tempfile::tempdir().unwrap();
    for reserved in [0, 8] {
        let path = directory.path().join(format!("{reserved}.db"));
        let plain = open_plainly(&path);
        plain
            .execute_batch(
                "CREATE TABLE t (a INTEGER PRIMARY KEY, b);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                 INSERT INTO t SELECT i, printf('%064d', i) FROM n",
            )
            .unwrap();
        drop(plain);
        if reserved > 0 {
            reserve_by_hand(&path, reserved);
        }
        let db = open(&path);
        assert!(!is_prepared(&db).unwrap());
        db.execute_batch(LARGE).unwrap();
        check(&db);
        db.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        drop(db);
        read_all(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap()[20], reserved);
        assert_eq!(rows(&open_plainly(&path)), 1_600);
        check(&open_plainly(&path));
    }
}

/// An empty database that reserves other bytes than ours, with a table in its second page.
fn reserve_by_hand(path: &std::path::Path, reserved: u8) {
    let db = open_plainly(path);
    let texts: Vec<String> = (1..=2_000).map(|i| format!("{i:064}")).collect();
    drop(db);
    fs::remove_file(path).unwrap();
    open_plainly(path).execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b)").unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[20] = reserved;
    // What stands at the end of the first page moves: it is the table's definition.
    let (first, second) = bytes.split_at_mut(PAGE);
    let start = usize::from(u16::from_be_bytes([first[105], first[106]]));
    first.copy_within(start.., start - usize::from(reserved));
    let moved = |at: u16| at - u16::from(reserved);
    let start = moved(start as u16).to_be_bytes();
    first[105..107].copy_from_slice(&start);
    first[108..110].copy_from_slice(&start);
    second[5..7].copy_from_slice(&moved(PAGE as u16).to_be_bytes());
    fs::write(path, bytes).unwrap();
    let db = open_plainly(path);
    for text in texts {
        db.execute("INSERT INTO t (b) VALUES (?1)", [text]).unwrap();
    }
    check(&db);
}

/// Without a log there are pages that nobody ever wrote, which need not be told what they hold. With one there are none:
/// else what a disk lost could not be told from them.
#[test]
fn only_without_a_log_are_there_pages_that_nobody_wrote() {
    let directory = tempfile::tempdir().unwrap();
    for journal in ["DELETE", "WAL"] {
        let path = directory.path().join(format!("{journal}.db"));
        let db = vamos_sql_checksum::open(&path, OpenFlags::default()).unwrap();
        prepare(&db).unwrap();
        db.execute_batch(&format!("PRAGMA journal_mode = {journal}; PRAGMA synchronous = OFF")).unwrap();
        // Pages that are taken and given back in one transaction, before others.
        db.execute_batch(
            "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); BEGIN;
             CREATE TABLE u (x); INSERT INTO u VALUES (zeroblob(200000));
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             INSERT INTO t SELECT i, printf('%064d', i) FROM n;
             DELETE FROM u WHERE rowid = 1; COMMIT; PRAGMA wal_checkpoint(TRUNCATE)",
        )
        .unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let has_unwritten = bytes.chunks(PAGE).any(|page| page.iter().all(|byte| *byte == 0));
        assert_eq!(has_unwritten, journal == "DELETE");
        read_all(&path).unwrap();
        db.execute_batch("CREATE TABLE v (x); INSERT INTO v VALUES (hex(zeroblob(100000)))").unwrap();
        check(&db);
        drop(db);
        read_all(&path).unwrap();
        bytes[PAGE + 3_000] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(found(&path).page, 2);
    }
}

/// The last sector of a page in the log was not written before the power was cut, and what it was to hold was zero but for
/// the checksum: SQLite's recovery takes the frame for whole, and so it is.
#[test]
fn a_page_of_the_log_that_lost_nothing_but_its_checksum_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    fill(&path);
    let db = open(&path);
    db.execute_batch("CREATE TABLE u (x)").unwrap();
    let left = directory.path().join("left.db");
    copy(&path, &left);
    let mut bytes = fs::read(log(&left)).unwrap();
    let mut torn = 0;
    for page in bytes[32..].chunks_mut(24 + PAGE).map(|frame| &mut frame[24..]) {
        if page[8..PAGE - RESERVED_BYTES].iter().all(|byte| *byte == 0) {
            page[PAGE - RESERVED_BYTES..].fill(0);
            torn += 1;
        }
    }
    assert_eq!(torn, 1, "the root of the empty table");
    fs::write(log(&left), bytes).unwrap();
    let db = open(&left);
    assert_eq!(db.query_row("SELECT count(*) FROM u", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    check(&db);
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(db);
    read_all(&left).unwrap();
}
