//! One client, one loss at a named point.

use tokio::time::timeout;
use vamos_proto::id::VsockPort;
use vamos_seam::Point;
use vamos_sql_client::{Client, Session, Value};

use crate::Finding;
use crate::bugs::HANGS;
use crate::stage::{DATABASE, Stage};

pub async fn session(stage: &Stage) -> Session {
    let client = Client::connect(&stage.attach().await, VsockPort::FIRST_BINDING).await.unwrap();
    client.open(DATABASE, "client").await.unwrap()
}

pub async fn number(session: &Session, sql: &str) -> i64 {
    match session.execute(sql, &[]).await.unwrap().rows().unwrap()[0][0] {
        Value::Integer(number) => number,
        ref other => panic!("{sql}: {other:?}"),
    }
}

/// The cell has taken a request off the ring, and dies. Nobody else uses the link.
pub async fn of_a_request(stage: &mut Option<Stage>) -> Result<(), Finding> {
    let stage = stage.as_ref().unwrap();
    let session = session(stage).await;
    session.execute("CREATE TABLE done (n INTEGER)", &[]).await.unwrap();
    stage.order_at("die", Point::Effect, 1);
    match timeout(HANGS, session.execute("INSERT INTO done VALUES (1)", &[])).await {
        Err(_) => Err("a client waits for ever on a stream that nobody knows".to_owned()),
        Ok(outcome) => outcome.map(drop).map_err(|error| error.to_string()),
    }
}

/// A transaction is committed; its client is not told.
pub async fn of_a_commit(stage: &mut Option<Stage>) -> Result<(), Finding> {
    let stage = stage.as_ref().unwrap();
    let session = session(stage).await;
    session.execute("CREATE TABLE done (n INTEGER)", &[]).await.unwrap();
    for statement in ["BEGIN IMMEDIATE", "SELECT count(*) FROM done", "INSERT INTO done VALUES (1)"] {
        session.execute(statement, &[]).await.unwrap();
    }
    stage.order_at("die", Point::Committed, 1);
    let told = |error: vamos_sql_client::ClientError| format!("a client was told: {error}");
    match timeout(HANGS, session.execute("COMMIT", &[])).await {
        Err(_) => return Err("a client waits for ever for its COMMIT".to_owned()),
        Ok(outcome) => outcome.map_err(told)?,
    };
    // It is free for another one, and so is everybody else.
    for statement in ["BEGIN IMMEDIATE", "INSERT INTO done VALUES (2)", "COMMIT"] {
        match timeout(HANGS, session.execute(statement, &[])).await {
            Err(_) => return Err(format!("{statement} waits for ever")),
            Ok(outcome) => outcome.map_err(told)?,
        };
    }
    match number(&session, "SELECT count(*) FROM done").await {
        2 => Ok(()),
        other => Err(format!("two rows were written, and there are {other}")),
    }
}
