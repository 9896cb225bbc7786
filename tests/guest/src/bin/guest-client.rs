//! A Rust application in a guest: an unmodified tokio-postgres on the agent's Unix socket, which prepares
//! everything and reads binary results. Checks what it gets itself; a failure is its exit status.
//!
//! `guest-client DATABASE CASE`, with CASE one of those in [`main`].

use std::env::args;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls};

/// Queries that are under way at once on one connection.
const PIPELINED: i64 = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let database = args().nth(1).context("usage: guest-client DATABASE CASE")?;
    let case = args().nth(2).context("usage: guest-client DATABASE CASE")?;
    let mut client = connect(&database).await?;
    match case.as_str() {
        "values" => values(&client).await,
        "prepared" => prepared(&client).await,
        "pipelined" => pipelined(&client).await,
        "portals" => portals(&mut client).await,
        "transactions" => transactions(&mut client).await,
        "errors" => errors(&client).await,
        "cancel" => cancel(&client).await,
        "copy" => copy(&client).await,
        _ => bail!("no case {case}"),
    }
    .with_context(|| format!("case {case}"))?;
    println!("{case}: ok");
    Ok(())
}

async fn connect(database: &str) -> Result<Client> {
    let mut config = Config::new();
    config
        .host_path("/run/postgresql")
        .user("vamos")
        .dbname(database)
        .connect_timeout(Duration::from_secs(30));
    let (client, connection) = config.connect(NoTls).await.context("connecting")?;
    tokio::spawn(connection);
    Ok(client)
}

/// Every type there and back in its binary form, and its absence.
async fn values(client: &Client) -> Result<()> {
    client
        .batch_execute(
            "DROP TABLE IF EXISTS v; CREATE TABLE v (id bigint PRIMARY KEY, small integer, real double precision, \
             words text, bytes bytea, truth boolean)",
        )
        .await?;
    let insert = client
        .prepare_typed(
            "INSERT INTO v VALUES ($1, $2, $3, $4, $5, $6)",
            &[Type::INT8, Type::INT4, Type::FLOAT8, Type::TEXT, Type::BYTEA, Type::BOOL],
        )
        .await?;
    let bytes: Vec<u8> = (0..=255).collect();
    let words = "Zoë ☃ 'quoted' \\ \u{1F600}";
    client.execute(&insert, &[&i64::MIN, &-7_i32, &0.1_f64, &words, &bytes, &true]).await?;
    let nothing = (None::<i32>, None::<f64>, None::<String>, None::<Vec<u8>>, None::<bool>);
    client.execute(&insert, &[&1_i64, &nothing.0, &nothing.1, &nothing.2, &nothing.3, &nothing.4]).await?;
    let rows = client.query("SELECT id, small, real, words, bytes, truth FROM v ORDER BY id", &[]).await?;
    ensure!(rows.len() == 2, "{} rows", rows.len());
    let row = &rows[0];
    ensure!(row.try_get::<_, i64>(0)? == i64::MIN, "bigint");
    // An integer of SQLite's may need 64 bits, whatever its column was declared as.
    ensure!(row.try_get::<_, i64>(1)? == -7, "integer");
    ensure!(row.try_get::<_, f64>(2)?.to_bits() == 0.1_f64.to_bits(), "double precision");
    ensure!(row.try_get::<_, String>(3)? == words, "text");
    ensure!(row.try_get::<_, Vec<u8>>(4)? == bytes, "bytea");
    ensure!(row.try_get::<_, bool>(5)?, "boolean");
    ensure!(rows[1].try_get::<_, Option<String>>(3)?.is_none(), "null text");
    ensure!(rows[1].try_get::<_, Option<i64>>(1)?.is_none(), "null integer");
    Ok(())
}

/// One statement, prepared once, with the server's idea of its parameters.
async fn prepared(client: &Client) -> Result<()> {
    client
        .batch_execute("DROP TABLE IF EXISTS p; CREATE TABLE p (id integer PRIMARY KEY, name text NOT NULL)")
        .await?;
    let insert = client.prepare("INSERT INTO p (id, name) VALUES ($1, $2)").await?;
    ensure!(insert.params() == [Type::INT8, Type::TEXT], "parameters are {:?}", insert.params());
    for id in 0..100_i64 {
        let changed = client.execute(&insert, &[&id, &format!("name {id}")]).await?;
        ensure!(changed == 1, "{changed} rows inserted");
    }
    let select = client.prepare("SELECT name FROM p WHERE id = $1").await?;
    for id in (0..100_i64).rev() {
        let row = client.query_one(&select, &[&id]).await?;
        ensure!(row.try_get::<_, String>(0)? == format!("name {id}"), "row {id}");
    }
    let changed = client.execute("UPDATE p SET name = 'x' WHERE id < $1", &[&10_i64]).await?;
    ensure!(changed == 10, "{changed} rows updated");
    Ok(())
}

/// Many queries under way on one connection answer in order.
async fn pipelined(client: &Client) -> Result<()> {
    let statement = client.prepare_typed("SELECT $1 * 2", &[Type::INT8]).await?;
    let statement = &statement;
    let mut under_way = Vec::new();
    for number in 0..PIPELINED {
        under_way.push(async move {
            let row = client.query_one(statement, &[&number]).await?;
            anyhow::Ok((number, row.get::<_, i64>(0)))
        });
    }
    for pair in futures::future::join_all(under_way).await {
        let (number, answer) = pair?;
        ensure!(answer == number * 2, "{number} * 2 is said to be {answer}");
    }
    Ok(())
}

/// A result in portions.
async fn portals(client: &mut Client) -> Result<()> {
    client.batch_execute("DROP TABLE IF EXISTS q; CREATE TABLE q (id integer PRIMARY KEY)").await?;
    client
        .batch_execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO q SELECT i FROM n")
        .await?;
    let transaction = client.transaction().await?;
    let portal = transaction.bind("SELECT id FROM q ORDER BY id", &[]).await?;
    let mut seen = 0;
    loop {
        let rows = transaction.query_portal(&portal, 300).await?;
        for row in &rows {
            seen += 1;
            ensure!(row.try_get::<_, i64>(0)? == seen, "row {seen}");
        }
        if rows.len() < 300 {
            break;
        }
    }
    ensure!(seen == 1000, "{seen} rows");
    transaction.commit().await?;
    Ok(())
}

/// Commit, rollback, savepoints, and a neighbour who sees only what is committed.
async fn transactions(client: &mut Client) -> Result<()> {
    client.batch_execute("DROP TABLE IF EXISTS t; CREATE TABLE t (id integer PRIMARY KEY)").await?;
    let database = args().nth(1).context("database")?;
    let neighbour = connect(&database).await?;
    let count = "SELECT count(*) FROM t";

    let mut transaction = client.transaction().await?;
    transaction.execute("INSERT INTO t VALUES (1)", &[]).await?;
    let savepoint = transaction.transaction().await?;
    savepoint.execute("INSERT INTO t VALUES (2)", &[]).await?;
    savepoint.rollback().await?;
    let savepoint = transaction.transaction().await?;
    savepoint.execute("INSERT INTO t VALUES (3)", &[]).await?;
    savepoint.commit().await?;
    ensure!(transaction.query_one(count, &[]).await?.get::<_, i64>(0) == 2, "own rows");
    ensure!(neighbour.query_one(count, &[]).await?.get::<_, i64>(0) == 0, "uncommitted rows are seen");
    transaction.commit().await?;
    ensure!(neighbour.query_one(count, &[]).await?.get::<_, i64>(0) == 2, "committed rows are not seen");

    let transaction = client.transaction().await?;
    transaction.execute("DELETE FROM t", &[]).await?;
    transaction.rollback().await?;
    ensure!(client.query_one(count, &[]).await?.get::<_, i64>(0) == 2, "a rollback lost rows");
    Ok(())
}

/// Each mistake has its SQLSTATE, and the connection goes on.
async fn errors(client: &Client) -> Result<()> {
    client
        .batch_execute("DROP TABLE IF EXISTS e; CREATE TABLE e (id integer PRIMARY KEY, name text NOT NULL); INSERT INTO e VALUES (1, 'a')")
        .await?;
    let mistakes = [
        ("SELEKT 1", SqlState::SYNTAX_ERROR),
        ("SELECT * FROM nowhere", SqlState::UNDEFINED_TABLE),
        ("SELECT missing FROM e", SqlState::UNDEFINED_COLUMN),
        ("INSERT INTO e VALUES (1, 'b')", SqlState::UNIQUE_VIOLATION),
        ("INSERT INTO e VALUES (2, NULL)", SqlState::NOT_NULL_VIOLATION),
        ("CREATE TABLE e (id integer)", SqlState::DUPLICATE_TABLE),
    ];
    for (sql, expected) in mistakes {
        // Both protocols.
        let simple = client.simple_query(sql).await.err().with_context(|| format!("{sql} succeeded"))?;
        ensure!(simple.code() == Some(&expected), "{sql}: {simple:?}");
        let extended = client.query(sql, &[]).await.err().with_context(|| format!("{sql} succeeded"))?;
        ensure!(extended.code() == Some(&expected), "{sql}, prepared: {extended:?}");
    }
    client.batch_execute("BEGIN").await?;
    client.batch_execute("SELECT * FROM nowhere").await.err().context("it succeeded")?;
    let aborted = client.batch_execute("SELECT 1").await.err().context("an aborted transaction goes on")?;
    ensure!(aborted.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION), "{aborted:?}");
    client.batch_execute("ROLLBACK").await?;
    ensure!(
        client.query_one("SELECT count(*) FROM e", &[]).await?.get::<_, i64>(0) == 1,
        "the table changed"
    );
    Ok(())
}

/// A statement that would take for ever is cancelled, and the connection goes on.
async fn cancel(client: &Client) -> Result<()> {
    let token = client.cancel_token();
    let start = Instant::now();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let (answer, cancelled) = tokio::join!(client.query(endless, &[]), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        token.cancel_query(NoTls).await
    });
    cancelled.context("sending the cancel request")?;
    let error = answer.err().context("an endless statement ended")?;
    ensure!(error.code() == Some(&SqlState::QUERY_CANCELED), "{error:?}");
    ensure!(start.elapsed() < Duration::from_secs(10), "cancelled after {:?}", start.elapsed());
    ensure!(client.query_one("SELECT 1::bigint", &[]).await?.get::<_, i64>(0) == 1, "afterwards");
    Ok(())
}

/// COPY in, with a mistake in the middle, and again without.
async fn copy(client: &Client) -> Result<()> {
    use futures::SinkExt;
    client
        .batch_execute("DROP TABLE IF EXISTS c; CREATE TABLE c (id integer PRIMARY KEY, name text)")
        .await?;
    let sink = client.copy_in::<_, &[u8]>("COPY c FROM STDIN").await?;
    let mut sink = pin!(sink);
    sink.send(&b"1\tone\n2\t\\N\n"[..]).await?;
    // Lines may be cut anywhere.
    sink.send(&b"3\tth"[..]).await?;
    sink.send(&b"ree\n"[..]).await?;
    ensure!(sink.finish().await? == 3, "rows copied");
    let sink = client.copy_in::<_, &[u8]>("COPY c FROM STDIN").await?;
    let mut sink = pin!(sink);
    sink.send(&b"4\tfour\n1\tagain\n"[..]).await?;
    let error = sink.finish().await.err().context("a duplicate key was copied")?;
    ensure!(error.code() == Some(&SqlState::UNIQUE_VIOLATION), "{error:?}");
    let rows = client.query("SELECT name FROM c ORDER BY id", &[]).await?;
    let names: Vec<Option<String>> = rows.iter().map(|row| row.get(0)).collect();
    ensure!(names == [Some("one".into()), None, Some("three".into())], "{names:?}: a failed COPY left rows");
    Ok(())
}
