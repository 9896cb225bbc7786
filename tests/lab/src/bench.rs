//! `cargo bench-channel` and `cargo bench-http`: builds what is measured and what measures it, and hands over.

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
    run("bench-channel", arguments)
}

/// Runs `bench-http` with these arguments.
///
/// # Errors
/// When something does not build, or a count is missed.
pub fn http(arguments: &[OsString]) -> Result<()> {
    prepare(Needs::BenchHttp)?;
    run("bench-http", arguments)
}

fn run(program: &str, arguments: &[OsString]) -> Result<()> {
    let run = RunDir::create()?;
    let artifacts = Artifacts::build_host(&run)?;
    let mut command = cargo_command();
    command
        .args(["run", "--quiet", "--release", "--package", "vamos-bench", "--bin", program, "--"])
        .arg("--vamosd")
        .arg(&artifacts.vamosd)
        .args(arguments);
    let status = Process::start(program, command, &run)?.wait(BENCH_MAX)?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}
