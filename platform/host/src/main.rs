//! vamosd: one per host. Reads the whole configuration, then lives as [`daemon`] says.

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;
use vamos_host::config::Config;
use vamos_host::{daemon, doctor};
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
    /// Only read the configuration and say whether it can be used
    #[arg(long, env = daemon::CHECK)]
    check: bool,
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
    if arguments.check {
        return Ok(());
    }
    daemon::run(config)
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
