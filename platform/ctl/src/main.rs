//! vamosctl: the command line of the control plane. Parses, connects, asks, prints.
//!
//! Knows nothing of cells, devices or the registry: everything it says comes from vamosd.
//!
//! Exit codes: 0 done, 1 vamosd refused or failed, 2 wrong usage, 3 vamosd could not be reached.

mod attach_args;
mod cli;
mod command;
mod connect;
mod failure;
mod output;
mod qmp;
mod table;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Completion { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "vamosctl", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    match command::run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("vamosctl: {failure}");
            failure.exit_code()
        }
    }
}
