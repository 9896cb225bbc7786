//! Transactions as PostgreSQL has them, in both protocols.

use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use crate::host::Host;
use crate::raw::{Raw, bind, execute, message, parse};

async fn count(client: &tokio_postgres::Client) -> i64 {
    client.query_one("SELECT count(*) FROM t", &[]).await.expect("a count").get(0)
}

#[tokio::test]
async fn a_failed_transaction_takes_nothing_but_its_end() {
    let host = Host::start().await;
    let client = host.driver().await;
    client.batch_execute("CREATE TABLE t(x INTEGER UNIQUE); INSERT INTO t VALUES (1)").await.unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    client.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
    let error = client.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
    let error = client.query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    // COMMIT of a failed transaction is a rollback, and says so.
    let done = client.simple_query("COMMIT").await.unwrap();
    assert!(matches!(done[0], SimpleQueryMessage::CommandComplete(0)));
    assert_eq!(count(&client).await, 1);
}

#[tokio::test]
async fn a_savepoint_saves_a_failed_transaction() {
    let host = Host::start().await;
    let client = host.driver().await;
    client.batch_execute("CREATE TABLE t(x INTEGER UNIQUE)").await.unwrap();
    client.batch_execute("BEGIN; INSERT INTO t VALUES (1); SAVEPOINT s").await.unwrap();
    client.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap_err();
    client.batch_execute("ROLLBACK TO SAVEPOINT s").await.unwrap();
    client.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
    client.batch_execute("RELEASE s; COMMIT").await.unwrap();
    assert_eq!(count(&client).await, 2);
}

#[tokio::test]
async fn several_statements_of_one_query_are_one_transaction() {
    let host = Host::start().await;
    let client = host.driver().await;
    client.batch_execute("CREATE TABLE t(x INTEGER UNIQUE)").await.unwrap();
    client
        .batch_execute("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); INSERT INTO t VALUES (1)")
        .await
        .unwrap_err();
    assert_eq!(count(&client).await, 0);
    // A COMMIT among them keeps what is before it.
    client
        .batch_execute(
            "BEGIN; INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (2); INSERT INTO t VALUES (1)",
        )
        .await
        .unwrap_err();
    assert_eq!(count(&client).await, 1);
    client.batch_execute("INSERT INTO t VALUES (5); INSERT INTO t VALUES (6)").await.unwrap();
    assert_eq!(count(&client).await, 3);
}

#[tokio::test]
async fn the_state_is_told_with_every_answer() {
    let host = Host::start().await;
    let mut raw = Raw::start(&host).await;
    for (query, kinds, state) in [
        ("BEGIN", "CZ", b'T'),
        ("BEGIN", "NCZ", b'T'),
        ("SELECT nonsense", "EZ", b'E'),
        ("SELECT 1", "EZ", b'E'),
        ("SELECT 1; ROLLBACK", "EZ", b'E'),
        ("ROLLBACK", "CZ", b'I'),
        ("ROLLBACK", "NCZ", b'I'),
        ("SAVEPOINT s", "EZ", b'I'),
        ("BEGIN; SELECT 1", "CTDCZ", b'T'),
        ("END", "CZ", b'I'),
        ("", "IZ", b'I'),
        (" ; -- nothing", "IZ", b'I'),
    ] {
        raw.send(&message(b'Q', format!("{query}\0").as_bytes())).await;
        let answer = raw.until(b'Z').await;
        let found: String = answer.iter().map(|(kind, _)| *kind as char).collect();
        assert_eq!((found.as_str(), answer.last().map(|(_, body)| body[0])), (kinds, Some(state)), "{query}");
    }
}

#[tokio::test]
async fn statements_before_one_sync_are_one_transaction() {
    let host = Host::start().await;
    host.rows("CREATE TABLE t(x INTEGER UNIQUE);").await;
    let mut raw = Raw::start(&host).await;
    let mut wire = parse("INSERT INTO t VALUES ($1)");
    for value in ["1", "2", "1"] {
        wire.unsplit(bind(&[value]));
        wire.unsplit(execute(0));
    }
    wire.unsplit(message(b'S', b""));
    raw.send(&wire).await;
    assert_eq!(raw.kinds(b'Z').await, "12C2C2EZ");
    assert_eq!(host.rows("SELECT count(*) FROM t;").await, "0\n");
    let mut wire = parse("INSERT INTO t VALUES ($1)");
    for value in ["1", "2", "3"] {
        wire.unsplit(bind(&[value]));
        wire.unsplit(execute(0));
    }
    wire.unsplit(message(b'S', b""));
    raw.send(&wire).await;
    assert_eq!(raw.kinds(b'Z').await, "12C2C2CZ");
    assert_eq!(host.rows("SELECT count(*) FROM t;").await, "3\n");
}

#[tokio::test]
async fn after_an_error_everything_up_to_sync_is_skipped() {
    let host = Host::start().await;
    let mut raw = Raw::start(&host).await;
    let mut wire = parse("SELECT nonsense FROM nowhere");
    wire.unsplit(bind(&[]));
    wire.unsplit(execute(0));
    wire.unsplit(parse("SELECT 1"));
    wire.unsplit(message(b'S', b""));
    raw.send(&wire).await;
    assert_eq!(raw.kinds(b'Z').await, "EZ");
    raw.answers().await;
}

#[tokio::test]
async fn a_portal_gives_its_rows_in_parts() {
    let host = Host::start().await;
    let mut raw = Raw::start(&host).await;
    raw.send(&message(b'Q', b"BEGIN\0")).await;
    raw.kinds(b'Z').await;
    raw.send(&parse("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3")).await;
    raw.send(&bind(&[])).await;
    for _ in 0..3 {
        raw.send(&execute(2)).await;
    }
    raw.send(&message(b'S', b"")).await;
    let answer = raw.until(b'Z').await;
    let kinds: String = answer.iter().map(|(kind, _)| *kind as char).collect();
    assert_eq!(kinds, "12DDsDCCZ");
    let tags: Vec<&[u8]> =
        answer.iter().filter(|(kind, _)| *kind == b'C').map(|(_, body)| &body[..]).collect();
    assert_eq!(tags, [b"SELECT 1\0", b"SELECT 0\0"]);
}

#[tokio::test]
async fn a_read_only_transaction_refuses_writes() {
    let host = Host::start().await;
    let client = host.driver().await;
    client.batch_execute("CREATE TABLE t(x INTEGER)").await.unwrap();
    for protocol in ["simple", "extended"] {
        client.batch_execute("BEGIN READ ONLY").await.unwrap();
        assert_eq!(count(&client).await, 0);
        let outcome = match protocol {
            "simple" => client.batch_execute("INSERT INTO t VALUES (1)").await,
            _ => client.execute("INSERT INTO t VALUES (1)", &[]).await.map(drop),
        };
        assert_eq!(outcome.unwrap_err().code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION), "{protocol}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn a_statement_timeout_interrupts() {
    let host = Host::start().await;
    let client = host.driver().await;
    client.batch_execute("SET statement_timeout = '100ms'").await.unwrap();
    // One that never has a row, and one that never has its last.
    for what in ["max(i)", "i"] {
        let endless =
            format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT {what} FROM n");
        let error = client.query(&endless, &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
        assert!(error.as_db_error().unwrap().message().contains("statement timeout"));
        let error = client.batch_execute(&endless).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    }
    client.batch_execute("RESET statement_timeout").await.unwrap();
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i64>(0), 1);
}
