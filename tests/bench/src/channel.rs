//! `bench-channel`: what the channel costs, at native speed, against a bare socket, SQLite in the same
//! process and PostgreSQL over its socket, all in one interleaved run.
//!
//! The guest is a process guest: real rings and notifications, no hypervisor. Not here: figures of
//! real VMs (`cargo bench-vm`).

mod echo;
mod guest;
mod idle;
mod inprocess;
mod placement;
mod postgres;
mod rounds;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;

use crate::echo::Echo;
use crate::guest::{Guest, Loader, Reader};
use crate::inprocess::InProcess;
use crate::placement::Cpus;
use crate::postgres::Postgres;
use crate::rounds::{PostgresReaders, SESSIONS, Samples, Slice, Slices, Variants};
use crate::workload::{CREATE_ITEM, INSERT_ITEM, ITEMS, Item, Keys, SELECT_ITEM};
use vamos_bench::platform::Platform;
use vamos_bench::process::Pid;
use vamos_bench::report::{Report, Target};
use vamos_bench::statistics::Estimate;

/// Measures the channel against a socket, SQLite and PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "bench-channel", version)]
struct Arguments {
    /// The vamosd to measure, with vamos-cell and vamosctl beside it [default: beside this program]
    #[arg(long)]
    vamosd: Option<PathBuf>,
    /// Write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// A short run: wider intervals
    #[arg(long)]
    quick: bool,
    /// Rounds to run [default: 61, or 15 with --quick]
    #[arg(long)]
    rounds: Option<usize>,
    /// Run only these slices, for a profiler to look at; ratios of what is left out are left out
    #[arg(long, value_enum)]
    only: Vec<Slice>,
    /// Directory for databases; its file system is what the load is measured on [default: the system's]
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Longest the device may poll after work before it sleeps, microseconds; 0: notified only
    #[arg(long, default_value_t = 0)]
    polling_us: u64,
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("bench-channel: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> anyhow::Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some(echo::ARGUMENT) {
        return echo::far_end().map(|()| ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let report = runtime.block_on(measure(&arguments))?;
    println!("{report}");
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    if report.count_missed() {
        let missed: Vec<&str> = report.missed().map(|case| case.name).collect();
        eprintln!("bench-channel: missed {}", missed.join(", "));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Report> {
    let vamosd = match &arguments.vamosd {
        Some(path) => path.clone(),
        None => std::env::current_exe().context("find this program")?.with_file_name("vamosd"),
    };
    if !vamosd.is_file() {
        bail!(
            "{} is missing: build it (cargo build --release -p vamos-host -p vamos-cell -p vamos-ctl) or name it with --vamosd",
            vamosd.display()
        );
    }
    let directory = match &arguments.directory {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let directory = directory.context("make a temporary directory")?;
    open_to_all(directory.path())?;
    let mut report = Report::default();
    eprintln!("bench-channel: idle cell and attach");
    let attachments = if arguments.quick { 7 } else { 21 };
    let idle = idle::measure(&vamosd, &directory.path().join("idle"), attachments).await?;
    let samples = interleaved(arguments, &vamosd, directory.path()).await?;
    summarise(&samples, &mut report);
    report.add("idle_cell_pss", Estimate::of(&idle.pss_mib), "MiB", Some(Target::AtMost(8.0)));
    report.add("attach", Estimate::of(&idle.attach_ms), "ms", Some(Target::AtMost(50.0)));
    Ok(report)
}

async fn interleaved(arguments: &Arguments, vamosd: &Path, directory: &Path) -> anyhow::Result<Samples> {
    let platform = Platform::start(vamosd, &directory.join("platform"), arguments.polling_us)?;
    let (postgres, readers) = postgres(&directory.join("postgres")).await?;
    match &postgres {
        Some(server) => eprintln!("bench-channel: compared with {}", server.version),
        None => eprintln!(
            "bench-channel: PostgreSQL is not installed (apt install postgresql): not compared with it"
        ),
    }
    let guest = Guest::attach(&platform.socket()).await?;
    guest::fill(&guest.session().await?).await.context("fill the tables over the link")?;
    let mut sessions = Vec::with_capacity(SESSIONS);
    for _ in 0..SESSIONS {
        sessions.push(Reader::new(guest.session().await?).await?);
    }
    let cpus = Cpus::of_this_process()?;
    if !cpus.can_be_apart() {
        eprintln!("bench-channel: only one CPU: both ends of every round trip share it");
    }
    let mut variants = Variants {
        cpus,
        echo: Echo::start()?,
        inprocess: InProcess::new(&directory.join("inprocess.db"))?,
        reader: Reader::new(guest.session().await?).await?,
        loader: Loader::new(guest.session().await?).await?,
        readers: sessions,
        guest,
        postgres: readers,
    };
    let slices = Slices { requests: 200, concurrent: Duration::from_millis(150), transactions: 20 };
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 15 } else { 61 });
    // One round before the count: caches, plans and files at their size.
    rounds::run(&mut variants, &platform, slices, &arguments.only, &mut Samples::default())
        .await
        .context(platform.log())?;
    let mut samples = Samples::default();
    for round in 0..rounds {
        if round % 10 == 0 {
            eprintln!("bench-channel: round {round} of {rounds}");
        }
        rounds::run(&mut variants, &platform, slices, &arguments.only, &mut samples).await?;
    }
    drop(variants);
    platform.stop().await;
    Ok(samples)
}

/// A PostgreSQL server with the table, and as many connections as there are sessions.
async fn postgres(directory: &Path) -> anyhow::Result<(Option<Postgres>, Option<PostgresReaders>)> {
    let Some(server) = Postgres::start(directory).await? else { return Ok((None, None)) };
    let client = server.connect().await?;
    client.batch_execute(&format!("{CREATE_ITEM}; BEGIN")).await.context("create PostgreSQL's table")?;
    let insert = client.prepare(INSERT_ITEM).await.context("prepare for PostgreSQL")?;
    for item in (1..=ITEMS).map(Item::new) {
        client
            .execute(&insert, &[&item.id, &item.name, &item.price, &item.stock])
            .await
            .context("fill PostgreSQL")?;
    }
    client.batch_execute("COMMIT").await.context("commit to PostgreSQL")?;
    client.batch_execute("VACUUM ANALYZE item").await.context("settle PostgreSQL")?;
    let mut readers = Vec::with_capacity(SESSIONS);
    for _ in 0..SESSIONS {
        let client = server.connect().await?;
        let select = client.prepare(SELECT_ITEM).await.context("prepare for PostgreSQL")?;
        readers.push((client, select));
    }
    let (first, _) = readers.first().context("have a connection")?;
    let row =
        first.query_one("SELECT pg_backend_pid()", &[]).await.context("ask for PostgreSQL's process")?;
    let first = Pid(u32::try_from(row.try_get::<_, i32>(0)?).context("read a process id")?);
    Ok((Some(server), Some(PostgresReaders { first, readers, keys: Keys::default() })))
}

fn summarise(samples: &Samples, report: &mut Report) {
    use Slice::{
        Ping, PingApart, Select, SelectApart, SelectInProcess, SelectPostgres, SelectPostgresApart, Socket,
        SocketApart,
    };
    let of = |slice| Estimate::of(samples.of(slice));
    let ratio = |above, below| samples.ratio(above, below);
    report.add("ping_vs_socket", ratio(Ping, Socket), "ratio", Some(Target::AtMost(1.5)));
    report.add("ping", of(Ping), "us", None);
    report.add("socket", of(Socket), "us", None);
    report.add("select_vs_postgres", ratio(Select, SelectPostgres), "ratio", Some(Target::AtMost(0.9)));
    report.add("select_vs_inprocess", ratio(Select, SelectInProcess), "ratio", None);
    report.add("select", of(Select), "us", None);
    report.add("select_postgres", of(SelectPostgres), "us", None);
    report.add("select_inprocess", of(SelectInProcess), "us", None);
    report.add("cpu_per_select", Estimate::of(&samples.select_cpu), "us", None);
    report.add("ping_vs_socket_apart", ratio(PingApart, SocketApart), "ratio", None);
    report.add("ping_apart", of(PingApart), "us", None);
    report.add("socket_apart", of(SocketApart), "us", None);
    report.add("select_vs_postgres_apart", ratio(SelectApart, SelectPostgresApart), "ratio", None);
    report.add("select_apart", of(SelectApart), "us", None);
    report.add("select_postgres_apart", of(SelectPostgresApart), "us", None);
    let transitions = Estimate::of(&samples.transitions);
    report.add("transitions_per_statement_64", transitions, "transitions", Some(Target::CountAtMost(0.2)));
    report.add("statements_per_second_64", of(Slice::Concurrent), "1/s", None);
    report.add(
        "statements_vs_postgres_64",
        ratio(Slice::Concurrent, Slice::ConcurrentPostgres),
        "ratio",
        None,
    );
    report.add("cpu_per_statement_64", Estimate::of(&samples.concurrent_cpu), "us", None);
    report.add("client_cpu_per_statement_64", Estimate::of(&samples.client_cpu), "us", None);
    report.add(
        "bulk_vs_inprocess",
        ratio(Slice::Load, Slice::LoadInProcess),
        "ratio",
        Some(Target::AtLeast(0.8)),
    );
    report.add("bulk", of(Slice::Load), "rows/s", None);
    report.add("bulk_inprocess", of(Slice::LoadInProcess), "rows/s", None);
}

/// Cells and PostgreSQL run as other users and must reach what is theirs below `directory`.
fn open_to_all(directory: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory, permissions).context("open the temporary directory")
}
