//! armed-cell: vamos-cell with seams that obey the file `seam` in its volume. Started by vamosd in its place.

mod disk;

use std::path::Path;
use std::process::ExitCode;

// It would prove nothing without.
const _: () = assert!(vamos_seam::ARMED);

fn main() -> ExitCode {
    vamos_seam::obey(Path::new("/volume/seam"));
    match vamos_cell::live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("armed-cell: {error:#}");
            ExitCode::FAILURE
        }
    }
}
