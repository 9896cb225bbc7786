//! The binaries under test, built by cargo in release mode. The demo and the checks share them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::{output, shown};
use crate::run::{RUN_VARIABLE, RunDir};

/// The agent's target: naming it keeps the static C runtime away from build scripts and macros.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where the binaries are.
#[derive(Debug, Clone)]
pub struct Artifacts {
    /// vamosd, with vamos-cell and vamos-edge beside it.
    pub vamosd: PathBuf,
    /// vamosctl.
    pub vamosctl: PathBuf,
    /// The directory of both, and of the lab's own binary.
    release: PathBuf,
    /// Programs for guests, statically linked.
    guest: PathBuf,
    /// The run that builds belong to.
    run: PathBuf,
}

impl Artifacts {
    /// Builds what runs on the host, where it is not up to date. cargo reports its progress on standard
    /// error.
    ///
    /// # Errors
    /// When something does not compile.
    pub fn build_host(run: &RunDir) -> Result<Self> {
        let target = target_directory()?;
        let mut command = cargo_command();
        command.args([
            "build",
            "--release",
            "--package",
            "vamos-host",
            "--package",
            "vamos-cell",
            "--package",
            "vamos-edge",
        ]);
        build(command.args(["--package", "vamos-ctl", "--bins"]), run.path())?;
        let release = target.join("release");
        let guest = target.join(GUEST_TARGET).join("release");
        let (vamosd, vamosctl) = (release.join("vamosd"), release.join("vamosctl"));
        let artifacts = Self { vamosd, vamosctl, release, guest, run: run.path().to_owned() };
        for binary in [&artifacts.vamosd, &artifacts.vamosctl] {
            ensure!(binary.exists(), "{} is not where cargo should have put it", binary.display());
        }
        Ok(artifacts)
    }

    /// As [`Artifacts::build_host`], and the programs for guests: the agent and those of `tests/guest`.
    ///
    /// # Errors
    /// When something does not compile.
    pub fn build(run: &RunDir) -> Result<Self> {
        let artifacts = Self::build_host(run)?;
        let mut command = cargo_command();
        command
            .args(["build", "--release", "--target", GUEST_TARGET])
            .args(["--package", "vamos-agent", "--package", "vamos-guest", "--bins"])
            // Debug information would take memory in every guest.
            .args(["--config", "profile.release.strip=\"debuginfo\""])
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", "-C target-feature=+crt-static");
        build(&mut command, run.path())?;
        Ok(artifacts)
    }

    /// A program for guests.
    #[must_use]
    pub fn guest(&self, program: &str) -> PathBuf {
        self.guest.join(program)
    }

    /// Builds the cell that obeys orders of tests, as the tests of seeded bugs do.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn build_armed_cell(&self) -> Result<PathBuf> {
        let mut command = cargo_command();
        command.args(["build", "--package", "vamos-seeded", "--features", "armed", "--bin", "armed-cell"]);
        build(&mut command, &self.run)?;
        Ok(target_directory()?.join("debug/armed-cell"))
    }

    /// Builds the lab's own binary, for a test of it, and returns its path.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn build_lab(&self) -> Result<PathBuf> {
        let mut command = cargo_command();
        command.args(["build", "--release", "--package", "vamos-lab", "--bin", "vamos-lab"]);
        build(&mut command, &self.run)?;
        Ok(self.release.join("vamos-lab"))
    }
}

/// The repository.
#[must_use]
pub fn repository() -> &'static Path {
    // INVARIANT: two folders up from tests/lab, where cargo compiled this file.
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/"))
}

/// cargo, in the repository, of the toolchain that runs the lab.
pub(crate) fn cargo_command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository()).stdin(Stdio::null());
    command
}

fn build(command: &mut Command, run: &Path) -> Result<()> {
    let start = Instant::now();
    command.env(RUN_VARIABLE, run);
    let status = command.status().with_context(|| format!("running {}", shown(command)))?;
    ensure!(status.success(), "{} failed with {status}", shown(command));
    if start.elapsed().as_secs() > 2 {
        eprintln!("lab: built in {:.0} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// cargo's target directory, wherever it was put.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let metadata = output(cargo_command().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("reading cargo metadata")?;
    let directory =
        metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}
