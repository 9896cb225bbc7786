//! The client against the real service over the real engine.

use std::sync::Arc;

use vamos_proto::id::VmId;
use vamos_service::{ByteStream, Service, VmContext};
use vamos_sql_client::{BlockBuilder, Client, ClientError, Session, Transaction, Value, ValueRef};
use vamos_sql_server::{SqlConfig, SqlService};
use vamos_sqlite::{SqliteConfig, SqliteEngine};

/// A database in a directory of its own, and a link to it.
struct Host {
    _directory: tempfile::TempDir,
    client: Client,
}

impl Host {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let engine =
            SqliteEngine::open(directory.path(), "test", SqliteConfig::default()).expect("an engine");
        let service = Arc::new(SqlService::new(engine, SqlConfig::default()));
        let (near, far) = tokio::io::duplex(256 << 10);
        let vm = Arc::new(VmContext { vm: VmId::new("test").expect("a name"), generation: 1 });
        tokio::spawn(service.serve(ByteStream::new(far), vm));
        Self { _directory: directory, client: Client::over(near) }
    }

    async fn session(&self) -> Session {
        self.client.open("test", "tests").await.expect("a session")
    }
}

#[tokio::test]
async fn values_survive_the_journey() {
    let host = Host::start();
    host.client.ping().await.unwrap();
    let session = host.session().await;
    session.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)", &[]).await.unwrap();
    let values = [
        Value::Null,
        Value::Integer(i64::MIN),
        Value::Real(-0.5),
        Value::Text("snö \u{1f600}".to_owned()),
        Value::Blob(vec![0, 255, 1]),
    ];
    let insert = session.prepare("INSERT INTO t(x) VALUES (?1)").await.unwrap();
    assert_eq!((insert.parameters(), insert.returns_rows(), insert.is_read_only()), (1, false, false));
    for value in &values {
        let outcome = session.run(&insert, std::slice::from_ref(value)).await.unwrap();
        assert_eq!((outcome.changes, outcome.command.as_str()), (1, "INSERT"));
    }
    let outcome = session.execute("SELECT x FROM t ORDER BY id", &[]).await.unwrap();
    let found: Vec<Value> = outcome.rows().unwrap().into_iter().flatten().collect();
    assert_eq!(found, values);
    assert_eq!(outcome.columns[0].name, "x");
    session.close().await.unwrap();
}

#[tokio::test]
async fn transactions_and_errors() {
    let host = Host::start();
    let session = host.session().await;
    session.execute("CREATE TABLE t(x UNIQUE)", &[]).await.unwrap();
    let outcome = session.execute("BEGIN", &[]).await.unwrap();
    assert_eq!(outcome.transaction, Transaction::Open);
    session.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    let Err(ClientError::Sql(error)) = session.execute("INSERT INTO t VALUES (1)", &[]).await else {
        panic!("a duplicate went in");
    };
    assert_eq!((error.sqlstate.as_str(), error.transaction), ("23505", Transaction::Open));
    session.execute("ROLLBACK", &[]).await.unwrap();
    let outcome = session.execute("SELECT count(*) FROM t", &[]).await.unwrap();
    assert_eq!(outcome.rows().unwrap(), [[Value::Integer(0)]]);
}

#[tokio::test]
async fn a_batch_is_all_or_nothing_when_atomic() {
    let host = Host::start();
    let session = host.session().await;
    session.execute("CREATE TABLE t(x INTEGER UNIQUE)", &[]).await.unwrap();
    let insert = session.prepare("INSERT INTO t VALUES (?1)").await.unwrap();
    let block = |values: &[i64]| {
        let mut block = BlockBuilder::new(1);
        values.iter().for_each(|value| block.row([ValueRef::Integer(*value)]));
        block
    };
    let good: Vec<i64> = (0..5000).collect();
    assert_eq!(session.batch(&insert, block(&good), true).await.unwrap().executed, 5000);
    match session.batch(&insert, block(&[5001, 1, 5002]), true).await {
        Ok(outcome) => assert_eq!((outcome.executed, outcome.failures[0].0), (0, 1)),
        Err(error) => assert_eq!(error.sqlstate(), "23505"),
    }
    let outcome = session.batch(&insert, block(&[6001, 1, 6002]), false).await.unwrap();
    assert_eq!((outcome.executed, outcome.failures.len(), outcome.failures[0].0), (2, 1, 1));
    let outcome = session.execute("SELECT count(*) FROM t", &[]).await.unwrap();
    assert_eq!(outcome.rows().unwrap(), [[Value::Integer(5002)]]);
}

#[tokio::test]
async fn requests_of_one_session_run_in_their_order() {
    let host = Host::start();
    let session = host.session().await;
    session.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, x)", &[]).await.unwrap();
    let insert = session.prepare("INSERT INTO t(x) VALUES (?1)").await.unwrap();
    let mut under_way = Vec::new();
    for number in 0..200 {
        under_way.push(session.send_run(&insert, &[Value::Integer(number)]).await.unwrap());
    }
    for one in under_way {
        one.outcome().await.unwrap();
    }
    let outcome = session.execute("SELECT count(*) FROM t WHERE x = n - 1", &[]).await.unwrap();
    assert_eq!(outcome.rows().unwrap(), [[Value::Integer(200)]]);
}

#[tokio::test]
async fn a_cursor_reads_a_large_result_piece_by_piece() {
    let host = Host::start();
    let session = host.session().await;
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT i, hex(i) FROM n";
    let statement = session.prepare(sql).await.unwrap();
    let mut cursor = session.query_cursor(&statement, &[], 0, 2).await.unwrap();
    let mut rows = 0;
    while let Some(block) = cursor.next_block().await.unwrap() {
        rows += vamos_sql_client::Rows::new(&block).unwrap().rows();
    }
    assert_eq!((rows, cursor.is_suspended()), (200_000, false));
    // A round of rows, then another one, then the rest is given up.
    let mut cursor = session.query_cursor(&statement, &[], 10, 1).await.unwrap();
    for _ in 0..2 {
        let block = cursor.next_block().await.unwrap().unwrap();
        assert_eq!(vamos_sql_client::Rows::new(&block).unwrap().rows(), 10);
        assert!(cursor.next_block().await.unwrap().is_none() && cursor.is_suspended());
        cursor.want(10);
    }
    cursor.close().await.unwrap();
    let outcome = session.execute(sql, &[]).await.unwrap();
    assert_eq!(outcome.row_count().unwrap(), 200_000);
}

#[tokio::test]
async fn what_is_under_way_can_be_interrupted() {
    let host = Host::start();
    let session = host.session().await;
    let handle = session.cancel_handle();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let cancel = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        handle.cancel();
    };
    let (outcome, ()) = tokio::join!(session.execute(endless, &[]), cancel);
    assert_eq!(outcome.unwrap_err().sqlstate(), "57014");
    assert!(session.execute("SELECT 1", &[]).await.is_ok());
}

#[tokio::test]
async fn many_sessions_share_a_link() {
    let host = Host::start();
    let first = host.session().await;
    first.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    let mut tasks = Vec::new();
    for number in 0..64 {
        let client = host.client.clone();
        tasks.push(tokio::spawn(async move {
            let session = client.open("test", "many").await?;
            for _ in 0..5 {
                session.execute("INSERT INTO t VALUES (?1)", &[Value::Integer(number)]).await?;
            }
            session.close().await
        }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let outcome = first.execute("SELECT count(*), count(DISTINCT x) FROM t", &[]).await.unwrap();
    assert_eq!(outcome.rows().unwrap(), [[Value::Integer(320), Value::Integer(64)]]);
}

#[tokio::test]
async fn statements_beyond_what_a_session_keeps_still_run() {
    let host = Host::start();
    let session = host.session().await;
    let mut statements = Vec::new();
    for number in 0..400 {
        statements.push(session.prepare(&format!("SELECT {number} + ?1")).await.unwrap());
    }
    for (number, statement) in statements.iter().enumerate() {
        let outcome = session.run(statement, &[Value::Integer(1)]).await.unwrap();
        assert_eq!(outcome.rows().unwrap(), [[Value::Integer(number as i64 + 1)]]);
    }
}
