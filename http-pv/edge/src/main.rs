//! vamos-edge: the process that serves HTTP to the world, for all VMs.
//!
//! Started by vamosd with the private channel as standard input and the log as standard error; of no use otherwise.

use std::process::ExitCode;

fn main() -> ExitCode {
    match vamos_edge::live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vamos-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}
