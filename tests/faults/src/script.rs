//! Ten scripts of one session, and what must hold of each when a call or an allocation fails in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use vamos_sql_server::SqlError;
use vamos_sqlite::{GiveUp, SqliteConfig, SqliteEngine};

use crate::check::{self, check};
use crate::disk::{Disk, Image};
use crate::history::{History, Judge, Outcome};
use crate::power::CLOSING_TIME;
use crate::random::Random;
use crate::replay::{Replay, Survival};
use crate::vfs;
use crate::workload::{self, Step, Writer};

/// What was on the disk before a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// A few rows, and a process that was killed: the log has to be recovered.
    Killed,
    /// The same, closed in good order: there is no log.
    Closed,
    /// The same with many more commits in the log, and long ones.
    LongLog,
}

/// A script.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    /// Its name.
    pub name: &'static str,
    /// What it starts from.
    pub before: Before,
    /// What is done.
    pub steps: &'static [Step],
}

/// All of them. Each opens the engine first, and drops it at the end.
pub const SCRIPTS: [Script; 10] = [
    Script {
        name: "insert",
        before: Before::Killed,
        steps: &[Step::Insert(100), Step::Count, Step::Insert(7_000)],
    },
    Script { name: "first log", before: Before::Closed, steps: &[Step::Insert(100), Step::Update(50)] },
    Script { name: "large row", before: Before::Killed, steps: &[Step::Insert(90_000), Step::Read] },
    Script {
        name: "change",
        before: Before::Closed,
        steps: &[Step::Update(5_000), Step::Remove, Step::Update(10)],
    },
    Script { name: "transaction", before: Before::Killed, steps: &[Step::Transaction(3, 2_000), Step::Read] },
    Script {
        name: "savepoint",
        before: Before::Closed,
        steps: &[Step::Savepoint, Step::Rollback, Step::Count],
    },
    Script {
        name: "batch",
        before: Before::Killed,
        steps: &[Step::Batch(12), Step::BadBatch, Step::Violate],
    },
    Script { name: "schema", before: Before::Killed, steps: &[Step::Create, Step::Drop, Step::Temporary] },
    Script { name: "vacuum", before: Before::Closed, steps: &[Step::Remove, Step::Vacuum, Step::Read] },
    Script {
        name: "checkpoint",
        before: Before::LongLog,
        steps: &[Step::Insert(20_000), Step::Count, Step::Savepoint],
    },
];

/// The one session that writes.
const WRITER: usize = 1;

/// A script with what it starts from.
pub struct Prepared {
    script: Script,
    image: Image,
    history: History,
}

/// What one run came to.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Whether the engine gave itself up.
    pub gave_up: bool,
    /// The SQLSTATEs of the steps that failed; an engine that could not be opened has none.
    pub failed: Vec<String>,
}

fn runtime() -> Runtime {
    // INVARIANT: a runtime without I/O needs no more than memory.
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

/// Whether an error is how a session hears of an engine that gives itself up: refused, or lost in a queue.
/// It may hear of it a moment before the rest of the process does.
fn is_end(error: &SqlError, given_up: &AtomicU64) -> bool {
    let until = Instant::now() + CLOSING_TIME;
    let is_it = matches!(&*error.sqlstate, "57P01" | "08006");
    while is_it && given_up.load(SeqCst) == 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    is_it && given_up.load(SeqCst) > 0
}

fn engine(disk: &Disk) -> (Arc<AtomicU64>, Result<Arc<SqliteEngine>, vamos_sqlite::OpenError>) {
    let given_up = Arc::new(AtomicU64::new(0));
    let count = given_up.clone();
    let give_up = GiveUp::new(move |_| {
        count.fetch_add(1, SeqCst);
    });
    (given_up, workload::open(disk, SqliteConfig { give_up, ..SqliteConfig::default() }))
}

/// Makes what a script starts from.
///
/// # Panics
/// When the engine fails, without any fault.
pub fn prepare(script: Script) -> Prepared {
    vfs::install();
    let disk = Disk::empty();
    let (_, engine) = engine(&disk);
    let engine = engine.expect("an engine");
    let (image, history) = runtime().block_on(async {
        let setup = workload::set_up(&engine, &disk).await.expect("a set-up");
        let mut writer = Writer::new(&engine, &disk, WRITER, Vec::new(), None).await.expect("a session");
        for step in
            [Step::Insert(50), Step::Insert(3_000), Step::Create, Step::Count, Step::Transaction(1, 500)]
        {
            writer.take(step).await.expect("a step");
        }
        if script.before == Before::LongLog {
            for _ in 0..60 {
                writer.take(Step::Count).await.expect("a step");
            }
            for _ in 0..2 {
                writer.take(Step::Update(150_000)).await.expect("a step");
            }
        }
        (disk.image(), vec![setup, writer.writes])
    });
    drop(engine);
    disk.wait_closed(CLOSING_TIME).expect("closed files");
    let image = if script.before == Before::Closed {
        // Plain SQLite, the last to close it, copies the log back and removes it.
        check::look(&disk).expect("a sound database");
        disk.image()
    } else {
        image
    };
    let mut history = history;
    // All that was before the script's own disk.
    history.iter_mut().flatten().for_each(|write| (write.asked, write.answered) = (0, 0));
    Prepared { script, image, history }
}

impl Prepared {
    /// Runs the script on a disk of its own while something fails, and then checks that the engine goes
    /// on or has given itself up, that nothing acknowledged is lost, and that errors say what they should.
    ///
    /// `begin` and `end` switch the faults on and off. `may` says which errors are clear ones.
    ///
    /// # Errors
    /// What does not hold.
    pub fn run(
        &self,
        begin: impl FnOnce(&Disk),
        end: impl FnOnce(&Disk),
        may: impl Fn(&SqlError) -> bool,
    ) -> Result<Run, String> {
        let disk = Disk::new(self.image.clone(), None);
        let mut history = self.history.clone();
        let mut run = Run::default();
        begin(&disk);
        let (given_up, opened) = engine(&disk);
        let outcome = match opened {
            Ok(engine) => {
                let outcome =
                    runtime().block_on(self.steps(&engine, &disk, &given_up, &mut history, &mut run, &may));
                end(&disk);
                let outcome =
                    outcome.and_then(|()| self.aftermath(&engine, &disk, &given_up, &mut history, &mut run));
                drop(engine);
                outcome
            }
            Err(error) => {
                end(&disk);
                run.failed.push(String::new());
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                if cause.is_empty() { Err(format!("{error}: says no cause")) } else { Ok(()) }
            }
        };
        disk.wait_closed(CLOSING_TIME).map_err(|open| format!("{open} files are still open"))?;
        outcome?;
        self.survives(&disk, &history)?;
        Ok(run)
    }

    async fn steps(
        &self,
        engine: &Arc<SqliteEngine>,
        disk: &Arc<Disk>,
        given_up: &AtomicU64,
        history: &mut History,
        run: &mut Run,
        may: &impl Fn(&SqlError) -> bool,
    ) -> Result<(), String> {
        let before = std::mem::take(&mut history[WRITER]);
        let writer = Writer::new(engine, disk, WRITER, before, None).await;
        let mut writer = writer.map_err(|error| format!("open a session: {error}"))?;
        let mut verdict = Ok(());
        for step in self.script.steps {
            let had_given_up = given_up.load(SeqCst) > 0;
            let outcome = writer.take(*step).await;
            run.failed.extend(outcome.as_ref().err().map(|error| error.sqlstate.to_string()));
            let broke = match &outcome {
                Ok(()) if had_given_up => Some("was answered after the engine gave up".to_owned()),
                Ok(()) => None,
                Err(error) if may(error) || is_end(error, given_up) => None,
                Err(error) => Some(format!("{error} ({})", error.code)),
            };
            if let Some(broke) = broke {
                verdict = Err(format!("{step:?}: {broke}"));
                break;
            }
        }
        history[WRITER] = writer.writes;
        verdict
    }

    /// The fault is over: an engine that has not given itself up goes on.
    fn aftermath(
        &self,
        engine: &Arc<SqliteEngine>,
        disk: &Arc<Disk>,
        given_up: &AtomicU64,
        history: &mut History,
        run: &mut Run,
    ) -> Result<(), String> {
        let before = std::mem::take(&mut history[WRITER]);
        let (outcome, writes) = runtime().block_on(async {
            // Behind whatever the last step has left to do.
            let mut writer = Writer::new(engine, disk, WRITER, before, None).await.expect("a session");
            let mut outcome = writer.take(Step::Insert(40)).await;
            if outcome.is_ok() {
                outcome = writer.take(Step::Count).await;
            }
            (outcome, writer.writes)
        });
        history[WRITER] = writes;
        if let Err(error) = &outcome {
            is_end(error, given_up);
        }
        run.gave_up = given_up.load(SeqCst) > 0;
        match (outcome, given_up.load(SeqCst)) {
            (_, 2..) => Err("the engine gave itself up more than once".to_owned()),
            (Ok(()), 1) => Err("a write was acknowledged after the engine gave up".to_owned()),
            (Ok(()), 0) if disk.failed_syncs() > 0 => Err("a sync failed, and the engine went on".to_owned()),
            (Err(error), 0) => Err(format!("the engine does not go on: {error}")),
            _ => Ok(()),
        }
    }

    /// The next process finds what was acknowledged, and so does one after a power loss.
    fn survives(&self, disk: &Arc<Disk>, history: &History) -> Result<(), String> {
        let position = disk.position();
        let mut judge = Judge::new(history);
        judge.advance(position);
        let unknown = history.iter().flatten().filter(|write| write.outcome == Outcome::Unknown).count();
        let recording = disk.recording();
        let mut replay = Replay::new(&recording, Random::new(position as u64));
        replay.advance(position);
        for survival in [Survival::Everything, Survival::Nothing, Survival::Sectors] {
            let left = Disk::new(replay.cut(survival), None);
            check(&left, &judge, position)
                .map_err(|finding| format!("{survival:?}, {unknown} unknown: {finding:?}"))?;
        }
        if disk.failed_syncs() == 0 {
            // What was seen is what survives with everything.
            return Ok(());
        }
        // What a failed sync dropped is seen until the machine restarts.
        check(&Disk::new(disk.image(), None), &judge, position)
            .map_err(|finding| format!("restart: {finding:?}"))
    }
}
