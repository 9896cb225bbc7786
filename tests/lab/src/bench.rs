//! `cargo bench-channel`: builds what is measured and what measures it, and hands over.

use std::ffi::OsString;

use anyhow::{Result, ensure};

use crate::artifacts::{Artifacts, cargo_command};
use crate::limits::BENCH_MAX;
use crate::process::Process;
use crate::run::RunDir;
use crate::setup::{Needs, prepare};

/// Runs `bench-channel` with these arguments.
///
/// # Errors
/// When something does not build, or a figure is missed.
pub fn channel(arguments: &[OsString]) -> Result<()> {
    prepare(Needs::Bench)?;
    let run = RunDir::create()?;
    let artifacts = Artifacts::build_host(&run)?;
    let mut command = cargo_command();
    command
        .args(["run", "--quiet", "--release", "--package", "vamos-bench", "--bin", "bench-channel", "--"])
        .arg("--vamosd")
        .arg(&artifacts.vamosd)
        .args(arguments);
    let status = Process::start("bench-channel", command, &run)?.wait(BENCH_MAX)?;
    ensure!(status.success(), "bench-channel ended with {status}");
    Ok(())
}
