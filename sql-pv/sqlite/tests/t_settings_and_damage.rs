//! THREATS 8 and 10: settings that would outlive their session or the operator's word, and damaged files.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Host, all_fail, impatient, int};
use vamos_sql_server::{SqlConfig, SqlService};
use vamos_sqlite::{GiveUp, SqliteConfig, SqliteEngine};

#[tokio::test]
async fn t08_settings_never_leak_to_another_session() {
    let host = Host::start();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(host.session().await);
    }
    clients[0].run("CREATE TABLE t (a)").await;
    clients[0].run("PRAGMA query_only = ON").await;
    for _ in 0..5 {
        assert_eq!(clients[0].fails("INSERT INTO t VALUES (1)").await, "25006");
        clients[0].rows("SELECT * FROM t").await;
        for client in &mut clients[1..] {
            client.run("INSERT INTO t VALUES (1)").await;
            assert_eq!(client.rows("PRAGMA query_only").await, [[int(0)]]);
        }
    }
}

#[tokio::test]
async fn t08_what_the_operator_made_read_only_stays_so() {
    let host = Host::start();
    host.session().await.run("CREATE TABLE t (a)").await;
    let volume = host.volume;
    drop(host.service);
    let engine = SqliteConfig { read_only: true, ..SqliteConfig::default() };
    let engine = SqliteEngine::open(volume.path(), "catalog", engine).unwrap();
    let service = Arc::new(SqlService::new(engine, SqlConfig::default()));
    let host = Host { service, volume };
    let mut client = host.session().await;
    let writes = [
        "INSERT INTO t VALUES (1)",
        "CREATE TABLE u (a)",
        "DROP TABLE t",
        "PRAGMA user_version = 7",
        "VACUUM",
    ];
    all_fail(&mut client, "25006", &writes).await;
    assert_eq!(client.fails("PRAGMA query_only = OFF").await, "42501");
    client.run("PRAGMA query_only = ON").await;
    assert_eq!(client.rows("PRAGMA query_only").await, [[int(1)]]);
    client.run("BEGIN").await;
    assert_eq!(client.fails("DELETE FROM t").await, "25006");
    client.run("ROLLBACK").await;
    assert_eq!(client.rows("SELECT count(*) FROM t").await, [[int(0)]]);
}

/// Damaged files are answered with an error or with what can be read; never with a panic.
#[tokio::test]
async fn t10_damaged_databases() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c UNIQUE)").await;
    client.run("CREATE INDEX i ON t (b)").await;
    client.run("CREATE VIRTUAL TABLE f USING fts5(body)").await;
    client.run("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, hex(i), i * 7 FROM n").await;
    client.run("INSERT INTO f SELECT b FROM t").await;
    let path = host.path();
    client.end().await.unwrap();
    drop(host.service);
    tokio::time::sleep(Duration::from_millis(100)).await;
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let sound = std::fs::read(&path).unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for _ in 0..40 {
        let volume = tempfile::tempdir().unwrap();
        let mut bytes = sound.clone();
        for _ in 0..=random(60) {
            let at = 24 + random(bytes.len() - 24);
            bytes[at] = random(256) as u8;
        }
        std::fs::write(volume.path().join("catalog.db"), &bytes).unwrap();
        let Ok(engine) = SqliteEngine::open(volume.path(), "catalog", impatient(GiveUp::new(|_| {}))) else {
            continue;
        };
        let service = Arc::new(SqlService::new(engine, SqlConfig::default()));
        let host = Host { service, volume };
        let mut client = host.session().await;
        for text in [
            "SELECT count(*), sum(length(b)) FROM t",
            "SELECT * FROM t ORDER BY b",
            "SELECT * FROM f('3')",
            "INSERT INTO t (b) VALUES ('x')",
            "DELETE FROM t WHERE a % 2",
            "PRAGMA quick_check",
        ] {
            let _ = client.try_run(text).await;
        }
    }
}

/// Whichever page of a database without checksums is damaged: once a statement has come upon it, the page is named and
/// nothing of the database is served any more. Nothing wrong is ever answered.
#[tokio::test]
async fn k68_a_damaged_page_is_named_and_nothing_of_its_database_is_served() {
    const PAGE: usize = 4096;
    let volume = tempfile::tempdir().unwrap();
    // As a host made it before there were checksums.
    let older = rusqlite::Connection::open(volume.path().join("catalog.db")).unwrap();
    older.execute_batch("PRAGMA page_size = 4096; PRAGMA journal_mode = WAL").unwrap();
    let engine = SqliteEngine::open(volume.path(), "catalog", SqliteConfig::default()).unwrap();
    let host = Host { service: Arc::new(SqlService::new(engine, SqlConfig::default())), volume };
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)").await;
    client.run("CREATE INDEX i ON t (b)").await;
    client.run("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO t SELECT i, printf('%064d', i) FROM n").await;
    let (whole, sorted) = ("SELECT * FROM t ORDER BY a", "SELECT b FROM t ORDER BY b");
    let sound = [client.rows(whole).await, client.rows(sorted).await];
    let path = host.path();
    client.end().await.unwrap();
    drop(host.service);
    drop(older);
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let file = std::fs::read(&path).unwrap();
    assert_eq!(file[20], 0);
    let mut named = 0;
    for page in 2..=file.len() / PAGE {
        let volume = tempfile::tempdir().unwrap();
        let mut bytes = file.clone();
        // What kind of page it is.
        bytes[(page - 1) * PAGE] ^= 0x55;
        std::fs::write(volume.path().join("catalog.db"), &bytes).unwrap();
        let engine = SqliteEngine::open(volume.path(), "catalog", impatient(GiveUp::new(|_| {}))).unwrap();
        let service = Arc::new(SqlService::new(engine, SqlConfig::default()));
        let host = Host { service, volume };
        let mut client = host.session().await;
        let mut damaged = false;
        for (text, sound) in [whole, sorted].into_iter().zip(&sound) {
            match client.try_run(text).await {
                Ok(answer) => assert!(
                    !damaged && answer.rows == *sound,
                    "page {page}: answered from a damaged database"
                ),
                Err(error) => {
                    assert_eq!(error.sqlstate, "XX001", "page {page}: {error:?}");
                    assert!(error.message.contains("the database catalog is damaged"), "{error:?}");
                    damaged = true;
                }
            }
        }
        if damaged {
            let end = std::time::Instant::now() + Duration::from_secs(20);
            loop {
                let error = client.try_run("SELECT 1").await.expect_err("it is served");
                if error.message.contains(&format!("page {page}")) {
                    break;
                }
                assert!(std::time::Instant::now() < end, "page {page} is not named: {error:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            named += 1;
        }
    }
    assert!(named > 100, "{named} of {} pages were found damaged", file.len() / PAGE);
}
