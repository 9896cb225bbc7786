//! Writers that do one thing after another through the engine and note what they were told.

use std::path::Path;
use std::sync::Arc;

use futures::future::join_all;
use vamos_sql_protocol::Value;
use vamos_sql_server::SqlError;
use vamos_sqlite::{OpenError, SqliteConfig, SqliteEngine};

use crate::check::{DATABASE, payload};
use crate::disk::Disk;
use crate::history::{Effect, History, Ledger, Outcome, Write};
use crate::random::Random;
use crate::session::Session;

/// What the setup makes: name and statement.
const SCHEMA: [(&str, &str); 4] = [
    (
        "ledger",
        "CREATE TABLE ledger (writer INTEGER NOT NULL, number INTEGER NOT NULL, payload BLOB NOT NULL)",
    ),
    ("ledger_by_number", "CREATE INDEX ledger_by_number ON ledger (writer, number)"),
    ("counters", "CREATE TABLE counters (writer INTEGER PRIMARY KEY, count INTEGER NOT NULL)"),
    (
        "accounts",
        "CREATE TABLE accounts (writer INTEGER, side INTEGER, balance INTEGER NOT NULL, PRIMARY KEY (writer, side))",
    ),
];

const INSERT: &str = "INSERT INTO ledger VALUES (?1, ?2, ?3)";

/// One thing a writer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A table or index of [`SCHEMA`].
    Setup(usize),
    /// A row of so many bytes.
    Insert(usize),
    /// Another payload, of so many bytes, for a row.
    Update(usize),
    /// One row less.
    Remove,
    /// One more.
    Count,
    /// A transaction: a transfer between its accounts, a count and so many rows of so many bytes.
    Transaction(usize, usize),
    /// A transaction that begins IMMEDIATE and takes a part of itself back.
    Savepoint,
    /// A transaction that is rolled back.
    Rollback,
    /// So many rows in one batch.
    Batch(usize),
    /// A batch of which one row is refused, and with it all of them.
    BadBatch,
    /// A table with an index.
    Create,
    /// One of its tables less.
    Drop,
    /// A statement that violates a constraint.
    Violate,
    /// A temporary table, used and dropped.
    Temporary,
    /// A sorted look at all its rows, held against what it knows.
    Read,
    /// VACUUM.
    Vacuum,
}

/// How a writer itself, or what stands between it and the engine, errs: seeded bugs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Every write counts as acknowledged as soon as it is asked for.
    AcknowledgesUnasked,
    /// Rows are sent again although they were acknowledged.
    SendsTwice,
    /// Transactions fall apart into single statements.
    ForgetsBegin,
    /// What was to be rolled back is committed.
    CommitsRollback,
}

/// A writer.
pub struct Writer {
    number: usize,
    session: Session,
    disk: Arc<Disk>,
    bug: Option<Bug>,
    next: i64,
    /// What it knows to be there.
    ledger: Ledger,
    /// All it has asked for.
    pub writes: Vec<Write>,
}

/// Opens the engine on a disk, as a cell does.
///
/// # Errors
/// The engine's.
pub fn open(disk: &Disk, config: SqliteConfig) -> Result<Arc<SqliteEngine>, OpenError> {
    SqliteEngine::open(Path::new(&disk.directory()), DATABASE, config).map(Arc::new)
}

impl Writer {
    /// A writer that continues what it did before, if it did.
    ///
    /// # Errors
    /// The engine's.
    pub async fn new(
        engine: &Arc<SqliteEngine>,
        disk: &Arc<Disk>,
        number: usize,
        before: Vec<Write>,
        bug: Option<Bug>,
    ) -> Result<Self, SqlError> {
        let done = before.iter().filter(|write| write.outcome == Outcome::Acknowledged);
        let ledger = done.fold(Ledger::default(), |ledger, write| ledger.after(&write.effects));
        let session = Session::open(engine).await?;
        let next = before.len() as i64 * 100 + 1;
        Ok(Self { number, session, disk: disk.clone(), bug, next, ledger, writes: before })
    }

    /// Does one thing, and notes it.
    ///
    /// # Errors
    /// The engine's; it has been noted, and a transaction rolled back.
    pub async fn take(&mut self, step: Step) -> Result<(), SqlError> {
        let asked = self.disk.position();
        let mut effects = Vec::new();
        let outcome = self.try_take(step, &mut effects).await;
        let told = match &outcome {
            Ok(()) => Outcome::Acknowledged,
            Err((_, told)) => *told,
        };
        let answered = if self.bug == Some(Bug::AcknowledgesUnasked) { asked } else { self.disk.position() };
        if told == Outcome::Acknowledged {
            self.ledger = std::mem::take(&mut self.ledger).after(&effects);
        }
        self.writes.push(Write { asked, answered, outcome: told, effects });
        outcome.map_err(|(error, _)| error)
    }

    async fn try_take(&mut self, step: Step, effects: &mut Vec<Effect>) -> Result<(), (SqlError, Outcome)> {
        match step {
            Step::Setup(at) => {
                let (name, text) = SCHEMA[at];
                effects.push(Effect::Create(name.to_owned()));
                self.single(text, &[]).await
            }
            Step::Insert(bytes) => {
                let number = self.new_number();
                effects.push(Effect::Put(number, bytes));
                let row = self.row(number, bytes);
                self.single(INSERT, &row).await?;
                if self.bug == Some(Bug::SendsTwice) {
                    self.single(INSERT, &row).await?;
                }
                Ok(())
            }
            Step::Update(bytes) => {
                let Some(number) = self.some_row() else { return Ok(()) };
                effects.push(Effect::Put(number, bytes));
                let row = self.row(number, bytes);
                self.single("UPDATE ledger SET payload = ?3 WHERE writer = ?1 AND number = ?2", &row).await
            }
            Step::Remove => {
                let Some(number) = self.some_row() else { return Ok(()) };
                effects.push(Effect::Remove(number));
                let values = [self.id(), number.into()];
                self.single("DELETE FROM ledger WHERE writer = ?1 AND number = ?2", &values).await
            }
            Step::Count => {
                effects.push(Effect::Count);
                self.single(COUNT, &[self.id()]).await
            }
            Step::Transaction(rows, bytes) => {
                effects.extend([Effect::Transfer(3), Effect::Count]);
                let own = self.id();
                let mut work = vec![
                    (TRANSFER, vec![own.clone(), 0.into(), (-3).into()]),
                    (COUNT, vec![own.clone()]),
                    (TRANSFER, vec![own, 1.into(), 3.into()]),
                ];
                for _ in 0..rows {
                    let number = self.new_number();
                    effects.push(Effect::Put(number, bytes));
                    work.push((INSERT, self.row(number, bytes)));
                }
                self.transaction("BEGIN", &work, "COMMIT").await
            }
            Step::Savepoint => {
                let (kept, ghost) = (self.new_number(), self.new_number());
                effects.push(Effect::Put(kept, 300));
                let work = [
                    (INSERT, self.row(kept, 300)),
                    ("SAVEPOINT part", vec![]),
                    (INSERT, self.row(ghost, 9_000)),
                    ("ROLLBACK TO part", vec![]),
                    ("RELEASE part", vec![]),
                ];
                self.transaction("BEGIN IMMEDIATE", &work, "COMMIT").await
            }
            Step::Rollback => {
                let work = [(INSERT, self.row(self.next + 1, 20_000))];
                let end = if self.bug == Some(Bug::CommitsRollback) { "COMMIT" } else { "ROLLBACK" };
                self.next += 1;
                self.transaction("BEGIN", &work, end).await
            }
            Step::Batch(rows) => {
                let numbers: Vec<i64> = (0..rows).map(|_| self.new_number()).collect();
                effects.extend(numbers.iter().map(|number| Effect::Put(*number, 400)));
                let rows = numbers.iter().map(|number| self.row(*number, 400)).collect();
                self.session.batch(INSERT, rows, true).await.map(drop).map_err(told)
            }
            Step::BadBatch => {
                let (number, own) = (self.new_number(), self.id());
                let rows = vec![self.row(number, 400), vec![own, number.into(), Value::Null]];
                let outcome = self.session.batch(INSERT, rows, true).await.map_err(told)?;
                match outcome.failures.as_slice() {
                    [(1, error)] if error.sqlstate == "23502" => Ok(()),
                    [(_, error), ..] => Err(told(error.clone())),
                    [] => Err(wrong("the batch was not refused".to_owned())),
                }
            }
            Step::Create => {
                let number = self.new_number();
                let name = format!("t{}_{number}", self.number);
                effects.push(Effect::Create(name.clone()));
                self.single(&format!("CREATE TABLE {name} (a PRIMARY KEY, b UNIQUE) WITHOUT ROWID"), &[])
                    .await
            }
            Step::Drop => {
                let Some(name) = self.ledger.tables.first().cloned() else { return Ok(()) };
                let text = format!("DROP TABLE {name}");
                effects.push(Effect::Drop(name));
                self.single(&text, &[]).await
            }
            Step::Violate => {
                let values = [self.id(), self.new_number().into(), Value::Null];
                match self.single(INSERT, &values).await {
                    Err((error, _)) if error.sqlstate == "23502" => Ok(()),
                    Err(error) => Err(error),
                    Ok(()) => Err(wrong("NULL was taken".to_owned())),
                }
            }
            Step::Temporary => {
                self.single("CREATE TEMP TABLE scratch AS SELECT * FROM ledger", &[]).await?;
                let dropped = self.single("DELETE FROM scratch", &[]).await;
                self.single("DROP TABLE scratch", &[]).await.and(dropped)
            }
            Step::Read => self.read().await,
            Step::Vacuum => self.single("VACUUM", &[]).await,
        }
    }

    /// Runs one statement outside a transaction.
    async fn single(&mut self, text: &str, values: &[Value]) -> Result<(), (SqlError, Outcome)> {
        self.session.run(text, values).await.map(drop).map_err(told)
    }

    /// Runs a transaction; until its COMMIT was sent, nothing of it can have been done.
    async fn transaction(
        &mut self,
        begin: &str,
        work: &[(&str, Vec<Value>)],
        end: &str,
    ) -> Result<(), (SqlError, Outcome)> {
        let falls_apart = self.bug == Some(Bug::ForgetsBegin);
        let mut outcome = Ok(());
        if !falls_apart {
            outcome = self.session.run(begin, &[]).await.map(drop);
        }
        for (text, values) in work {
            if outcome.is_ok() && !(falls_apart && values.is_empty()) {
                outcome = self.session.run(text, values).await.map(drop);
            }
        }
        if let Err(error) = outcome {
            // It may be open or not; either way this ends it, or says that there is none.
            let _ = self.session.run("ROLLBACK", &[]).await;
            return Err((error, Outcome::Refused));
        }
        if falls_apart {
            return Ok(());
        }
        let ended = self.session.run(end, &[]).await;
        if ended.is_err() {
            let _ = self.session.run("ROLLBACK", &[]).await;
        }
        ended.map(drop).map_err(told)
    }

    /// Sees its own writes, sorted by the engine.
    async fn read(&mut self) -> Result<(), (SqlError, Outcome)> {
        let text =
            "SELECT number, length(payload) FROM ledger WHERE writer = ?1 ORDER BY length(payload), number";
        let rows = self.session.run(text, &[self.id()]).await.map_err(told)?;
        let mut wanted: Vec<_> =
            self.ledger.rows.iter().map(|(number, bytes)| (*bytes as i64, *number)).collect();
        wanted.sort_unstable();
        let wanted = wanted.into_iter().map(|(bytes, number)| vec![number.into(), bytes.into()]);
        if rows != wanted.collect::<Vec<Vec<Value>>>() {
            return Err(wrong(format!("writer {} does not read its own writes: {rows:?}", self.number)));
        }
        Ok(())
    }

    fn id(&self) -> Value {
        (self.number as i64).into()
    }

    fn new_number(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn some_row(&self) -> Option<i64> {
        let at = self.writes.len() % self.ledger.rows.len().max(1);
        self.ledger.rows.keys().nth(at).copied()
    }

    fn row(&self, number: i64, bytes: usize) -> Vec<Value> {
        vec![self.id(), number.into(), Value::Blob(payload(self.number, number, bytes))]
    }
}

const COUNT: &str = "INSERT INTO counters VALUES (?1, 1) ON CONFLICT DO UPDATE SET count = count + 1";
const TRANSFER: &str =
    "INSERT INTO accounts VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET balance = balance + excluded.balance";

/// A finding of a writer's own, under a SQLSTATE no engine uses.
fn wrong(message: String) -> (SqlError, Outcome) {
    (SqlError::new("WRONG", message), Outcome::Unknown)
}

/// What an error says of the write it answers. A full disk, a refusal: nothing was done. The rest leaves
/// it open: the log may have been written when it failed.
fn told(error: SqlError) -> (SqlError, Outcome) {
    let is_refusal = ["23", "25", "53100"].iter().any(|class| error.sqlstate.starts_with(class));
    (error, if is_refusal { Outcome::Refused } else { Outcome::Unknown })
}

/// Makes the tables all writers share, as writer [`crate::check::SETUP`].
///
/// # Errors
/// The engine's.
pub async fn set_up(engine: &Arc<SqliteEngine>, disk: &Arc<Disk>) -> Result<Vec<Write>, SqlError> {
    let mut writer = Writer::new(engine, disk, crate::check::SETUP, Vec::new(), None).await?;
    for at in 0..SCHEMA.len() {
        writer.take(Step::Setup(at)).await?;
    }
    Ok(writer.writes)
}

/// A step by chance: many small writes, few large ones.
fn any_step(random: &mut Random) -> Step {
    match random.below(100) {
        0..30 => Step::Insert(random.below(600)),
        30..34 => Step::Insert(20_000 + random.below(120_000)),
        34..44 => Step::Update(random.below(6_000)),
        44..52 => Step::Remove,
        52..60 => Step::Count,
        60..70 => Step::Transaction(1 + random.below(3), random.below(3_000)),
        70..76 => Step::Savepoint,
        76..79 => Step::Rollback,
        79..85 => Step::Batch(1 + random.below(12)),
        85..87 => Step::BadBatch,
        87..90 => Step::Create,
        90..92 => Step::Drop,
        92..94 => Step::Violate,
        94..96 => Step::Temporary,
        96..99 => Step::Read,
        _ => Step::Vacuum,
    }
}

/// What a workload is.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Of the choices made.
    pub seed: u64,
    /// Sessions at a time.
    pub writers: usize,
    /// What each of them does.
    pub steps: usize,
    /// How they err, if they are to.
    pub bug: Option<Bug>,
}

impl Workload {
    /// Runs all writers at once on an engine, going on from a history that has the setup in it.
    ///
    /// # Errors
    /// The engine's, with the step it was the answer to. A writer with a bug goes on regardless.
    pub async fn run(
        &self,
        engine: &Arc<SqliteEngine>,
        disk: &Arc<Disk>,
        history: History,
    ) -> Result<History, String> {
        let mut before = history.into_iter();
        let setup = before.next().unwrap_or_default();
        let mut before: Vec<Vec<Write>> = before.collect();
        before.resize(self.writers, Vec::new());
        let writers = before.into_iter().zip(1..).map(|(before, number)| async move {
            let mut random = Random::new(self.seed ^ (number as u64) << 32);
            let writer = Writer::new(engine, disk, number, before, self.bug).await;
            let mut writer = writer.map_err(|error| error.to_string())?;
            for _ in 0..self.steps {
                let step = any_step(&mut random);
                if let Err(error) = writer.take(step).await
                    && self.bug.is_none()
                {
                    return Err(format!("writer {number}, {step:?}: {error}"));
                }
            }
            Ok(writer.writes)
        });
        let mut history = vec![setup];
        for writes in join_all(writers).await {
            history.push(writes?);
        }
        Ok(history)
    }
}
