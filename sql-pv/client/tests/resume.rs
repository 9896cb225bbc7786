//! Sessions that outlive their streams and the process that serves them: the client against the real service
//! over the real engine, which are killed under it.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::duplex;
use tokio::task::AbortHandle;
use vamos_proto::id::VmId;
use vamos_service::{ByteStream, Service, VmContext};
use vamos_sql_client::{
    BlockBuilder, Client, ClientError, Dial, Dialing, Duplex, Session, Transaction, Value, ValueRef,
};
use vamos_sql_server::{SqlConfig, SqlService};
use vamos_sqlite::{SqliteConfig, SqliteEngine};

/// What a cell is to a client, and can lose.
struct Cell {
    volume: TempDir,
    generation: u64,
    service: Option<Arc<SqlService<SqliteEngine>>>,
    links: Vec<AbortHandle>,
    /// Bytes of replies that links let through before they break; `None`: any number.
    fuse: Option<usize>,
}

#[derive(Clone)]
struct Host(Arc<Mutex<Cell>>);

impl Host {
    async fn start() -> (Self, Client) {
        let cell = Cell {
            volume: tempfile::tempdir().unwrap(),
            generation: 1,
            service: None,
            links: Vec::new(),
            fuse: None,
        };
        let host = Self(Arc::new(Mutex::new(cell)));
        host.revive();
        let client = Client::dial(Arc::new(host.clone())).await.unwrap();
        (host, client)
    }

    /// A new process serves the VM.
    fn revive(&self) {
        let mut cell = self.0.lock().unwrap();
        let engine = SqliteEngine::open(cell.volume.path(), "shop", SqliteConfig::default()).unwrap();
        let config = SqlConfig {
            database: "shop".to_owned(),
            epoch: cell.generation,
            secret: [7; 16],
            ..SqlConfig::default()
        };
        cell.service = Some(Arc::new(SqlService::new(engine, config)));
    }

    /// Every stream is reset.
    fn cut(&self) {
        self.0.lock().unwrap().links.drain(..).for_each(|link| link.abort());
    }

    /// The process dies, and nobody is there until [`revive`](Self::revive). Nothing may be under way: its threads
    /// do not die with it here. (With real processes: the tests of the cell.)
    fn kill(&self) {
        self.cut();
        self.0.lock().unwrap().service = None;
    }
}

impl Dial for Host {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async move {
            let mut cell = self.0.lock().unwrap();
            let Some(service) = cell.service.clone() else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let (near, mut outer) = duplex(256 << 10);
            let (mut inner, far) = duplex(256 << 10);
            let vm = Arc::new(VmContext { vm: VmId::new("guest").unwrap(), generation: cell.generation });
            let serving = tokio::spawn(service.serve(ByteStream::new(far), vm));
            let fuse = cell.fuse.take();
            // Between the two, so that a reply can be lost after the service has sent it.
            let carrying = tokio::spawn(async move {
                match fuse {
                    None => drop(tokio::io::copy_bidirectional(&mut outer, &mut inner).await),
                    Some(bytes) => {
                        let (mut from_client, mut to_client) = tokio::io::split(outer);
                        let (from_service, mut to_service) = tokio::io::split(inner);
                        let replies = &mut tokio::io::AsyncReadExt::take(from_service, bytes as u64);
                        tokio::select! {
                            _ = tokio::io::copy(&mut from_client, &mut to_service) => {}
                            _ = tokio::io::copy(replies, &mut to_client) => {}
                        }
                    }
                }
                serving.abort();
            });
            cell.links.push(carrying.abort_handle());
            Ok(Box::new(near) as Box<dyn Duplex>)
        })
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("done in time")
}

async fn session(client: &Client) -> Session {
    within(client.open("shop", "test")).await.unwrap()
}

async fn count(session: &Session, of: &str) -> i64 {
    let outcome = within(session.execute(of, &[])).await.unwrap();
    match outcome.rows().unwrap()[0][0] {
        Value::Integer(count) => count,
        ref other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_idle_session_goes_on_after_its_host_process_died() {
    let (host, client) = Host::start().await;
    let session = session(&client).await;
    session.execute("CREATE TABLE t(x INTEGER PRIMARY KEY)", &[]).await.unwrap();
    let insert = session.prepare("INSERT INTO t VALUES (?1)").await.unwrap();
    session.run(&insert, &[Value::Integer(1)]).await.unwrap();
    session.execute("PRAGMA foreign_keys = OFF", &[]).await.unwrap();
    for round in 0..3 {
        host.kill();
        host.revive();
        // A statement of before, with settings and `changes()` of before.
        assert_eq!(
            count(&session, "SELECT last_insert_rowid() * 10 + changes()").await,
            (round + 1) * 10 + 1
        );
        assert_eq!(count(&session, "PRAGMA foreign_keys").await, 0);
        within(session.run(&insert, &[Value::Integer(round + 2)])).await.unwrap();
    }
    assert_eq!(count(&session, "SELECT count(*) FROM t").await, 4);
}

#[tokio::test]
async fn a_request_waits_until_there_is_a_host_again() {
    let (host, client) = Host::start().await;
    let session = session(&client).await;
    host.kill();
    let asked = tokio::spawn(async move { session.execute("SELECT 7", &[]).await.unwrap().rows().unwrap() });
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!asked.is_finished());
    host.revive();
    assert_eq!(within(asked).await.unwrap(), [[Value::Integer(7)]]);
}

/// Whatever part of the reply came through, the write was done once.
#[tokio::test]
async fn a_write_whose_reply_is_lost_is_not_done_again() {
    for fuse in [0, 1, 16, 40, 45, 50, 55, 60, 65, 70, 80, 90, 100, 120, 150, 200, 250, 300] {
        let (host, client) = Host::start().await;
        let first = session(&client).await;
        first.execute("CREATE TABLE t(x)", &[]).await.unwrap();
        host.0.lock().unwrap().fuse = Some(fuse);
        host.cut();
        for x in 0..3 {
            let value = [Value::Integer(x)];
            let insert = first.execute("INSERT INTO t VALUES (?1) RETURNING x, rowid", &value);
            let outcome = within(insert).await.unwrap();
            assert_eq!(outcome.rows().unwrap(), [[Value::Integer(x), Value::Integer(x + 1)]], "fuse {fuse}");
            assert_eq!((outcome.changes, outcome.last_insert_rowid), (1, x + 1));
        }
        assert_eq!(count(&first, "SELECT count(*) FROM t").await, 3, "fuse {fuse}");
    }
}

#[tokio::test]
async fn a_batch_whose_reply_is_lost_is_not_done_again() {
    for fuse in [0, 40, 60, 80, 100, 120, 140] {
        let (host, client) = Host::start().await;
        let session = session(&client).await;
        session.execute("CREATE TABLE t(x UNIQUE)", &[]).await.unwrap();
        let insert = session.prepare("INSERT INTO t VALUES (?1)").await.unwrap();
        host.0.lock().unwrap().fuse = Some(fuse);
        host.cut();
        let mut rows = BlockBuilder::new(1);
        [1, 2, 2, 3].iter().for_each(|x| rows.row([ValueRef::Integer(*x)]));
        let outcome = within(session.batch(&insert, rows, false)).await.unwrap();
        assert_eq!((outcome.executed, outcome.failures.len()), (3, 1), "fuse {fuse}");
        assert_eq!(outcome.failures[0].1.sqlstate, "23505");
        assert_eq!(count(&session, "SELECT count(*) FROM t").await, 3);
    }
}

#[tokio::test]
async fn an_open_transaction_is_replayed() {
    let (host, client) = Host::start().await;
    let one = session(&client).await;
    one.execute("CREATE TABLE t(x INTEGER PRIMARY KEY, y)", &[]).await.unwrap();
    let insert = one.prepare("INSERT INTO t(y) VALUES (?1) RETURNING x").await.unwrap();
    for kill in [false, true] {
        one.execute("BEGIN", &[]).await.unwrap();
        let before = count(&one, "SELECT count(*) FROM t").await;
        for y in 0..20 {
            one.run(&insert, &[Value::Integer(y)]).await.unwrap();
        }
        one.execute("SAVEPOINT a", &[]).await.unwrap();
        one.execute("DELETE FROM t", &[]).await.unwrap();
        one.execute("ROLLBACK TO a", &[]).await.unwrap();
        assert!(one.execute("INSERT INTO t(x) VALUES (1)", &[]).await.is_err());
        if kill {
            host.kill();
            host.revive();
        } else {
            host.cut();
        }
        assert_eq!(count(&one, "SELECT count(*) FROM t").await, before + 20);
        let outcome = within(one.execute("COMMIT", &[])).await.unwrap();
        assert_eq!((outcome.command.as_str(), outcome.transaction), ("COMMIT", Transaction::None));
    }
    host.kill();
    host.revive();
    assert_eq!(count(&one, "SELECT count(*) FROM t").await, 40);
}

#[tokio::test]
async fn a_commit_whose_reply_is_lost_is_not_done_again() {
    let mut replayed = 0;
    for fuse in (0..400).step_by(20) {
        let (host, client) = Host::start().await;
        let one = session(&client).await;
        one.execute("CREATE TABLE t(x)", &[]).await.unwrap();
        one.execute("BEGIN", &[]).await.unwrap();
        one.execute("INSERT INTO t SELECT count(*) FROM t", &[]).await.unwrap();
        host.0.lock().unwrap().fuse = Some(fuse);
        host.cut();
        let outcome = within(one.execute("COMMIT", &[])).await.unwrap();
        assert_eq!(outcome.command, "COMMIT");
        assert_eq!(count(&one, "SELECT count(*) FROM t").await, 1, "fuse {fuse}");
        replayed += 1;
    }
    assert_eq!(replayed, 20);
}

#[tokio::test]
async fn a_transaction_that_read_what_has_changed_is_told_40001() {
    let (host, client) = Host::start().await;
    let (one, two) = (session(&client).await, session(&client).await);
    one.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    one.execute("BEGIN", &[]).await.unwrap();
    assert_eq!(count(&one, "SELECT count(*) FROM t").await, 0);
    two.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    host.kill();
    host.revive();
    for _ in 0..2 {
        let error = within(one.execute("INSERT INTO t VALUES (2)", &[])).await.unwrap_err();
        let ClientError::Sql(error) = error else { panic!("{error}") };
        assert_eq!((error.sqlstate.as_str(), error.transaction), ("40001", Transaction::Failed));
        // It stays failed, also on yet another process.
        host.kill();
        host.revive();
    }
    let outcome = within(one.execute("ROLLBACK", &[])).await.unwrap();
    assert_eq!(outcome.transaction, Transaction::None);
    assert_eq!(count(&one, "SELECT count(*) FROM t").await, 1);
    one.execute("BEGIN", &[]).await.unwrap();
    one.execute("INSERT INTO t VALUES (3)", &[]).await.unwrap();
    within(one.execute("COMMIT", &[])).await.unwrap();
}

#[tokio::test]
async fn a_transaction_too_long_to_be_replayed_is_told_so() {
    let (host, client) = Host::start().await;
    let one = session(&client).await;
    one.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    one.execute("BEGIN", &[]).await.unwrap();
    let value = [Value::Text("x".repeat(100_000))];
    for _ in 0..12 {
        one.execute("INSERT INTO t VALUES (?1)", &value).await.unwrap();
    }
    host.cut();
    let error = within(one.execute("COMMIT", &[])).await.unwrap_err();
    assert_eq!(error.sqlstate(), "40001");
    assert!(error.to_string().contains("cannot be replayed"), "{error}");
    // COMMIT was refused and ended the transaction.
    assert_eq!(count(&one, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn temporary_tables_are_lost_by_name() {
    let (host, client) = Host::start().await;
    let (one, two) = (session(&client).await, session(&client).await);
    one.execute("CREATE TEMP TABLE mine(x)", &[]).await.unwrap();
    host.cut();
    let error = within(one.execute("SELECT * FROM mine", &[])).await.unwrap_err();
    assert!(matches!(error, ClientError::SessionLost(_)), "{error}");
    assert_eq!(error.sqlstate(), "57P02");
    assert!(error.to_string().contains("temporary"), "{error}");
    assert_eq!(count(&two, "SELECT 1").await, 1);
}

#[tokio::test]
async fn a_result_that_is_being_read_goes_on_where_it_was() {
    let (host, client) = Host::start().await;
    let one = session(&client).await;
    one.execute("CREATE TABLE t(x, y)", &[]).await.unwrap();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO t SELECT i, printf('%040d', i) FROM n";
    one.execute(fill, &[]).await.unwrap();
    let all = one.prepare("SELECT x, y FROM t ORDER BY x").await.unwrap();
    for transaction in [false, true] {
        if transaction {
            one.execute("BEGIN", &[]).await.unwrap();
        }
        let mut cursor = one.query_cursor(&all, &[], 0, 1).await.unwrap();
        let (mut next, mut blocks) = (1, 0);
        while let Some(block) = within(cursor.next_block()).await.unwrap() {
            let mut rows = vamos_sql_client::Rows::new(&block).unwrap();
            for _ in 0..rows.rows() {
                assert_eq!(rows.value().unwrap(), ValueRef::Integer(next));
                rows.value().unwrap();
                next += 1;
            }
            blocks += 1;
            if blocks % 3 == 0 {
                host.kill();
                host.revive();
            }
        }
        assert_eq!(next, 20_001);
        drop(cursor);
        if transaction {
            within(one.execute("COMMIT", &[])).await.unwrap();
        }
    }
    // What is written meanwhile ends the reading of it.
    let two = session(&client).await;
    let mut cursor = one.query_cursor(&all, &[], 0, 1).await.unwrap();
    within(cursor.next_block()).await.unwrap();
    two.execute("DELETE FROM t WHERE x < 10", &[]).await.unwrap();
    host.cut();
    let error = loop {
        match within(cursor.next_block()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the result ended as if nothing had happened"),
            Err(error) => break error,
        }
    };
    assert!(["40001", "34000"].contains(&error.sqlstate()), "{error}");
    assert_eq!(count(&one, "SELECT count(*) FROM t").await, 19_991);
}

/// Many sessions that write while streams are lost again and again: each write is there once, no request fails.
#[tokio::test]
async fn many_sessions_never_notice() {
    let (host, client) = Host::start().await;
    let setup = session(&client).await;
    setup.execute("CREATE TABLE t(session, n, PRIMARY KEY (session, n))", &[]).await.unwrap();
    setup.execute("CREATE TABLE total(n)", &[]).await.unwrap();
    setup.execute("INSERT INTO total VALUES (0)", &[]).await.unwrap();
    let mut working = Vec::new();
    for number in 0..24 {
        let one = session(&client).await;
        working.push(tokio::spawn(async move {
            let insert = one.prepare("INSERT INTO t VALUES (?1, ?2)").await.unwrap();
            let mut retried = 0;
            for n in 0..60 {
                let key = [Value::Integer(number), Value::Integer(n)];
                if n % 3 > 0 {
                    assert_eq!(one.run(&insert, &key).await.unwrap().changes, 1);
                    continue;
                }
                loop {
                    one.execute("BEGIN IMMEDIATE", &[]).await.unwrap();
                    let outcome = async {
                        one.run(&insert, &key).await?;
                        one.execute("UPDATE total SET n = n + 1", &[]).await?;
                        one.execute("COMMIT", &[]).await
                    };
                    match outcome.await {
                        Ok(_) => break,
                        Err(error) => {
                            assert_eq!(error.sqlstate(), "40001", "{error}");
                            // A refused COMMIT has ended it already.
                            let _ = one.execute("ROLLBACK", &[]).await;
                            retried += 1;
                        }
                    }
                }
            }
            retried
        }));
    }
    let mut rounds = 0;
    while working.iter().any(|worker| !worker.is_finished()) {
        tokio::time::sleep(Duration::from_millis(15 + rounds * 7 % 20)).await;
        rounds += 1;
        host.cut();
        assert!(rounds < 2_000, "the work does not come to an end");
    }
    for worker in working {
        within(worker).await.unwrap();
    }
    assert!(rounds > 5, "{rounds} losses prove nothing");
    assert_eq!(count(&setup, "SELECT count(*) FROM t").await, 24 * 60);
    assert_eq!(count(&setup, "SELECT n FROM total").await, 24 * 20);
}
