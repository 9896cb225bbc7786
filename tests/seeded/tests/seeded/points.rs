//! Crash points by name: a real cell fails or is the end of itself at each of them, under a client that goes on.

use vamos_seam::Point;
use vamos_sql_client::{ClientError, Session, Value};

use crate::alone;
use crate::loss::{number, session};
use crate::stage::Stage;

/// Pairs of writes after which every point must have been passed: enough of them to fill the log.
const ROUNDS_MAX: i64 = 60;

/// Bytes of each row, so that the log is full soon.
const FILLING: i64 = 100_000;

/// What the client was told of each row: done, or what went wrong.
struct Told {
    session: Session,
    done: Vec<i64>,
    failed: Vec<(i64, String)>,
}

impl Told {
    fn note(&mut self, n: i64, outcome: Result<(), ClientError>) {
        match outcome {
            Ok(()) => self.done.push(n),
            Err(error) => self.failed.push((n, error.sqlstate().to_owned())),
        }
    }

    async fn write(&mut self, n: i64) {
        let key = [Value::Integer(n), Value::Integer(FILLING)];
        let outcome = self.session.execute("INSERT INTO done VALUES (?1, zeroblob(?2))", &key).await;
        self.note(n, outcome.map(drop));
    }

    async fn transact(&mut self, n: i64) {
        let key = [Value::Integer(n), Value::Integer(FILLING)];
        let transaction = async {
            self.session.execute("BEGIN IMMEDIATE", &[]).await?;
            self.session.execute("SELECT count(*) FROM done", &[]).await?;
            self.session.execute("INSERT INTO done VALUES (?1, zeroblob(?2))", &key).await?;
            self.session.execute("COMMIT", &[]).await.map(drop)
        };
        let outcome = transaction.await;
        if outcome.is_err() {
            // Where there is none any more it says so.
            let _ = self.session.execute("ROLLBACK", &[]).await;
        }
        self.note(n, outcome);
    }

    /// Each row that was acknowledged is there once; of the others, none more than once.
    async fn check(&self, what: &str) {
        for n in &self.done {
            let count = number(&self.session, &format!("SELECT count(*) FROM done WHERE n = {n}")).await;
            assert_eq!(count, 1, "{what}: row {n} was acknowledged");
        }
        let doubled = "SELECT count(*) - count(DISTINCT n) FROM done";
        assert_eq!(number(&self.session, doubled).await, 0, "{what}: rows are there twice");
        let rows = number(&self.session, "SELECT count(*) FROM done").await;
        assert!(rows as usize <= self.done.len() + self.failed.len(), "{what}: {rows} rows");
        let integrity = self.session.execute("PRAGMA integrity_check", &[]).await.unwrap();
        assert_eq!(integrity.rows().unwrap(), [[Value::Text("ok".to_owned())]], "{what}");
    }
}

/// Carries the orders out, one after the other, while a client writes; what it was told, and how many cells there were.
async fn carried_out(orders: &[(&str, Point, u64)]) -> (Told, u64) {
    let what = format!("{orders:?}");
    let stage = Stage::with(None).await;
    let session = session(&stage).await;
    session.execute("CREATE TABLE done (n INTEGER, filling BLOB)", &[]).await.unwrap();
    // A row that has been acknowledged, and whose record can be collected.
    session.execute("INSERT INTO done VALUES (-1, NULL)", &[]).await.unwrap();
    for &(verb, point, nth) in orders {
        stage.order_at(verb, point, nth);
    }
    let mut told = Told { session, done: vec![-1], failed: Vec::new() };
    for round in 0..ROUNDS_MAX {
        told.write(2 * round).await;
        told.transact(2 * round + 1).await;
        if stage.orders().is_empty() {
            break;
        }
    }
    assert_eq!(stage.orders(), "", "{what}: not reached");
    // Whoever died in vain for the last time must have been followed by one that lives.
    told.write(2 * ROUNDS_MAX).await;
    told.check(&what).await;
    let cells = stage.cells().await;
    stage.end().await;
    (told, cells)
}

/// Nobody is told of a cell that dies, and everything is done once.
async fn dies(orders: &[(Point, u64)]) {
    let _alone = alone().await;
    let orders: Vec<_> = orders.iter().map(|&(point, nth)| ("die", point, nth)).collect();
    let (told, cells) = carried_out(&orders).await;
    assert_eq!(told.failed, [], "{orders:?}");
    // Those that died before they served are not counted.
    assert!(cells > 1, "{orders:?}");
}

macro_rules! exactly_once {
    ($($test:ident: $([$(($point:ident, $nth:literal)),+]),+;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            $(dies(&[$((Point::$point, $nth)),+]).await;)+
        })*
    };
}

exactly_once! {
    k69_killed_before_begin: [(Begin, 1)];
    k69_killed_after_the_effect: [(Effect, 1)], [(Effect, 2)];
    k69_killed_after_the_completion_record: [(Recorded, 1)], [(Recorded, 2)];
    k69_killed_before_the_commit_and_its_fsync: [(Commit, 1)], [(Commit, 2)], [(Sync, 1)], [(Sync, 2)];
    k69_killed_after_the_fsync_before_the_answer: [(Synced, 1)], [(Committed, 1)], [(Committed, 2)];
    k69_killed_during_the_answer: [(Told, 1)];
    k69_killed_during_a_checkpoint: [(Checkpoint, 1)], [(Checkpointed, 1)];
    k69_killed_while_records_are_collected: [(Collected, 1)], [(Collected, 2)];
    k69_killed_during_recovery: [(Effect, 1), (Recover, 1)], [(Committed, 1), (Recovered, 1), (Resumed, 1)],
        [(Synced, 1), (Recover, 1), (Sync, 1), (Synced, 1), (Recovered, 1), (Resumed, 1)];
}

/// Fails once at a point: the client is told what, if it may be told, and the next statement is served.
async fn fails(point: Point, nth: u64, cells: u64) {
    let _alone = alone().await;
    let (told, started) = carried_out(&[("fail", point, nth)]).await;
    println!("{point:?} {nth}: {:?}, {started} cells", told.failed);
    let clear = |sqlstate: &str| ["58030", "25P01", "25P02", "40001"].contains(&sqlstate);
    assert!(
        told.failed.len() <= 2 && told.failed.iter().all(|(_, sqlstate)| clear(sqlstate)),
        "{:?}",
        told.failed
    );
    assert_eq!(started, cells, "{point:?} {nth}");
    // The death of a cell is nothing that a client is told.
    assert!(cells == 1 || told.failed.is_empty(), "{point:?} {nth}: {:?}", told.failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn k67_fails_before_the_commit_and_the_same_cell_goes_on() {
    for (point, nth) in [
        (Point::Begin, 1),
        (Point::Effect, 1),
        (Point::Effect, 2),
        (Point::Recorded, 1),
        (Point::Commit, 1),
        (Point::Collected, 1),
    ] {
        fails(point, nth, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k67_a_sync_or_commit_that_fails_is_the_end_of_the_cell() {
    for (point, nth) in [
        // In a transaction of the client's own, in its COMMIT.
        (Point::Recorded, 2),
        (Point::Committed, 1),
        (Point::Sync, 1),
        (Point::Sync, 2),
        (Point::Synced, 1),
        (Point::Synced, 2),
    ] {
        fails(point, nth, 2).await;
    }
}
