//! THREATS 68: a page that is not what was written, also where SQLite itself would see nothing wrong with it.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use support::{Client, Host, int};
use vamos_sql_server::{SqlConfig, SqlService};
use vamos_sqlite::{SnapshotError, SqliteConfig, SqliteEngine, snapshot};

const PAGE: usize = 4_096;
const ROW: &str = "SELECT b FROM t WHERE a = 1234";

fn serve(volume: tempfile::TempDir) -> Host {
    let engine = SqliteEngine::open(volume.path(), "catalog", SqliteConfig::default()).unwrap();
    Host { service: Arc::new(SqlService::new(engine, SqlConfig::default())), volume }
}

/// A volume whose database is all in its file.
async fn filled() -> tempfile::TempDir {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)").await;
    client.run("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO t SELECT i, printf('%064d', i) FROM n").await;
    client.run("CREATE TABLE long (x)").await;
    client.run("INSERT INTO long VALUES (printf('%.*c', 60000, 'v'))").await;
    client.run("CREATE TABLE small (x)").await;
    client.end().await.unwrap();
    let Host { service, volume } = host;
    drop(service);
    let path = volume.path().join("catalog.db");
    rusqlite::Connection::open(path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    volume
}

/// Flips one bit; tells the page.
fn flip(file: &Path, at: usize) -> String {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
    format!("page {} is not what was written", at / PAGE + 1)
}

fn place(file: &Path, of: &[u8]) -> usize {
    fs::read(file).unwrap().windows(of.len()).position(|window| window == of).unwrap()
}

async fn refused(client: &mut Client, text: &str, page: &str) {
    let error = client.try_run(text).await.expect_err("it was served");
    assert_eq!(error.sqlstate, "XX001", "{error:?}");
    assert!(error.message.contains("the database catalog is damaged"), "{error:?}");
    assert!(error.message.contains(page), "{page}: {error:?}");
}

#[tokio::test]
async fn k68_a_bit_that_flipped_in_a_row_is_named_and_nothing_of_its_database_is_served() {
    let volume = filled().await;
    let file = volume.path().join("catalog.db");
    let page = flip(&file, place(&file, format!("{:064}", 1_234).as_bytes()) + 40);
    let other = SqliteEngine::open(volume.path(), "ledger", SqliteConfig::default()).unwrap();
    let other = Arc::new(SqlService::new(
        other,
        SqlConfig { database: "catalog".to_owned(), ..SqlConfig::default() },
    ));
    let host = serve(volume);
    let mut client = host.session().await;
    // What no statement has come upon is not known.
    assert_eq!(client.rows("SELECT count(*) FROM small").await, [[int(0)]]);
    refused(&mut client, ROW, &page).await;
    for text in ["SELECT 1", "SELECT count(*) FROM small", "INSERT INTO small VALUES (1)", "BEGIN", "VACUUM"]
    {
        refused(&mut client, text, &page).await;
    }
    refused(&mut host.session().await, "SELECT count(*) FROM small", &page).await;
    let beside = Host { service: other, volume: tempfile::tempdir().unwrap() };
    let mut client = beside.session().await;
    client.run("CREATE TABLE t (a)").await;
    client.run("INSERT INTO t VALUES (1)").await;
    assert_eq!(client.rows("SELECT a FROM t").await, [[int(1)]]);
}

#[tokio::test]
async fn k68_a_bit_that_flipped_in_the_midst_of_a_long_value_is_named() {
    let volume = filled().await;
    let file = volume.path().join("catalog.db");
    let page = flip(&file, place(&file, &[b'v'; 4_000]) + 2_000);
    let host = serve(volume);
    refused(&mut host.session().await, "SELECT x FROM long", &page).await;
}

/// A writer that comes upon it commits nothing, and the process goes on: it knows what is on the disk.
#[tokio::test]
async fn k68_a_write_that_needs_a_damaged_page_is_refused() {
    let volume = filled().await;
    let file = volume.path().join("catalog.db");
    let page = flip(&file, place(&file, format!("{:064}", 1_234).as_bytes()) + 40);
    let host = serve(volume);
    refused(&mut host.session().await, "UPDATE t SET b = 'new' WHERE a = 1234", &page).await;
}

#[tokio::test]
async fn k68_a_database_whose_first_page_is_damaged_is_opened_and_refuses_by_name() {
    for at in [20, 16, 17, 60, 3_000] {
        let volume = filled().await;
        let file = volume.path().join("catalog.db");
        let page = flip(&file, at);
        let host = serve(volume);
        let mut client = host.session().await;
        for text in ["SELECT 1", "INSERT INTO small VALUES (1)", "BEGIN"] {
            refused(&mut client, text, &page).await;
        }
    }
}

/// Nor is damage in the log copied into the database: the checkpoint that finds it is the last.
#[tokio::test]
async fn k68_damage_in_the_log_is_not_made_the_databases_own() {
    let host = serve(filled().await);
    let mut client = host.session().await;
    client.run("INSERT INTO small VALUES ('a value of its own')").await;
    let log = host.volume.path().join("catalog.db-wal");
    flip(&log, place(&log, b"a value of its own"));
    let end = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        match client.try_run("INSERT INTO long VALUES (zeroblob(200000))").await {
            Ok(_) => assert!(std::time::Instant::now() < end, "no checkpoint came upon it"),
            Err(error) => {
                assert_eq!(error.sqlstate, "XX001", "{error:?}");
                assert!(
                    error.message.contains("in the write-ahead log is not what was written"),
                    "{error:?}"
                );
                return;
            }
        }
    }
}

#[tokio::test]
async fn of_a_damaged_database_there_is_no_snapshot_and_of_a_sound_one_it_has_checksums() {
    let volume = filled().await;
    let file = volume.path().join("catalog.db");
    let copy = volume.path().join("copy.db");
    let engine = SqliteEngine::open(volume.path(), "catalog", SqliteConfig::default()).unwrap();
    let host = Host { service: Arc::new(SqlService::new(engine, SqlConfig::default())), volume };
    // A part of it is in the log.
    host.session().await.run("UPDATE t SET b = 'new' WHERE a % 2").await;
    let taking = SqliteEngine::open(host.volume.path(), "catalog", SqliteConfig::default()).unwrap();
    snapshot(&[(taking.files(), copy.clone())]).unwrap();
    for is_damaged in [false, true] {
        let left = tempfile::tempdir().unwrap();
        let left_file = left.path().join("catalog.db");
        fs::copy(&copy, &left_file).unwrap();
        let row = place(&left_file, format!("{:064}", 1_234).as_bytes());
        let page = is_damaged.then(|| flip(&left_file, row + 40));
        let restored = serve(left);
        let mut client = restored.session().await;
        match page {
            Some(page) => refused(&mut client, ROW, &page).await,
            None => {
                let new = client.rows("SELECT count(*) FROM t WHERE b = 'new'").await;
                assert_eq!(new, [[int(1_500)]]);
            }
        }
    }
    // Of what nobody has read yet.
    let page = flip(&file, place(&file, &[b'v'; 4_000]) + 2_000);
    let error = snapshot(&[(taking.files(), copy)]).expect_err("damage was copied");
    assert!(matches!(error, SnapshotError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains(&page), "{error}");
}

#[tokio::test]
async fn a_guests_vacuum_keeps_checksums() {
    let host = serve(filled().await);
    let mut client = host.session().await;
    client.run("DELETE FROM t WHERE a % 3").await;
    client.run("VACUUM").await;
    client.end().await.unwrap();
    let Host { service, volume } = host;
    drop(service);
    let file = volume.path().join("catalog.db");
    rusqlite::Connection::open(&file).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let page = flip(&file, place(&file, format!("{:064}", 1_233).as_bytes()) + 40);
    let host = serve(volume);
    refused(&mut host.session().await, "SELECT b FROM t WHERE a = 1233", &page).await;
}
