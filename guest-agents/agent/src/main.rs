//! vamos-agent: front doors inside the guest. The command line.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use vamos_agent::run::{self, RunConfig};
use vamos_agent::shell;
use vamos_link::ChannelAddress;

// Tests can make parts of the client err; not of one that is shipped.
const _: () = assert!(!vamos_seam::ARMED, "an agent must not err at a test's word");

/// Front doors inside the guest: local servers whose work the host does.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// The way to the host: `vsock`, or `process:PATH` for a process guest.
    #[arg(long, global = true, default_value = "vsock", env = "VAMOS_CHANNEL")]
    channel: ChannelAddress,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Opens the front doors and serves until SIGTERM.
    Run {
        /// Directory of the PostgreSQL door's Unix socket.
        #[arg(long, default_value = "/run/postgresql")]
        socket_dir: PathBuf,
        /// Opens no TCP ports.
        #[arg(long)]
        no_tcp: bool,
    },
    /// Runs statements on a database and prints what they return.
    Sql {
        /// The database.
        database: String,
        /// The statements.
        statements: String,
    },
    /// Reads statements from the terminal, or from a pipe.
    Shell {
        /// The database.
        database: String,
    },
    /// Lists what the host has bound to this VM.
    Bindings,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("VAMOS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vamos-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    // One thread: a request passes from the client's socket to the device without a hand-over.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(obey(arguments))
}

async fn obey(Arguments { channel: address, command }: Arguments) -> anyhow::Result<()> {
    if let Command::Run { socket_dir, no_tcp } = command {
        return run::run(RunConfig { channel: address, socket_dir, tcp: !no_tcp }).await;
    }
    let channel = address.connect().await.with_context(|| format!("reach the host over {address}"))?;
    match command {
        Command::Run { .. } => Ok(()),
        Command::Sql { database, statements } => {
            let session = shell::open(&channel, &database).await?;
            shell::run_text(&session, &statements).await
        }
        Command::Shell { database } => {
            let session = shell::open(&channel, &database).await?;
            shell::converse(&session, &database).await
        }
        Command::Bindings => {
            let welcome = run::bindings(&channel).await?;
            println!("VM {}, generation {}", welcome.vm, welcome.generation);
            for binding in welcome.bindings {
                println!("{}\t{}\tport {}", binding.name, binding.kind, binding.port);
            }
            Ok(())
        }
    }
}
