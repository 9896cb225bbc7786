//! The commands behind the aliases of `.cargo/config.toml`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use vamos_lab::{bench, demo, torture, verify};

/// The VM lab.
#[derive(Debug, Parser)]
#[command(name = "vamos-lab")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load the machine's package catalogue from within a VM and ask questions of it.
    Demo {
        /// Write the figures there.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Take only that many packages: a short form.
        #[arg(long, value_name = "N")]
        packages: Option<usize>,
    },
    /// Run every check there is.
    Verify,
    /// Kill and replace the host of a guest's clients all the time; nothing may be lost, doubled or noticed.
    Torture {
        /// How long.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Determines the schedule of the faults.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Write the figures there.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Measure the channel at native speed; arguments are bench-channel's.
    BenchChannel {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Measure the edge against nginx; arguments are bench-http's.
    BenchHttp {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    // Causes in one line: where in the lab it happened helps nobody who reads it.
    obey().unwrap_or_else(|error| {
        eprintln!("vamos-lab: {error:#}");
        ExitCode::FAILURE
    })
}

fn obey() -> Result<ExitCode> {
    vamos_lab::enter()?;
    match Cli::parse().command {
        Command::Demo { json, packages } => demo::run(&demo::Options { json, packages })?,
        Command::Verify => return Ok(ExitCode::from(u8::from(verify::run()?.failed > 0))),
        Command::Torture { minutes, seed, json } => {
            torture::run(&torture::Options { time: Duration::from_secs(minutes * 60), seed, json })?;
        }
        Command::BenchChannel { arguments } => bench::channel(&arguments)?,
        Command::BenchHttp { arguments } => bench::http(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
