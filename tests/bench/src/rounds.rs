//! The rounds: each gives every variant a short slice, in an order that alternates, so that whatever
//! else the machine does falls on all of them alike.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ValueEnum;
use tokio_postgres::Statement as PostgresStatement;
use vamos_proto::frame::HEADER_BYTES;

use crate::echo::Echo;
use crate::guest::{Guest, Loader, Reader, selects_at_once};
use crate::inprocess::InProcess;
use crate::placement::{Cpus, Placement};
use crate::workload::{Keys, ROWS_PER_TRANSACTION};
use vamos_bench::platform::Platform;
use vamos_bench::process::Pid;
use vamos_bench::statistics::Estimate;

/// Sessions of the concurrent case.
pub const SESSIONS: usize = 64;

/// How much one slice does.
#[derive(Debug, Clone, Copy)]
pub struct Slices {
    /// Pings or point SELECTs, one after the other.
    pub requests: usize,
    /// How long the concurrent sessions run.
    pub concurrent: Duration,
    /// Transactions of the load.
    pub transactions: i64,
}

/// Everything that takes part.
pub struct Variants {
    /// Where its ends may run.
    pub cpus: Cpus,
    /// Two processes and a socket.
    pub echo: Echo,
    /// SQLite in this process.
    pub inprocess: InProcess,
    /// The link.
    pub guest: Guest,
    /// One session that reads.
    pub reader: Reader,
    /// [`SESSIONS`] sessions that read.
    pub readers: Vec<Reader>,
    /// One session that loads.
    pub loader: Loader,
    /// PostgreSQL, if it is installed.
    pub postgres: Option<PostgresReaders>,
}

/// Connections to PostgreSQL that read by key.
pub struct PostgresReaders {
    /// The process behind the first connection.
    pub first: Pid,
    /// The connections, each with its prepared SELECT; the first is the single session.
    pub readers: Vec<(tokio_postgres::Client, PostgresStatement)>,
    /// The keys it reads.
    pub keys: Keys,
}

/// What the rounds found, a sample a round.
#[derive(Debug, Default)]
pub struct Samples {
    rounds: usize,
    slices: HashMap<Slice, Vec<f64>>,
    /// CPU of the cell for one point SELECT of a single session, microseconds.
    pub select_cpu: Vec<f64>,
    /// Transitions a statement of the concurrent sessions.
    pub transitions: Vec<f64>,
    /// CPU of the cell a statement of the concurrent sessions, microseconds.
    pub concurrent_cpu: Vec<f64>,
    /// CPU of the client a statement of the concurrent sessions, microseconds.
    pub client_cpu: Vec<f64>,
}

impl Samples {
    /// A slice's own figures: see [`Slice`].
    pub fn of(&self, slice: Slice) -> &[f64] {
        self.slices.get(&slice).map_or(&[], Vec::as_slice)
    }

    /// The ratio of two slices, round by round.
    pub fn ratio(&self, above: Slice, below: Slice) -> Option<Estimate> {
        Estimate::of_ratio(self.of(above), self.of(below))
    }
}

/// The slices of a round. Round trips give microseconds, concurrent ones statements a second, loads rows a
/// second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Slice {
    /// Socket ping-pong.
    Socket,
    /// SQL ping.
    Ping,
    /// Point SELECT over the link.
    Select,
    /// The same over PostgreSQL's socket.
    SelectPostgres,
    /// The same in this process.
    SelectInProcess,
    /// Socket ping-pong, the ends on CPUs of their own.
    SocketApart,
    /// SQL ping, the ends on CPUs of their own.
    PingApart,
    /// Point SELECT over the link, the ends on CPUs of their own.
    SelectApart,
    /// The same over PostgreSQL's socket.
    SelectPostgresApart,
    /// Many sessions of the link at once.
    Concurrent,
    /// Many connections to PostgreSQL at once.
    ConcurrentPostgres,
    /// Load over the link.
    Load,
    /// Load in this process.
    LoadInProcess,
}

/// Compared slices are next to each other.
const ORDER: [Slice; 13] = [
    Slice::Socket,
    Slice::Ping,
    Slice::Select,
    Slice::SelectPostgres,
    Slice::SelectInProcess,
    Slice::SocketApart,
    Slice::PingApart,
    Slice::SelectApart,
    Slice::SelectPostgresApart,
    Slice::Concurrent,
    Slice::ConcurrentPostgres,
    Slice::Load,
    Slice::LoadInProcess,
];

/// Runs one round, or `only` some of its slices, and adds its samples.
///
/// # Errors
/// The first error of any variant: a figure from a broken run is worth nothing.
pub async fn run(
    variants: &mut Variants,
    platform: &Platform,
    slices: Slices,
    only: &[Slice],
    samples: &mut Samples,
) -> anyhow::Result<()> {
    // Forwards, then backwards: no slice always has the same predecessor.
    let mut order = ORDER;
    if samples.rounds % 2 == 1 {
        order.reverse();
    }
    samples.rounds += 1;
    for slice in order.into_iter().filter(|slice| only.is_empty() || only.contains(slice)) {
        let sample = one(slice, variants, platform, slices, samples).await;
        let sample = sample.with_context(|| format!("run the slice {slice:?}"))?;
        samples.slices.entry(slice).or_default().extend(sample);
    }
    Ok(())
}

/// The slice's figure; `None` without PostgreSQL.
async fn one(
    slice: Slice,
    variants: &mut Variants,
    platform: &Platform,
    slices: Slices,
    samples: &mut Samples,
) -> anyhow::Result<Option<f64>> {
    let count = slices.requests;
    let rows = (slices.transactions * ROWS_PER_TRANSACTION) as f64;
    slice.place(variants, platform)?;
    Ok(Some(match slice {
        // A ping's frame is a header and nothing else, both ways.
        Slice::Socket | Slice::SocketApart => microseconds(&variants.echo.round_trips(count, HEADER_BYTES)?),
        Slice::Ping | Slice::PingApart => microseconds(&variants.guest.pings(count).await?),
        Slice::Select => {
            let before = platform.cell_cpu()?;
            let times = variants.reader.selects(count).await?;
            let cpu = platform.cell_cpu()?.saturating_sub(before);
            samples.select_cpu.push(cpu.as_secs_f64() * 1e6 / count as f64);
            microseconds(&times)
        }
        Slice::SelectApart => microseconds(&variants.reader.selects(count).await?),
        Slice::SelectPostgres | Slice::SelectPostgresApart => {
            let Some(postgres) = &mut variants.postgres else { return Ok(None) };
            microseconds(&postgres.selects(count).await?)
        }
        Slice::SelectInProcess => microseconds(&variants.inprocess.selects(count)?),
        Slice::Concurrent => concurrent(variants, platform, slices.concurrent, samples).await?,
        Slice::ConcurrentPostgres => {
            let Some(postgres) = &mut variants.postgres else { return Ok(None) };
            let start = Instant::now();
            let answered = postgres.selects_at_once(start + slices.concurrent).await?;
            answered as f64 / start.elapsed().as_secs_f64()
        }
        Slice::Load => rows / variants.loader.load(slices.transactions).await?.as_secs_f64(),
        Slice::LoadInProcess => rows / variants.inprocess.load(slices.transactions)?.as_secs_f64(),
    }))
}

impl Slice {
    /// Puts the two ends of a round trip where they belong, and throughput wherever it likes.
    fn place(self, variants: &Variants, platform: &Platform) -> anyhow::Result<()> {
        let placement = match self {
            Slice::Socket | Slice::Ping | Slice::Select | Slice::SelectPostgres => Placement::Together,
            Slice::SocketApart | Slice::PingApart | Slice::SelectApart | Slice::SelectPostgresApart => {
                Placement::Apart
            }
            _ => Placement::Free,
        };
        let mut far = platform.cell()?;
        far.push(variants.echo.far());
        far.extend(variants.postgres.iter().map(|postgres| postgres.first));
        variants.cpus.place(placement, &far)
    }
}

/// Statements a second of many sessions at once, and what they cost.
async fn concurrent(
    variants: &mut Variants,
    platform: &Platform,
    duration: Duration,
    samples: &mut Samples,
) -> anyhow::Result<f64> {
    let before = (platform.transitions()?, platform.cell_cpu()?, Pid::own().cpu()?);
    let start = Instant::now();
    let answered = selects_at_once(&mut variants.readers, start + duration).await? as f64;
    let elapsed = start.elapsed();
    let after = (platform.transitions()?, platform.cell_cpu()?, Pid::own().cpu()?);
    let transitions = (after.0.kicks + after.0.calls).saturating_sub(before.0.kicks + before.0.calls);
    samples.transitions.push(transitions as f64 / answered);
    samples.concurrent_cpu.push(after.1.saturating_sub(before.1).as_secs_f64() * 1e6 / answered);
    samples.client_cpu.push(after.2.saturating_sub(before.2).as_secs_f64() * 1e6 / answered);
    Ok(answered / elapsed.as_secs_f64())
}

impl PostgresReaders {
    async fn selects(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let (client, select) = self.readers.first().context("have a connection")?;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let (key, start) = (self.keys.draw(), Instant::now());
            read(client, select, key).await?;
            times.push(start.elapsed());
        }
        Ok(times)
    }

    async fn selects_at_once(&mut self, end: Instant) -> anyhow::Result<u64> {
        let until = self.readers.iter().map(|(client, select)| {
            let mut keys = self.keys.clone();
            async move {
                let mut answered = 0;
                while Instant::now() < end {
                    read(client, select, keys.draw()).await?;
                    answered += 1;
                }
                anyhow::Ok(answered)
            }
        });
        Ok(futures::future::try_join_all(until).await?.into_iter().sum())
    }
}

async fn read(client: &tokio_postgres::Client, select: &PostgresStatement, key: i64) -> anyhow::Result<()> {
    let row = client.query_one(select, &[&key]).await.context("select from PostgreSQL")?;
    let values: (String, f64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    std::hint::black_box(values);
    Ok(())
}

/// The median of a slice: one slow wake-up must not speak for the rest.
fn microseconds(times: &[Duration]) -> f64 {
    let times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    Estimate::of(&times).map_or(f64::NAN, |estimate| estimate.median)
}
