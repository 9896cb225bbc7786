//! Sessions that go on: what a resumed session may do, and what a forged, stale, rolled-back or repeated one
//! is told. (Threats 26 to 28, 30 and 74.)

mod support;

use prost::Message;
use support::{Client, Host, execute, int, resume};
use vamos_sql_protocol::{Kind, message};
use vamos_sql_server::{SqlConfig, SqlService};
use vamos_sqlite::{SqliteConfig, SqliteEngine};

const EXECUTE: u16 = Kind::Execute as u16;
const RESUME: u16 = Kind::Resume as u16;

/// A service whose sessions are sealed with a secret that others share.
fn config(generation: u64) -> SqlConfig {
    SqlConfig { database: "catalog".into(), epoch: generation, secret: [3; 16], ..SqlConfig::default() }
}

/// A host, a session that has written requests 2 to 4, and its identity.
async fn written() -> (Host, Client, message::Opened) {
    let host = Host::with(SqliteConfig::default(), config(1));
    let mut client = host.link();
    let opened = client.open(1).await;
    client.try_with(1, "CREATE TABLE t (x)", &[]).await.unwrap();
    client.try_with(1, "INSERT INTO t VALUES (1)", &[]).await.unwrap();
    client.try_with(1, "INSERT INTO t VALUES (2)", &[]).await.unwrap();
    (host, client, opened)
}

/// Resumes as request `sequence` and says what came of it.
async fn resumed(
    client: &mut Client,
    sequence: u64,
    body: &message::Resume,
) -> Result<message::Opened, message::Error> {
    client.send_raw(1, sequence, RESUME, &body.encode_to_vec()).await;
    match client.reply(1, sequence).await {
        (Kind::Opened, body) => Ok(message::Opened::decode(body).unwrap()),
        (Kind::Error, body) => Err(message::Error::decode(body).unwrap()),
        other => panic!("{other:?}"),
    }
}

/// Sends a statement that was sent before as `number`.
async fn repeat(client: &mut Client, sequence: u64, number: u64, text: &str) -> support::Outcome {
    let body = message::Execute { number, ..execute(text, &[]) };
    client.send_raw(1, sequence, EXECUTE, &body.encode_to_vec()).await;
    client.result(1, sequence).await
}

async fn count(host: &Host) -> i64 {
    let mut client = host.session().await;
    let answer = client.try_with(1, "SELECT count(*) FROM t", &[]).await.unwrap();
    let [row] = &answer.rows[..] else { panic!("{:?}", answer.rows) };
    (0..).find(|count| row[0] == int(*count)).unwrap()
}

#[tokio::test]
async fn recorded_requests_are_answered_and_others_run() {
    let (host, client, opened) = written().await;
    drop(client);
    let mut client = host.link();
    let told = resumed(&mut client, 9, &resume(&opened, "catalog", 2, &[])).await.unwrap();
    assert_eq!((told.key, told.epoch, told.seal), (opened.key, opened.epoch, opened.seal));
    assert_eq!(told.recorded, [3, 4]);
    for (sequence, number, text) in [(10, 3, "INSERT INTO t VALUES (1)"), (11, 4, "INSERT INTO t VALUES (2)")]
    {
        let answer = repeat(&mut client, sequence, number, text).await.unwrap();
        assert_eq!((answer.changes, answer.command.as_str()), (1, "INSERT"));
    }
    assert_eq!(count(&host).await, 2);
    // Number 5 was on its way and never arrived.
    repeat(&mut client, 12, 5, "INSERT INTO t VALUES (3)").await.unwrap();
    assert_eq!(count(&host).await, 3);
}

#[tokio::test]
async fn records_survive_the_process_and_are_collected_by_acknowledgement() {
    let (host, client, opened) = written().await;
    drop(client);
    let Host { service, volume } = host;
    drop(service);
    let engine = SqliteEngine::open(volume.path(), "catalog", SqliteConfig::default()).unwrap();
    let host = Host { service: SqlService::new(engine, config(1)).into(), volume };
    let mut client = host.link();
    let told = resumed(&mut client, 9, &resume(&opened, "catalog", 3, &[])).await.unwrap();
    assert_eq!(told.recorded, [4]);
    let answer = repeat(&mut client, 10, 4, "INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!(answer.last_insert_rowid, 2);
    let body = message::Execute { acknowledged: 10, ..execute("INSERT INTO t VALUES (3)", &[]) };
    client.send_raw(1, 11, EXECUTE, &body.encode_to_vec()).await;
    client.result(1, 11).await.unwrap();
    let db = rusqlite::Connection::open(host.path()).unwrap();
    let numbers: Vec<i64> = db
        .prepare("SELECT number FROM _vamos_record")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(numbers, [11]);
}

#[tokio::test]
async fn c26_another_request_under_a_known_number_is_an_error() {
    let (host, client, opened) = written().await;
    drop(client);
    for (text, parameters) in
        [("INSERT INTO t VALUES (7)", vec![]), ("INSERT INTO t VALUES (?1)", vec![int(2)])]
    {
        let mut client = host.link();
        resumed(&mut client, 9, &resume(&opened, "catalog", 2, &[])).await.unwrap();
        let body = message::Execute { number: 4, ..execute(text, &parameters) };
        client.send_raw(1, 10, EXECUTE, &body.encode_to_vec()).await;
        let error = client.result(1, 10).await.unwrap_err();
        assert_eq!(error.sqlstate, "08P01");
        assert!(error.message.starts_with("DIGEST_MISMATCH: request 4"), "{}", error.message);
        // The session is over.
        client.send_raw(1, 11, EXECUTE, &execute("SELECT 1", &[]).encode_to_vec()).await;
        assert_eq!(client.result(1, 11).await.unwrap_err().sqlstate, "08003");
    }
    assert_eq!(count(&host).await, 2);
}

#[tokio::test]
async fn c27_numbers_that_cannot_be_end_the_session() {
    let (host, mut client, _) = written().await;
    for (number, acknowledged) in [(9, 0), (u64::MAX, 0), (4, 4), (0, 5), (0, u64::MAX)] {
        let mut other = host.link();
        other.open(1).await;
        other.try_with(1, "SELECT 1", &[]).await.unwrap();
        other.try_with(1, "SELECT 1", &[]).await.unwrap();
        other.try_with(1, "SELECT 1", &[]).await.unwrap();
        let body = message::Execute { number, acknowledged, ..execute("INSERT INTO t VALUES (9)", &[]) };
        other.send_raw(1, 5, EXECUTE, &body.encode_to_vec()).await;
        assert_eq!(other.result(1, 5).await.unwrap_err().sqlstate, "08P01", "{number} {acknowledged}");
    }
    client.try_with(1, "INSERT INTO t VALUES (3)", &[]).await.unwrap();
    assert_eq!(count(&host).await, 3);
}

#[tokio::test]
async fn c28_sessions_of_another_generation_are_fenced() {
    let (host, client, opened) = written().await;
    drop(client);
    let Host { service, volume } = host;
    drop(service);
    let engine = SqliteEngine::open(volume.path(), "catalog", SqliteConfig::default()).unwrap();
    let host = Host { service: SqlService::new(engine, config(2)).into(), volume };
    let mut client = host.link();
    let error = resumed(&mut client, 9, &resume(&opened, "catalog", 2, &[])).await.unwrap_err();
    assert_eq!(error.sqlstate, "08003");
    assert!(error.message.contains("generation 1") && error.message.contains("fenced"), "{}", error.message);
    // To say that it is of the new one needs a seal.
    let forged = message::Resume { epoch: 2, ..resume(&opened, "catalog", 2, &[]) };
    assert_eq!(resumed(&mut client, 10, &forged).await.unwrap_err().sqlstate, "28000");
    assert_eq!(count(&host).await, 2);
}

#[tokio::test]
async fn forged_and_foreign_sessions_are_refused() {
    let (host, _client, opened) = written().await;
    let good = resume(&opened, "catalog", 2, &[]);
    for (forged, sqlstate) in [
        (message::Resume { key: good.key ^ 1, ..good.clone() }, "28000"),
        (message::Resume { seal: good.seal ^ 1, ..good.clone() }, "28000"),
        (message::Resume { database: "other".into(), ..good.clone() }, "3D000"),
        (message::Resume { protocol: 0, ..good.clone() }, "0A000"),
        (message::Resume { state: vec![0; 7].into(), ..good.clone() }, "08P01"),
        (message::Resume { acknowledged: 9, ..good.clone() }, "08P01"),
    ] {
        let mut client = host.link();
        assert_eq!(resumed(&mut client, 9, &forged).await.unwrap_err().sqlstate, sqlstate, "{forged:?}");
    }
    // Another VM's secret.
    let other = Host::with(SqliteConfig::default(), SqlConfig { secret: [4; 16], ..config(1) });
    assert_eq!(resumed(&mut other.link(), 9, &good).await.unwrap_err().sqlstate, "28000");
}

#[tokio::test]
async fn a_session_goes_on_in_one_place_only() {
    let (host, mut client, opened) = written().await;
    client.try_with(1, "BEGIN", &[]).await.unwrap();
    client.try_with(1, "DELETE FROM t", &[]).await.unwrap();
    let mut next = host.link();
    let body = resume(&opened, "catalog", 6, &[]);
    next.send_raw(1, 9, RESUME, &body.encode_to_vec()).await;
    // Not before the other link has ended, and its transaction with it.
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), next.next_frame()).await;
    assert!(early.is_err(), "{early:?}");
    drop(client);
    assert_eq!(next.reply(1, 9).await.0, Kind::Opened);
    let answer = repeat(&mut next, 10, 0, "SELECT count(*) FROM t").await.unwrap();
    assert_eq!(answer.rows, [[int(2)]]);
}

#[tokio::test]
async fn k74_a_guest_that_was_rolled_back_is_fenced_and_nothing_runs_twice() {
    let (host, mut client, opened) = written().await;
    // All acknowledged by the next write, which leaves its own record alone.
    let body = message::Execute { acknowledged: 4, ..execute("INSERT INTO t VALUES (3)", &[]) };
    let sequence = client.send(1, Kind::Execute, &body).await;
    client.result(1, sequence).await.unwrap();
    drop(client);
    // Back at request 3: its numbers have been used since.
    let error = resumed(&mut host.link(), 4, &resume(&opened, "catalog", 2, &[])).await.unwrap_err();
    assert!(error.message.starts_with("FENCED"), "{}", error.message);
    // One that only repeats what was on its way then.
    let mut client = host.link();
    resumed(&mut client, 9, &resume(&opened, "catalog", 2, &[])).await.unwrap();
    let error = repeat(&mut client, 10, 3, "INSERT INTO t VALUES (1)").await.unwrap_err();
    assert!(error.message.starts_with("FENCED: request 3"), "{}", error.message);
    assert_eq!(count(&host).await, 3);
}

/// The records of sessions that never come back do not grow without end, and a session that is open costs no
/// record.
#[tokio::test]
async fn c30_sessions_that_do_not_write_leave_nothing() {
    let host = Host::with(SqliteConfig::default(), config(1));
    let mut client = host.link();
    for session in 1..200 {
        client.open(session).await;
        client.try_with(session, "SELECT 1", &[]).await.unwrap();
    }
    client.try_with(1, "CREATE TABLE t (x)", &[]).await.unwrap();
    let db = rusqlite::Connection::open(host.path()).unwrap();
    let records =
        || db.query_row("SELECT count(*) FROM _vamos_record", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(records(), 1);
    for _ in 0..20 {
        // What changes nothing needs no record.
        client.try_with(2, "DELETE FROM t", &[]).await.unwrap();
        client.try_with(2, "CREATE TABLE IF NOT EXISTS t (x)", &[]).await.unwrap();
    }
    assert!(records() <= 21, "{}", records());
}

#[tokio::test]
async fn statements_about_the_whole_database_pass_over_the_records() {
    let (_host, mut client, _) = written().await;
    for text in [
        "ANALYZE",
        "ANALYZE main",
        "REINDEX",
        "PRAGMA optimize",
        "PRAGMA integrity_check",
        "PRAGMA foreign_key_check",
        "VACUUM",
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE u RENAME COLUMN x TO y",
        "DROP TABLE u",
    ] {
        client.try_with(1, text, &[]).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
    }
}
