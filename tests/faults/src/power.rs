//! Power loss: a workload is recorded once, and its log is cut at many points.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use vamos_sqlite::SqliteConfig;

use crate::check::{Finding, check, look};
use crate::disk::{Disk, Lie, Op, Recording};
use crate::history::{History, Judge, Outcome};
use crate::random::Random;
use crate::replay::{Replay, Survival};
use crate::session::Session;
use crate::vfs;
use crate::workload::{self, Bug, Workload};

/// How long an engine's threads may take to close their files.
pub const CLOSING_TIME: Duration = Duration::from_secs(60);

/// How many runs of the engine a workload consists of; it is closed in between.
const RUNS: usize = 2;

/// One cut in so many is followed by another, while SQLite recovers or closes.
const SECOND_CUT_EVERY: usize = 8;

/// One image in so many is opened by the engine before plain SQLite looks at it.
const ENGINE_EVERY: usize = 25;

/// What is recorded and how it is cut.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of every choice but the threads'.
    pub seed: u64,
    /// Sessions at a time.
    pub writers: usize,
    /// What each of them does in each run of the engine.
    pub steps: usize,
    /// How the disk lies, if it is to.
    pub lie: Option<Lie>,
    /// How the writers err, if they are to.
    pub bug: Option<Bug>,
}

/// A workload and what reached the disk.
pub struct Recorded {
    recording: Recording,
    history: History,
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries", self.entries())
    }
}

/// What cutting came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Cuts, the second ones included.
    pub cuts: usize,
    /// Cuts while SQLite was recovering from one.
    pub second_cuts: usize,
}

/// A loss, with what is needed to look at it again.
#[derive(Debug)]
pub struct Loss {
    /// After how many cuts.
    pub cuts: usize,
    /// The seed of the recording.
    pub seed: u64,
    /// Before which entry of the log, of how many.
    pub position: (usize, usize),
    /// What survived of what was not synced.
    pub survival: Survival,
    /// What was found.
    pub finding: Finding,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loss { cuts, seed, position: (at, of), survival, finding } = self;
        write!(f, "cut {cuts}, seed {seed}, at {at} of {of}, {survival:?}: {finding:?}")
    }
}

/// Records a workload through the engine, from an empty disk to the last file's closing.
///
/// # Errors
/// What the engine answered to a workload that should have succeeded.
pub fn record(plan: &Plan) -> Result<Recorded, String> {
    vfs::install();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let disk = Disk::new(Default::default(), plan.lie);
    let mut history = History::new();
    for run in 0..RUNS {
        let engine = workload::open(&disk, SqliteConfig::default()).map_err(|error| error.to_string())?;
        if run == 0 {
            let setup = runtime.block_on(workload::set_up(&engine, &disk));
            history.push(setup.map_err(|error| format!("set up: {error}"))?);
            disk.begin_to_lie();
        }
        let (seed, writers, steps) = (plan.seed ^ (run as u64) << 60, plan.writers, plan.steps);
        let workload = Workload { seed, writers, steps, bug: plan.bug };
        history = runtime.block_on(workload.run(&engine, &disk, history))?;
        drop(engine);
        disk.wait_closed(CLOSING_TIME).map_err(|open| format!("{open} files are still open"))?;
    }
    Ok(Recorded { recording: disk.recording(), history })
}

impl Recorded {
    /// Writes that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.history.iter().flatten().filter(|write| write.outcome == Outcome::Acknowledged).count()
    }

    /// Syncs of the recorded log.
    pub fn syncs(&self) -> usize {
        self.recording.log.iter().filter(|op| matches!(op, Op::Sync { .. })).count()
    }

    /// Entries of the recorded log.
    pub fn entries(&self) -> usize {
        self.recording.log.len()
    }

    /// Cuts the power `cuts` times, anywhere, and checks what is left each time.
    ///
    /// # Errors
    /// The first loss.
    pub fn cut(&self, seed: u64, cuts: usize) -> Result<Figures, Box<Loss>> {
        let mut random = Random::new(seed ^ 0x6375_7473);
        let end = self.recording.log.len();
        let mut positions: Vec<usize> = (0..cuts).map(|_| random.below(end + 1)).collect();
        positions.sort_unstable();
        let mut replay = Replay::new(&self.recording, Random::new(random.bits()));
        let mut judge = Judge::new(&self.history);
        let mut figures = Figures::default();
        for (number, position) in positions.into_iter().enumerate() {
            replay.advance(position);
            judge.advance(position);
            let survival = Survival::ALL[random.below(Survival::ALL.len())];
            let left = Disk::new(replay.cut(survival), None);
            let opened = if number % ENGINE_EVERY == 1 { opens(&left) } else { Ok(()) };
            let found = opened.and_then(|()| check(&left, &judge, position));
            figures.cuts += 1;
            let found = match found {
                Ok(()) if number % SECOND_CUT_EVERY == 0 => {
                    figures.cuts += 1;
                    figures.second_cuts += 1;
                    let recovery = left.recording();
                    let mut replay = Replay::new(&recovery, Random::new(random.bits()));
                    replay.advance(random.below(recovery.log.len() + 1));
                    check(&Disk::new(replay.cut(survival), None), &judge, position)
                }
                found => found,
            };
            found.map_err(|finding| {
                Box::new(Loss { cuts: figures.cuts, seed, position: (position, end), survival, finding })
            })?;
        }
        Ok(figures)
    }
}

impl Recorded {
    /// Kills the process at a point, opens the engine on what it left, and then cuts the power: what the
    /// engine came to see, though its writer may have died before the sync, must still be there.
    ///
    /// # Errors
    /// What was seen and is gone, or what is wrong.
    pub fn kill(&self, at: usize, seed: u64) -> Result<(), String> {
        let disk = Disk::killed(&self.recording, at);
        opens(&disk).map_err(|finding| format!("{finding:?}"))?;
        let seen = look(&Disk::new(disk.image(), None)).map_err(|finding| format!("seen: {finding:?}"))?;
        let recording = disk.recording();
        let mut replay = Replay::new(&recording, Random::new(seed));
        replay.advance(recording.log.len());
        for survival in Survival::ALL {
            let left = look(&Disk::new(replay.cut(survival), None));
            let left = left.map_err(|finding| format!("{survival:?}: {finding:?}"))?;
            if left != seen {
                return Err(format!("{survival:?}: after the cut {left:?}, before it {seen:?}"));
            }
        }
        let mut judge = Judge::new(&self.history);
        judge.advance(at);
        judge.judge(at, &seen).map_err(|wrong| format!("{wrong:?}"))
    }
}

/// The engine opens what is left, as the next cell would, and answers.
fn opens(left: &Arc<Disk>) -> Result<(), Finding> {
    let failed = |error: &dyn fmt::Display| Finding::Engine(error.to_string());
    let engine = workload::open(left, SqliteConfig::default()).map_err(|error| failed(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let answered = runtime.map_err(|error| failed(&error))?.block_on(async {
        let mut session = Session::open(&engine).await?;
        session.run("CREATE TEMP TABLE a (b)", &[]).await?;
        session.run("SELECT count(*) FROM sqlite_schema", &[]).await
    });
    drop(engine);
    left.wait_closed(CLOSING_TIME).map_err(|open| failed(&format!("{open} files are still open")))?;
    answered.map(drop).map_err(|error| failed(&error))
}

/// What a whole campaign came to.
#[derive(Debug, Default)]
pub struct Campaign {
    /// Cuts.
    pub cuts: usize,
    /// Cuts while SQLite was recovering from one.
    pub second_cuts: usize,
    /// Workloads recorded.
    pub recordings: usize,
    /// Writes acknowledged in them.
    pub acknowledged: usize,
    /// Syncs that made them durable.
    pub syncs: usize,
}

/// Records workloads and cuts each `cuts_each` times, until there were `cuts` cuts, on so many threads.
///
/// # Errors
/// The first loss, in words.
pub fn campaign(seed: u64, cuts: usize, cuts_each: usize, threads: usize) -> Result<Campaign, String> {
    let recordings = cuts.div_ceil(cuts_each);
    let next = AtomicUsize::new(0);
    let work = || -> Result<Campaign, String> {
        let mut campaign = Campaign::default();
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= recordings {
                return Ok(campaign);
            }
            let seed = seed.wrapping_add(number as u64);
            // One session alone makes the same log each time; several find what only meetings show.
            let writers = [8, 1, 4, 12][number % 4];
            let plan = Plan { seed, writers, steps: 240 / writers, lie: None, bug: None };
            let recorded = record(&plan).map_err(|error| format!("seed {seed}: {error}"))?;
            let figures = recorded.cut(seed, cuts_each).map_err(|loss| loss.to_string())?;
            campaign.cuts += figures.cuts;
            campaign.second_cuts += figures.second_cuts;
            campaign.recordings += 1;
            campaign.acknowledged += recorded.acknowledged();
            campaign.syncs += recorded.syncs();
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut total = Campaign::default();
        for worker in workers {
            let part = worker.join().map_err(|_| "a thread panicked".to_owned())??;
            total.cuts += part.cuts;
            total.second_cuts += part.second_cuts;
            total.recordings += part.recordings;
            total.acknowledged += part.acknowledged;
            total.syncs += part.syncs;
        }
        Ok(total)
    })
}
