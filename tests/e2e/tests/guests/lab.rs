//! What all other cases stand on: scripts in a guest, and their answers.

use std::time::Duration;

use anyhow::{Result, ensure};
use vamos_e2e::{Stage, same};
use vamos_lab::Vm;

use crate::Case;

pub const CASES: &[Case] = &[("lab::answers_of_scripts_that_end_at_once_stay_apart", answers_stay_apart)];

const SCRIPTS: usize = 12;

fn answers_stay_apart(stage: &Stage) -> Result<()> {
    for vm in [stage.alpha()?, stage.gamma()?] {
        for _ in 0..3 {
            answers_of(vm)?;
        }
    }
    Ok(())
}

/// They end together, each with more to say than one write takes.
fn answers_of(vm: &Vm) -> Result<()> {
    let text = |n: usize| format!("{n:0>4}\n").repeat(20_000);
    let script = |n: usize| {
        format!(
            "yes {n:0>4} | head -n 20000 >/tmp/said.{n}; until [ -e /tmp/go ]; do sleep 0.05; done; cat /tmp/said.{n}"
        )
    };
    vm.run("rm -f /tmp/go")?;
    let limit = Duration::from_secs(60);
    let running: Vec<_> = (0..SCRIPTS).map(|n| vm.start(&script(n), limit)).collect::<Result<_>>()?;
    vm.run("touch /tmp/go")?;
    for (n, running) in running.into_iter().enumerate() {
        let said = running.wait()?.success()?;
        same("bytes", said.len(), text(n).len())?;
        ensure!(said == text(n), "script {n} said something else");
    }
    vm.run("rm -f /tmp/said.* /tmp/go").map(|_| ())
}
