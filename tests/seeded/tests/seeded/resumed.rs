//! What a session must be after a loss in the middle of its work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use vamos_proto::id::VsockPort;
use vamos_seam::Point;
use vamos_sql_client::{Client, ClientError, Session, Value};

use crate::Finding;
use crate::bugs::HANGS;
use crate::line::Line;
use crate::loss::{number, session};
use crate::random::Random;
use crate::stage::{DATABASE, PATIENCE, Stage};

fn told(error: ClientError) -> Finding {
    format!("a client was told: {error}")
}

async fn all(session: &Session, statements: &[&str]) -> Result<(), Finding> {
    for statement in statements {
        match timeout(HANGS, session.execute(statement, &[])).await {
            Err(_) => return Err(format!("{statement} waits for ever")),
            Ok(outcome) => outcome.map(drop).map_err(told)?,
        }
    }
    Ok(())
}

fn expect(what: &str, found: i64, expected: i64) -> Result<(), Finding> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found}, and not {expected}")) }
}

/// The cell is lost between a write and the question which row it was.
pub async fn with_its_history(stage: &mut Option<Stage>) -> Result<(), Finding> {
    let stage = stage.as_ref().unwrap();
    let session = session(stage).await;
    all(&session, &["CREATE TABLE done (n INTEGER PRIMARY KEY)", "INSERT INTO done VALUES (17)"]).await?;
    assert!(stage.kill().await);
    expect("last_insert_rowid()", number(&session, "SELECT last_insert_rowid()").await, 17)?;
    expect("changes()", number(&session, "SELECT changes()").await, 1)
}

/// The cell is lost after a part of a transaction was taken back.
pub async fn with_its_savepoints(stage: &mut Option<Stage>) -> Result<(), Finding> {
    let stage = stage.as_ref().unwrap();
    let session = session(stage).await;
    let before = [
        "CREATE TABLE done (n INTEGER)",
        "BEGIN IMMEDIATE",
        "INSERT INTO done VALUES (1)",
        "SAVEPOINT part",
        "INSERT INTO done VALUES (2)",
        "ROLLBACK TO part",
    ];
    all(&session, &before).await?;
    assert!(stage.kill().await);
    all(&session, &["RELEASE part", "COMMIT"]).await?;
    expect("rows", number(&session, "SELECT count(*) FROM done").await, 1)
}

/// The cell is lost in a transaction, and somebody else changes what that has read.
pub async fn to_what_it_has_read(stage: &mut Option<Stage>) -> Result<(), Finding> {
    let stage = stage.as_ref().unwrap();
    let channel = stage.attach().await;
    let line = Arc::new(Line::new(&channel, Random(1)));
    let reader = Client::dial(line.clone()).await.map_err(told)?;
    let reader = reader.open(DATABASE, "reader").await.map_err(told)?;
    let writer = Client::connect(&channel, VsockPort::FIRST_BINDING).await.map_err(told)?;
    let writer = writer.open(DATABASE, "writer").await.map_err(told)?;
    all(&writer, &["CREATE TABLE total (n INTEGER)", "INSERT INTO total VALUES (1)"]).await?;
    all(&reader, &["BEGIN"]).await?;
    let total = number(&reader, "SELECT n FROM total").await;
    line.hold(true);
    assert!(stage.kill().await);
    all(&writer, &["UPDATE total SET n = n + 10"]).await?;
    line.hold(false);
    let counted = format!("UPDATE total SET n = {}", total + 1);
    match timeout(HANGS, reader.execute(&counted, &[])).await {
        Err(_) => Err("the transaction waits for ever".to_owned()),
        Ok(Err(error)) if error.sqlstate() == "40001" => Ok(()),
        Ok(Err(error)) => Err(told(error)),
        Ok(Ok(_)) => Err("the transaction writes what follows from a row that has changed".to_owned()),
    }
}

/// A transaction is committed, and neither that nor what its statements did is told before the cell is lost.
pub async fn to_all_it_has_sent(stage: &mut Option<Stage>) -> Result<(), Finding> {
    let stage = stage.as_ref().unwrap();
    let line = Arc::new(Line::new(&stage.attach().await, Random(1)));
    let client = Client::dial(line.clone()).await.map_err(told)?;
    let session = client.open(DATABASE, "client").await.map_err(told)?;
    all(&session, &["CREATE TABLE done (n INTEGER)"]).await?;
    let insert = session.prepare("INSERT INTO done VALUES (?1)").await.map_err(told)?;
    all(&session, &["BEGIN IMMEDIATE"]).await?;
    let cells = stage.cells().await;
    stage.order_at("die", Point::Committed, 1);
    line.hold(true);
    let mut sent = Vec::new();
    for n in 1..=4 {
        sent.push(session.send_run(&insert, &[Value::Integer(n)]).await.map_err(told)?);
    }
    let working = async {
        let committed = session.execute("COMMIT", &[]).await;
        for sent in sent {
            sent.outcome().await.map_err(told)?;
        }
        committed.map(drop).map_err(told)
    };
    let losing = async {
        // A COMMIT that is sent at once kills the cell; one that waits for the held answers is not there to.
        let end = Instant::now() + Duration::from_secs(2);
        while stage.cells().await == cells && Instant::now() < end {
            sleep(Duration::from_millis(5)).await;
        }
        line.cut();
        line.hold(false);
    };
    let (worked, ()) = match timeout(PATIENCE, async { tokio::join!(working, losing) }).await {
        Ok(outcome) => outcome,
        Err(_) => return Err("the transaction waits for ever".to_owned()),
    };
    worked?;
    expect("rows", number(&session, "SELECT count(*) FROM done").await, 4)
}
