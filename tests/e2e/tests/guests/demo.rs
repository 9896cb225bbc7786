//! `cargo demo`, killed at any time, leaves nothing that stops the next.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use vamos_e2e::Stage;

use crate::Case;

pub const CASES: &[Case] = &[("demo::killed_at_any_time_the_next_one_runs", killed_at_any_time)];

/// When it is killed: in its start, while guests boot, while rows are loaded.
const MOMENTS: &[Duration] = &[
    Duration::from_millis(300),
    Duration::from_millis(1500),
    Duration::from_millis(3500),
    Duration::from_millis(6000),
    Duration::from_millis(9000),
];

/// Time in which the warden has removed everything.
const CLEAN_MAX: Duration = Duration::from_secs(10);

fn killed_at_any_time(stage: &Stage) -> Result<()> {
    let lab = stage.lab()?.artifacts().build_lab()?;
    let signals = [Signal::KILL, Signal::INT, Signal::KILL, Signal::TERM, Signal::KILL];
    for (moment, signal) in MOMENTS.iter().zip(signals) {
        let before = runs()?;
        let mut demo =
            demo(&lab).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("starting the demo")?;
        std::thread::sleep(*moment);
        let run = format!("after {signal:?} at {moment:?}");
        let pid = i32::try_from(demo.id()).ok().and_then(Pid::from_raw).context("no pid")?;
        let started = descendants(pid.as_raw_nonzero().get());
        kill_process(pid, signal).context("killing the demo")?;
        demo.wait().context("waiting for the demo's end")?;
        let until = Instant::now() + CLEAN_MAX;
        loop {
            let processes: Vec<_> = started.iter().filter(|process| process.lives()).collect();
            let files: Vec<_> = runs()?.difference(&before).cloned().collect();
            if processes.is_empty() && files.is_empty() {
                break;
            }
            ensure!(Instant::now() < until, "{run}: left {processes:?} and {files:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let output = demo(&lab).output().context("running the demo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the demo after them failed:\n{said}\n{complained}");
    let last = said.lines().last().unwrap_or_default();
    ensure!(last.starts_with("demo: ok"), "its last line is {last}");
    Ok(())
}

/// A short form of the demo.
fn demo(lab: &Path) -> Command {
    let mut command = Command::new(lab);
    command.args(["demo", "--packages", "3000"]).stdin(Stdio::null());
    command
}

/// The run directories there are.
fn runs() -> Result<BTreeSet<PathBuf>> {
    let root = vamos_lab::run::root()?;
    let entries = fs::read_dir(&root).context("listing runs")?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect())
}

/// A process, told from later ones of its number by its start.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Started {
    pid: i32,
    name: String,
    parent: i32,
    at: u64,
    zombie: bool,
}

impl Started {
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            pid,
            name: name.split_once('(')?.1.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            at: fields.get(19)?.parse().ok()?,
            zombie: matches!(*fields.first()?, "Z" | "X"),
        })
    }

    fn lives(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.at == self.at && !now.zombie)
    }
}

/// All that a process has started, directly or not.
fn descendants(root: i32) -> Vec<Started> {
    let numbers = fs::read_dir("/proc").into_iter().flatten();
    let all: Vec<Started> =
        numbers.filter_map(|entry| Started::of(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect();
    let mut found: Vec<Started> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for child in all.iter().filter(|process| process.parent == parent) {
            parents.push(child.pid);
            found.push(child.clone());
        }
    }
    found
}
