//! Measures what checksums cost, beside the same SQLite without: `cargo run --release -p vamos-sql-checksum --example cost`.
//!
//! Files are in the system's page cache and nothing is synced, so that what is seen is the processor's time. The least of
//! several rounds that take turns.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use vamos_sql_checksum::{open, prepare};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 7;
const ROWS: u32 = 40_000;
const SELECTS: u32 = 100_000;

/// Times of one round.
#[derive(Clone, Copy)]
struct Round {
    insert: Duration,
    checkpoint: Duration,
    scan: Duration,
    select: Duration,
    scan_log: Duration,
    pages: u32,
}

fn connect(path: &Path, is_checked: bool) -> Outcome<Connection> {
    let db = if is_checked { open(path, OpenFlags::default())? } else { Connection::open(path)? };
    db.execute_batch("PRAGMA page_size = 4096")?;
    if is_checked {
        prepare(&db)?;
    }
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -1024",
    )?;
    Ok(db)
}

fn timed(work: impl FnOnce() -> Outcome<()>) -> Outcome<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

fn scan(path: &Path, is_checked: bool) -> Outcome<Duration> {
    let db = connect(path, is_checked)?;
    timed(|| Ok(db.query_row("SELECT sum(length(b)) FROM t", [], |_| Ok(()))?))
}

fn round(is_checked: bool) -> Outcome<Round> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("a.db");
    let db = connect(&path, is_checked)?;
    db.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")?;
    let insert = timed(|| {
        let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                    INSERT INTO t SELECT i, zeroblob(3000) FROM n";
        db.execute(fill, [ROWS])?;
        Ok(())
    })?;
    let scan_log = scan(&path, is_checked)?;
    let checkpoint = timed(|| Ok(db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?))?;
    let pages = db.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    drop(db);
    let scan = scan(&path, is_checked)?;
    let db = connect(&path, is_checked)?;
    let mut key = 1_u32;
    let mut point = db.prepare("SELECT length(b) FROM t WHERE a = ?1")?;
    let select = timed(|| {
        for _ in 0..SELECTS {
            key = key.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            point.query_row([(key >> 8) % ROWS + 1], |_| Ok(()))?;
        }
        Ok(())
    })?;
    Ok(Round { insert, checkpoint, scan, select, scan_log, pages })
}

fn main() -> Outcome<()> {
    let mut rounds: [Vec<Round>; 2] = Default::default();
    for _ in 0..ROUNDS {
        rounds[0].push(round(false)?);
        rounds[1].push(round(true)?);
    }
    let pages = rounds[0][0].pages;
    println!("{pages} pages of 4 KiB; ns without, with, more");
    let line = |what: &str, of: fn(&Round) -> Duration, times: u32| {
        let least = |rounds: &[Round]| rounds.iter().map(of).min().unwrap_or_default().as_nanos() as f64;
        let [without, with] = [&rounds[0], &rounds[1]].map(|rounds| least(rounds) / f64::from(times));
        println!(
            "{what:32} {without:8.0} {with:8.0} {:+8.0} {:+6.1} %",
            with - without,
            (with / without - 1.0) * 100.0
        );
    };
    line("insert, a page to the log", |round| round.insert, pages);
    line("checkpoint, a page", |round| round.checkpoint, pages);
    line("scan, a page of the database", |round| round.scan, pages);
    line("scan, a page of the log", |round| round.scan_log, pages);
    line("select of one row, cold", |round| round.select, SELECTS);
    Ok(())
}
