//! One step of `cargo verify`: a command, and how its checks are counted.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result};

use super::counts::Counts;
use crate::limits::VERIFY_STEP_MAX;
use crate::process::Process;
use crate::run::RunDir;

/// What a step's command checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// One thing: its exit status says whether it holds.
    One,
    /// What its test runners' closing lines say.
    Tests,
}

/// A step.
#[derive(Debug)]
pub struct Step {
    /// For the reader.
    pub name: &'static str,
    /// What is run.
    pub command: Command,
    /// How it is counted.
    pub checks: Checks,
}

impl Step {
    /// Runs the command, passing on what it prints.
    ///
    /// # Errors
    /// When it cannot be run, or does not end in time.
    pub fn run(mut self, run: &RunDir) -> Result<Counts> {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start(self.name, self.command, run)?;
        let stdout = process.child().stdout.take().context("it has no standard output")?;
        let counting = thread::spawn(move || {
            let mut counts = Counts::default();
            for line in BufReader::new(stdout).split(b'\n').map_while(std::io::Result::ok) {
                let line = String::from_utf8_lossy(&line);
                println!("{line}");
                if let Some(came) = Counts::of_line(&line) {
                    counts += came;
                }
            }
            counts
        });
        let status = process.wait(VERIFY_STEP_MAX);
        // Killed, it closes its output, which ends the counting.
        process.kill();
        let counted = counting.join().unwrap_or_default();
        Ok(verdict(self.checks, status?.success(), counted))
    }
}

/// What a step counts for. Tests that did not compile, or a runner that died, are a failure; so is no test.
fn verdict(checks: Checks, success: bool, counted: Counts) -> Counts {
    match checks {
        Checks::One => Counts::of(success),
        Checks::Tests if success && counted.passed > 0 => counted,
        Checks::Tests => Counts { failed: counted.failed.max(1), ..counted },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_that_dies_is_a_failure() {
        let three = Counts { passed: 3, failed: 0 };
        assert_eq!(verdict(Checks::Tests, true, three), three);
        assert_eq!(verdict(Checks::Tests, false, three), Counts { passed: 3, failed: 1 });
        assert_eq!(verdict(Checks::Tests, true, Counts::default()), Counts { passed: 0, failed: 1 });
        assert_eq!(verdict(Checks::One, true, three), Counts { passed: 1, failed: 0 });
    }
}
