//! tokio-postgres, unmodified: types in binary, prepared statements, errors with their fields, pipelining.

use futures::TryStreamExt;
use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::types::Type;

use vamos_agent::postgres::door::{Address, DoorError};

use crate::host::Host;

#[tokio::test]
async fn values_travel_in_binary() {
    let host = Host::start().await;
    let client = host.driver().await;
    client
        .batch_execute(
            "CREATE TABLE t(i INTEGER, r REAL, s TEXT, v VARCHAR(10), b BLOB, f BOOLEAN, d DATE, j JSON)",
        )
        .await
        .unwrap();
    let insert =
        client.prepare("INSERT INTO t(i, r, s, v, b, f) VALUES ($1, $2, $3, $4, $5, $6)").await.unwrap();
    let expected = [Type::INT8, Type::FLOAT8, Type::TEXT, Type::VARCHAR, Type::BYTEA, Type::BOOL];
    assert_eq!(insert.params(), expected);
    let blob: &[u8] = &[0, 1, 255];
    let done = client.execute(&insert, &[&i64::MIN, &-0.25f64, &"snö", &"x", &blob, &true]).await.unwrap();
    assert_eq!(done, 1);
    client
        .execute(
            &insert,
            &[&None::<i64>, &None::<f64>, &None::<&str>, &None::<&str>, &None::<&[u8]>, &None::<bool>],
        )
        .await
        .unwrap();
    let rows = client.query("SELECT i, r, s, v, b, f FROM t ORDER BY i DESC NULLS LAST", &[]).await.unwrap();
    let row = &rows[0];
    assert_eq!((row.get::<_, i64>(0), row.get::<_, f64>(1)), (i64::MIN, -0.25));
    assert_eq!((row.get::<_, &str>(2), row.get::<_, &str>(3)), ("snö", "x"));
    assert_eq!((row.get::<_, &[u8]>(4), row.get::<_, bool>(5)), (blob, true));
    assert_eq!(rows[1].get::<_, Option<i64>>(0), None);
    let select = client.prepare("SELECT d, j, v FROM t").await.unwrap();
    let types: Vec<&Type> = select.columns().iter().map(|column| column.type_()).collect();
    assert_eq!(types, [&Type::DATE, &Type::JSON, &Type::VARCHAR]);
}

#[tokio::test]
async fn expressions_and_parameters_have_types() {
    let host = Host::start().await;
    let client = host.driver().await;
    client.batch_execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT)").await.unwrap();
    for id in 1..=10i64 {
        client.execute("INSERT INTO t VALUES ($1, $2)", &[&id, &format!("name {id}")]).await.unwrap();
    }
    let sql =
        "SELECT count(*), avg(id), max(name), count(*) > 5, $2::text FROM t WHERE id > $1 AND name LIKE $3";
    let row = client.query_one(sql, &[&5i64, &"echo", &"name%"]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, f64>(1)), (5, 8.0));
    assert_eq!(
        (row.get::<_, &str>(2), row.get::<_, bool>(3), row.get::<_, &str>(4)),
        ("name 9", false, "echo")
    );
    let row = client
        .query_one("SELECT id, name FROM t WHERE name = $1 LIMIT $2", &[&"name 3", &1i64])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>("id"), 3);
    let row = client.query_one("INSERT INTO t(name) VALUES ($1) RETURNING id", &[&"new"]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 11);
}

#[tokio::test]
async fn errors_have_their_fields() {
    let host = Host::start().await;
    let client = host.driver().await;
    client.batch_execute("CREATE TABLE t(x INTEGER UNIQUE NOT NULL)").await.unwrap();
    let error = client.query("SELECT 'ö', wrong FROM t", &[]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code(), &SqlState::UNDEFINED_COLUMN);
    // In characters, from 1: the ö is two bytes and one character.
    assert_eq!(error.position(), Some(&ErrorPosition::Original(13)));
    for (sql, sqlstate) in [
        ("SELECT * FROM nowhere", SqlState::UNDEFINED_TABLE),
        ("SELEC 1", SqlState::SYNTAX_ERROR),
        ("INSERT INTO t VALUES (NULL)", SqlState::NOT_NULL_VIOLATION),
        ("ATTACH 'x' AS y", SqlState::INSUFFICIENT_PRIVILEGE),
    ] {
        let error = client.query(sql, &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(&sqlstate), "{sql}: {error}");
    }
    let error = client.query("CREATE EXTENSION x", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED));
}

#[tokio::test]
async fn an_unknown_database_is_named() {
    let host = Host::start().await;
    let mut config = tokio_postgres::Config::new();
    config.host_path(host.path()).user("tester").dbname("nowhere");
    let Err(error) = config.connect(tokio_postgres::NoTls).await else { panic!("connected to nowhere") };
    let error = error.as_db_error().unwrap();
    assert_eq!(
        (error.code(), error.hint()),
        (&SqlState::INVALID_CATALOG_NAME, Some("The databases of this machine: shop."))
    );
}

#[tokio::test]
async fn many_requests_are_pipelined() {
    let host = Host::start().await;
    let client = host.driver().await;
    client.batch_execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT)").await.unwrap();
    let insert = client.prepare("INSERT INTO t VALUES ($1, 'x')").await.unwrap();
    let ids: Vec<i64> = (0..500).collect();
    let all = futures::future::join_all(ids.iter().map(|id| client.execute_raw(&insert, [id]))).await;
    assert!(all.into_iter().all(|done| matches!(done, Ok(1))));
    let rows = client.query_raw("SELECT id FROM t WHERE id >= $1 ORDER BY id", [490i64]).await.unwrap();
    let found: Vec<i64> = rows.map_ok(|row| row.get::<_, i64>(0)).try_collect().await.unwrap();
    assert_eq!(found, (490..500).collect::<Vec<i64>>());
}

#[tokio::test]
async fn many_clients_share_the_link() {
    let host = Host::start().await;
    host.rows("CREATE TABLE t(x INTEGER);").await;
    let clients = futures::future::join_all((0..32).map(|_| host.driver())).await;
    let work = clients.iter().map(|client| async {
        for _ in 0..10 {
            client.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
        }
    });
    futures::future::join_all(work).await;
    assert_eq!(host.rows("SELECT sum(x) FROM t;").await, "320\n");
}

#[tokio::test]
async fn portals_hold_large_results() {
    let host = Host::start().await;
    let mut client = host.driver().await;
    client.batch_execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT)").await.unwrap();
    let sql = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT i, hex(i) FROM n";
    assert_eq!(client.execute(sql, &[]).await.unwrap(), 100_000);
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT id FROM t WHERE id > $1 ORDER BY id", &[&10i64]).await.unwrap();
    for round in 0..3i64 {
        let rows = transaction.query_portal(&portal, 1000).await.unwrap();
        assert_eq!((rows.len(), rows[0].get::<_, i64>(0)), (1000, 11 + round * 1000));
    }
    let rest = transaction.query_portal(&portal, 0).await.unwrap();
    assert_eq!(rest.len(), 100_000 - 10 - 3000);
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_changed_schema_is_noticed() {
    let host = Host::start().await;
    let (one, other) = (host.driver().await, host.driver().await);
    one.batch_execute("CREATE TABLE t(a INTEGER); INSERT INTO t VALUES (1)").await.unwrap();
    let statement = one.prepare("SELECT * FROM t").await.unwrap();
    assert_eq!(one.query(&statement, &[]).await.unwrap()[0].len(), 1);
    other.batch_execute("ALTER TABLE t ADD COLUMN b TEXT").await.unwrap();
    let error = one.query(&statement, &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED));
    let row = one.query_one("SELECT * FROM t", &[]).await.unwrap();
    assert_eq!(row.len(), 2);
}

#[tokio::test]
async fn a_cancel_token_cancels() {
    let host = Host::start().await;
    let client = host.driver().await;
    let token = client.cancel_token();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let cancel = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(client.query(endless, &[]), cancel);
    assert_eq!(outcome.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(client.query_one("SELECT 7", &[]).await.unwrap().get::<_, i64>(0), 7);
}

#[tokio::test]
async fn a_tcp_door_is_on_loopback_or_nowhere() {
    let mut host = Host::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unix = Address::Unix(host.path().join(".s.PGSQL.5432"));
    host.doors.update(&[unix.clone(), Address::Tcp(free)]).await.unwrap();
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(free.port()).user("tester").dbname("shop");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("the driver connects");
    tokio::spawn(connection);
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i64>(0), 1);
    // The door goes, the connection stays.
    host.doors.update(std::slice::from_ref(&unix)).await.unwrap();
    assert!(tokio::net::TcpStream::connect(free).await.is_err());
    assert!(client.query_one("SELECT 1", &[]).await.is_ok());
    let open: std::net::SocketAddr = "0.0.0.0:0".parse().unwrap();
    let error = host.doors.update(&[unix, Address::Tcp(open)]).await.unwrap_err();
    assert!(matches!(error, DoorError::NotLoopback(address) if address == open), "{error}");
    host.driver().await;
}

#[tokio::test]
async fn a_shutdown_is_told_to_clients() {
    let mut host = Host::start().await;
    let socket = host.path().join(".s.PGSQL.5432");
    let client = host.driver().await;
    assert!(socket.exists());
    host.doors.close_all().await;
    assert!(!socket.exists(), "the socket outlived the door");
    assert!(client.query_one("SELECT 1", &[]).await.is_ok(), "open connections outlive the door");
    drop(host.doors);
    host.trigger.begin();
    tokio::time::timeout(std::time::Duration::from_secs(5), host.trigger.done())
        .await
        .expect("connections end");
    assert!(client.query("SELECT 1", &[]).await.is_err());
}
