//! `cargo verify`: all set-up, then every check there is. One that fails does not keep the others from
//! running; the last line is the count.

mod counts;
mod step;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::artifacts::cargo_command;
use crate::run::RunDir;
use crate::setup::{Needs, prepare};
use counts::Counts;
use step::{Checks, Step};

/// Most transitions that loading a row through the PostgreSQL door may cost. Counts gate, times do not.
const TRANSITIONS_PER_ROW_MAX: f64 = 0.02;

/// Runs everything and returns what came of it. Prints a summary, and the count as its last line.
///
/// # Errors
/// When the machine cannot be set up; a check that fails is counted instead.
pub fn run() -> Result<Counts> {
    let start = Instant::now();
    prepare(Needs::Verify)?;
    let run = RunDir::create()?;
    let figures = run.path().join("demo.json");
    let mut counts = Counts::default();
    let mut summary = Vec::new();
    for step in steps(&figures)? {
        let name = step.name;
        println!("\nverify: {name}");
        let began = Instant::now();
        let came = step.run(&run).unwrap_or_else(|error| {
            eprintln!("verify: {name}: {error:#}");
            Counts { passed: 0, failed: 1 }
        });
        counts += came;
        summary.push((name, came, began.elapsed()));
    }
    let gates = demo_gates(&figures);
    if let Err(error) = &gates {
        eprintln!("verify: the demo's figures: {error:#}");
    }
    let gates = Counts::of(gates.is_ok());
    counts += gates;
    summary.push(("the demo's figures", gates, Duration::ZERO));
    println!();
    for (name, came, took) in summary {
        let verdict = if came.failed == 0 { "ok" } else { "FAILED" };
        println!("verify: {verdict:<6} {name:<34} {came:<24} {:>6.0} s", took.as_secs_f64());
    }
    println!("verify: {:.0} s in all", start.elapsed().as_secs_f64());
    println!("{counts}");
    Ok(counts)
}

fn steps(figures: &Path) -> Result<Vec<Step>> {
    let cargo = |arguments: &[&str]| {
        let mut command = cargo_command();
        command.args(arguments);
        command
    };
    let mut demo = Command::new(std::env::current_exe().context("finding this binary")?);
    demo.arg("demo").arg("--json").arg(figures);
    Ok(vec![
        Step { name: "format", command: cargo(&["fmt", "--all", "--check"]), checks: Checks::One },
        Step {
            name: "lints",
            command: cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
            checks: Checks::One,
        },
        Step {
            name: "unit, property, tidy, corpus tests",
            command: cargo(&["test", "--workspace", "--exclude", "vamos-e2e", "--no-fail-fast"]),
            checks: Checks::Tests,
        },
        Step {
            // By itself: with the feature, what it stands on is not what is shipped.
            name: "seeded bugs, crash points",
            command: cargo(&["test", "--package", "vamos-seeded", "--features", "armed", "--no-fail-fast"]),
            checks: Checks::Tests,
        },
        Step {
            name: "guests: QEMU and UML",
            command: cargo(&["test", "--release", "--package", "vamos-e2e", "--no-fail-fast"]),
            checks: Checks::Tests,
        },
        Step { name: "demo", command: demo, checks: Checks::One },
    ])
}

/// What the demo measured is what it must be. Its truths it has checked itself.
fn demo_gates(figures: &Path) -> Result<()> {
    let text = std::fs::read_to_string(figures).context("reading them")?;
    let figures: Value = serde_json::from_str(&text).context("reading them as JSON")?;
    let median = |name: &str| figures[name]["median"].as_f64().with_context(|| format!("no {name}"));
    let per_row = median("transitions_per_row")?;
    anyhow::ensure!(
        per_row <= TRANSITIONS_PER_ROW_MAX,
        "{per_row} transitions a row, more than {TRANSITIONS_PER_ROW_MAX}"
    );
    Ok(())
}
