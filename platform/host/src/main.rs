//! vamosd: one per host. Its life: read the whole configuration, check the host, lock the directories, open the
//! registry, start the cells, serve the control plane, drain, end.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;
use vamos_host::config::Config;
use vamos_host::control::ControlPlane;
use vamos_host::directories::Directories;
use vamos_host::doctor;
use vamos_host::limits::DRAIN_DEFAULT;
use vamos_host::platform::Platform;
use vamos_host::registry::{Registry, UidRange};
use vamos_sandbox::Enforcement;

/// The host platform of VAMOS.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    serve: Serve,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Serve {
    /// The configuration
    #[arg(long, default_value = "/etc/vamos/vamos.toml")]
    config: PathBuf,
    /// What to do when a layer of the cells' sandbox is missing; overrides the configuration
    #[arg(long)]
    sandbox: Option<Sandbox>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sandbox {
    /// Refuse to serve
    Strict,
    /// Serve without it, and say so
    BestEffort,
}

#[derive(Subcommand)]
enum Command {
    /// Examine this host: what is there, what is missing, what to do. Exit code 1 if something is missing
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Boot this kernel, or the newest in /boot, to prove that KVM works
        #[arg(long, num_args = 0..=1, default_missing_value = "auto")]
        boot: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Command::Doctor { json, boot }) => examine(json, boot),
        None => run(&arguments.serve).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("vamosd: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: &Serve) -> anyhow::Result<()> {
    log_to_stderr();
    let config = configuration(arguments)?;
    check_host(&config)?;
    let directories = Directories::prepare(&config.state_dir, &config.run_dir)?;
    let uids = UidRange { first: config.cells.uid_first, count: config.cells.uid_count };
    let mut registry = Registry::open(&directories.registry(), uids).context("open the registry")?;
    registry.reconcile(&config).context("bring the registry in line with the configuration")?;
    // Cells outlive the process that forked them and are reaped here.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("become the cells' reaper")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(config, directories, registry))
}

async fn serve(config: Config, directories: Directories, registry: Registry) -> anyhow::Result<()> {
    let (control, socket) = (config.control.clone(), directories.control_socket());
    let platform = Platform::start(config, directories, registry).await?;
    let plane = ControlPlane::bind(&control, &socket, platform.clone()).await?;
    end_on_signal(platform.ending())?;
    let serving = tokio::spawn(plane.serve(platform.ending()));
    platform.settled().await;
    info!(socket = %socket.display(), "serving");
    // A reader that has gone away is no reason not to serve.
    let _ = writeln!(stdout(), "vamosd: ready");
    platform.ending().cancelled().await;
    info!("draining");
    platform.stop(DRAIN_DEFAULT).await;
    // Clients that keep their streams open do not keep vamosd.
    let _ = tokio::time::timeout(DRAIN_DEFAULT, serving).await;
    let _ = std::fs::remove_file(&socket);
    info!("ended");
    Ok(())
}

fn configuration(arguments: &Serve) -> anyhow::Result<Config> {
    let mut config = Config::load(&arguments.config)?;
    match arguments.sandbox {
        Some(Sandbox::Strict) => config.enforcement = Enforcement::Strict,
        Some(Sandbox::BestEffort) => config.enforcement = Enforcement::BestEffort,
        None => {}
    }
    if !config.cell_binary.is_file() {
        bail!("{} is not there; build vamos-cell, or name it as cell_binary", config.cell_binary.display());
    }
    Ok(config)
}

fn check_host(config: &Config) -> anyhow::Result<()> {
    let missing = doctor::missing_layers();
    if missing.is_empty() {
        return Ok(());
    }
    if config.enforcement == Enforcement::Strict {
        bail!(
            "this host cannot confine a cell fully:\n  {}\nmend that, or accept it with --sandbox=best-effort",
            missing.join("\n  ")
        );
    }
    for layer in missing {
        warn!(layer, "cells run without a layer of their sandbox");
    }
    Ok(())
}

fn end_on_signal(ending: CancellationToken) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        ending.cancel();
    });
    Ok(())
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("VAMOS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
}

fn examine(json: bool, boot: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let kernel = match boot {
        Some(path) if path.as_os_str() == "auto" => {
            Some(doctor::installed_kernel().context("find a kernel in /boot; name one: --boot=PATH")?)
        }
        named => named,
    };
    let checks = doctor::examine(kernel.as_deref());
    if json {
        println!("{:#}", doctor::json(&checks));
    } else {
        print!("{}", doctor::table(&checks));
    }
    let complete = checks.iter().all(|check| check.verdict() != vamos_proto::control::Verdict::Missing);
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
