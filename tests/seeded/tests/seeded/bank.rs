//! Clients that must not notice what is done to their cell, and the checker that knows what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::{sleep, timeout};
use vamos_seam::Point;
use vamos_sql_client::{Client, ClientError, Session, Statement, Value};

use crate::Finding;
use crate::line::Line;
use crate::random::Random;
use crate::stage::{DATABASE, Stage};

const LINKS: u64 = 2;
const CLIENTS: i64 = 6;
const STEPS: i64 = 30;

/// Deaths of cells in one run: more in a row, and they would be slowed down as such that cannot live.
const DEATHS_MAX: u64 = 6;

/// Points where a cell dies in any run.
const POINTS: &[Point] = &[
    Point::Begin,
    Point::Effect,
    Point::Recorded,
    Point::Commit,
    Point::Committed,
    Point::Told,
    Point::Collected,
    Point::Recover,
    Point::Recovered,
    Point::Resumed,
];

/// What a client was told.
#[derive(Debug, Default)]
struct Told {
    done: BTreeSet<(i64, i64)>,
    /// Transactions among them.
    counted: i64,
}

/// Lets clients work, does what is planned to them, and looks at what is left. A run that is not over within
/// `patience` hangs.
///
/// # Errors
/// What is wrong.
pub async fn run(stage: &Stage, seed: u64, patience: Duration) -> Result<(), Finding> {
    match timeout(patience, act(stage, seed)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("clients wait for more than {patience:?}")),
    }
}

async fn act(stage: &Stage, seed: u64) -> Result<(), Finding> {
    let mut random = Random(seed);
    let channel = stage.attach().await;
    let first = Client::connect(&channel, vamos_proto::id::VsockPort::FIRST_BINDING).await.map_err(told)?;
    let first = first.open(DATABASE, "checker").await.map_err(told)?;
    for statement in [
        "CREATE TABLE done (client INTEGER, n INTEGER)",
        "CREATE TABLE total (n INTEGER)",
        "INSERT INTO total VALUES (0)",
    ] {
        first.execute(statement, &[]).await.map_err(told)?;
    }
    let lines: Vec<Arc<Line>> = (0..LINKS).map(|_| Arc::new(Line::new(&channel, random.fork()))).collect();
    let mut working = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let line = lines[number as usize % lines.len()].clone();
        let random = random.fork();
        working.spawn(async move {
            let client = Client::dial(line).await.map_err(told)?;
            let session = client.open(DATABASE, "client").await.map_err(told)?;
            Worker::new(session, number, random).await?.work().await
        });
    }
    let mut sum = Told::default();
    let mut deaths = 0;
    while !working.is_empty() {
        tokio::select! {
            Some(worker) = working.join_next() => {
                let worker = worker.map_err(|error| error.to_string())??;
                sum.done.extend(worker.done);
                sum.counted += worker.counted;
            }
            () = sleep(Duration::from_micros(2_000 + random.below(25_000))) => {
                strike(stage, &lines, &mut random, &mut deaths).await;
            }
        }
    }
    check(&first, &sum).await
}

async fn strike(stage: &Stage, lines: &[Arc<Line>], random: &mut Random, deaths: &mut u64) {
    let (what, point, nth) = (random.below(6), random.below(POINTS.len() as u64), 1 + random.below(12));
    match what {
        0 if *deaths < DEATHS_MAX => *deaths += u64::from(stage.kill().await),
        1 | 2 if *deaths < DEATHS_MAX => {
            stage.order_at("die", POINTS[point as usize], nth);
            *deaths += 1;
        }
        _ => lines[what as usize % lines.len()].cut(),
    }
}

fn told(error: ClientError) -> Finding {
    format!("a client was told: {error} ({})", error.sqlstate())
}

struct Worker {
    session: Session,
    insert: Statement,
    number: i64,
    random: Random,
    told: Told,
}

/// Why a step did not come about.
enum Failure {
    /// It may be tried again.
    Again,
    Wrong(Finding),
}

impl Worker {
    async fn new(session: Session, number: i64, random: Random) -> Result<Self, Finding> {
        // A setting that a session has to keep.
        session.execute("PRAGMA foreign_keys = OFF", &[]).await.map_err(told)?;
        let insert = session.prepare("INSERT INTO done VALUES (?1, ?2)").await.map_err(told)?;
        Ok(Self { session, insert, number, random, told: Told::default() })
    }

    async fn work(mut self) -> Result<Told, Finding> {
        for step in 0..STEPS {
            let n = step * 10;
            let what = self.random.below(7);
            loop {
                let outcome = match what {
                    0 => self.write(n).await,
                    1 => self.slow_write(n).await,
                    2 => self.pipelined(n).await,
                    3 => self.remembered(n).await,
                    4 => self.transaction(n).await,
                    5 => self.pipelined_transaction(n).await,
                    _ => self.savepoint(n).await,
                };
                match outcome {
                    Ok(()) => break,
                    Err(Failure::Wrong(finding)) => return Err(finding),
                    Err(Failure::Again) => {}
                }
                // Outside a transaction it says that there is none.
                match self.session.execute("ROLLBACK", &[]).await {
                    Err(error) if error.sqlstate() != "25P01" => {
                        Self::again(error).map(drop).map_err(wrong)?
                    }
                    _ => {}
                }
            }
        }
        Ok(self.told)
    }

    /// Whether an error is one that clients may be told.
    fn again(error: ClientError) -> Result<Failure, Failure> {
        if error.sqlstate() == "40001" {
            return Ok(Failure::Again);
        }
        Err(Failure::Wrong(told(error)))
    }

    fn failed(error: ClientError) -> Failure {
        Self::again(error).unwrap_or_else(|wrong| wrong)
    }

    fn key(&self, n: i64) -> [Value; 2] {
        [Value::Integer(self.number), Value::Integer(n)]
    }

    fn note(&mut self, n: i64) {
        self.told.done.insert((self.number, n));
    }

    async fn write(&mut self, n: i64) -> Result<(), Failure> {
        let outcome = self.session.run(&self.insert, &self.key(n)).await.map_err(Self::failed)?;
        if outcome.changes != 1 {
            return Err(Failure::Wrong(format!("an INSERT changed {} rows", outcome.changes)));
        }
        self.note(n);
        Ok(())
    }

    /// Under way for a while.
    async fn slow_write(&mut self, n: i64) -> Result<(), Failure> {
        let slow = "WITH RECURSIVE i(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM i WHERE x < 20000)
            INSERT INTO done SELECT ?1, ?2 FROM (SELECT max(x) FROM i)";
        self.session.execute(slow, &self.key(n)).await.map_err(Self::failed)?;
        self.note(n);
        Ok(())
    }

    /// Several on their way at once.
    async fn pipelined(&mut self, n: i64) -> Result<(), Failure> {
        let mut sent = Vec::new();
        for at in n..n + 4 {
            sent.push(self.session.send_run(&self.insert, &self.key(at)).await.map_err(Self::failed)?);
        }
        for (at, sent) in (n..).zip(sent) {
            match sent.outcome().await {
                Ok(_) => self.note(at),
                // Refused, and not tried again: the others have been done.
                Err(error) => {
                    Self::again(error)?;
                }
            }
        }
        Ok(())
    }

    /// What a session knows of its last statement, and its settings.
    async fn remembered(&mut self, n: i64) -> Result<(), Failure> {
        let outcome = self.session.run(&self.insert, &self.key(n)).await.map_err(Self::failed)?;
        self.note(n);
        let last = self.number_of("SELECT last_insert_rowid()").await?;
        if last != outcome.last_insert_rowid {
            let finding = format!("last_insert_rowid() is {last}, and was {}", outcome.last_insert_rowid);
            return Err(Failure::Wrong(finding));
        }
        match self.number_of("PRAGMA foreign_keys").await? {
            0 => Ok(()),
            _ => Err(Failure::Wrong("a session has lost its settings".to_owned())),
        }
    }

    async fn number_of(&self, sql: &str) -> Result<i64, Failure> {
        let outcome = self.session.execute(sql, &[]).await.map_err(Self::failed)?;
        match outcome.rows().map(|rows| rows.into_iter().flatten().next()) {
            Ok(Some(Value::Integer(number))) => Ok(number),
            other => Err(Failure::Wrong(format!("{sql}: {other:?}"))),
        }
    }

    /// Reads, then writes what it has read.
    async fn transaction(&mut self, n: i64) -> Result<(), Failure> {
        let begin = if self.random.below(2) == 0 { "BEGIN" } else { "BEGIN IMMEDIATE" };
        self.session.execute(begin, &[]).await.map_err(Self::failed)?;
        let total = self.number_of("SELECT n FROM total").await?;
        self.session.run(&self.insert, &self.key(n)).await.map_err(Self::failed)?;
        let next = [Value::Integer(total + 1)];
        self.session.execute("UPDATE total SET n = ?1", &next).await.map_err(Self::failed)?;
        self.session.execute("COMMIT", &[]).await.map_err(Self::failed)?;
        self.note(n);
        self.told.counted += 1;
        Ok(())
    }

    /// Its COMMIT follows at once.
    async fn pipelined_transaction(&mut self, n: i64) -> Result<(), Failure> {
        self.session.execute("BEGIN IMMEDIATE", &[]).await.map_err(Self::failed)?;
        let mut sent = Vec::new();
        for at in n..n + 4 {
            sent.push(self.session.send_run(&self.insert, &self.key(at)).await.map_err(Self::failed)?);
        }
        let committed = self.session.execute("COMMIT", &[]);
        let answered = try_join_all(sent.into_iter().map(|sent| sent.outcome()));
        let (committed, answered) = tokio::join!(committed, answered);
        answered.map_err(Self::failed)?;
        committed.map_err(Self::failed)?;
        (n..n + 4).for_each(|at| self.note(at));
        Ok(())
    }

    /// Takes a part of itself back.
    async fn savepoint(&mut self, n: i64) -> Result<(), Failure> {
        self.session.execute("BEGIN IMMEDIATE", &[]).await.map_err(Self::failed)?;
        self.session.run(&self.insert, &self.key(n)).await.map_err(Self::failed)?;
        self.session.execute("SAVEPOINT part", &[]).await.map_err(Self::failed)?;
        // Never to be seen again.
        self.session.run(&self.insert, &self.key(n + 9)).await.map_err(Self::failed)?;
        self.session.execute("ROLLBACK TO part", &[]).await.map_err(Self::failed)?;
        self.session.execute("RELEASE part", &[]).await.map_err(Self::failed)?;
        self.session.execute("COMMIT", &[]).await.map_err(Self::failed)?;
        self.note(n);
        Ok(())
    }
}

fn wrong(failure: Failure) -> Finding {
    match failure {
        Failure::Wrong(finding) => finding,
        Failure::Again => "an error that may be tried again".to_owned(),
    }
}

/// What was acknowledged is there, once, and nothing else is.
async fn check(first: &Session, sum: &Told) -> Result<(), Finding> {
    let rows = first.execute("SELECT client, n FROM done", &[]).await.map_err(told)?;
    let mut times: BTreeMap<(i64, i64), usize> = BTreeMap::new();
    for row in rows.rows().map_err(|error| error.to_string())? {
        let [Value::Integer(client), Value::Integer(n)] = row[..] else { return Err(format!("{row:?}")) };
        *times.entry((client, n)).or_default() += 1;
    }
    if let Some(key) = sum.done.iter().find(|key| !times.contains_key(key)) {
        return Err(format!("{key:?} was acknowledged and is lost"));
    }
    if let Some((key, count)) = times.iter().find(|(_, count)| **count > 1) {
        return Err(format!("{key:?} was done {count} times"));
    }
    if let Some((key, _)) = times.iter().find(|(key, _)| !sum.done.contains(key)) {
        return Err(format!("{key:?} was done and never acknowledged"));
    }
    let total = first.execute("SELECT n FROM total", &[]).await.map_err(told)?;
    match total.rows().map_err(|error| error.to_string())?[0][0] {
        Value::Integer(total) if total == sum.counted => {}
        ref other => return Err(format!("{} transactions counted themselves to {other:?}", sum.counted)),
    }
    match first.execute("PRAGMA integrity_check", &[]).await.map_err(told)?.rows() {
        Ok(rows) if rows == [[Value::Text("ok".to_owned())]] => Ok(()),
        other => Err(format!("integrity_check: {other:?}")),
    }
}
