//! The commands behind the aliases of `.cargo/config.toml`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use vamos_lab::demo;

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
}

fn main() -> Result<()> {
    vamos_lab::enter()?;
    match Cli::parse().command {
        Command::Demo { json, packages } => demo::run(&demo::Options { json, packages }),
    }
}
