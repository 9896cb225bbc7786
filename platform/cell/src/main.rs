//! vamos-cell: the process that serves one VM.
//!
//! Started by vamosd with the control channel as standard input and the log as standard error; of no
//! use otherwise. It outlives that vamosd, and is collected by the next.

use std::process::ExitCode;

// Tests can make parts of the cell err and die; not of one that is shipped.
const _: () = assert!(!vamos_seam::ARMED, "tests/seeded has a cell of its own for this");

fn main() -> ExitCode {
    match vamos_cell::live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vamos-cell: {error:#}");
            ExitCode::FAILURE
        }
    }
}
