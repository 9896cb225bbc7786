//! A cell is killed under a running guest, and the guest goes on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use vamos_e2e::{SHOP, Stage, psql, same};
use vamos_lab::{Guest, HostConfig, Vm};

use crate::Case;

pub const CASES: &[Case] = &[
    ("keeper::qemu_goes_on_with_another_cell", qemu_goes_on),
    ("keeper::user_mode_linux_goes_on_with_another_cell", user_mode_linux_goes_on),
];

const VM: &str = "survivor";

/// Kills of one run.
const KILLS: u32 = 6;

fn qemu_goes_on(stage: &Stage) -> Result<()> {
    goes_on(stage, &Guest::qemu())
}

fn user_mode_linux_goes_on(stage: &Stage) -> Result<()> {
    goes_on(stage, &Guest::uml())
}

fn goes_on(stage: &Stage, guest: &Guest) -> Result<()> {
    let host = stage.lab()?.host(&HostConfig::new().vm(VM).bind(VM, SHOP))?;
    let vm = host.boot(VM, guest)?;
    psql(&vm, SHOP, "CREATE TABLE kept (id integer PRIMARY KEY)")?;
    for round in 1..=KILLS {
        // A client that waits for rows at the kill hears of it; it does not wait for ever.
        let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n";
        let waiting = vm.start(&format!("psql {SHOP} -c '{endless}'"), Duration::from_secs(60))?;
        psql(&vm, SHOP, "INSERT INTO kept DEFAULT VALUES")?;
        let cell = host.cell_process(VM)?;
        kill_process(Pid::from_raw(cell).context("no cell")?, Signal::KILL).context("killing the cell")?;
        let rows = soon(&vm, "SELECT count(*) FROM kept")?;
        same("rows", rows, round.to_string())?;
        ensure!(host.cell_process(VM)? != cell, "the same cell");
        let said = waiting.wait()?;
        ensure!(said.success().is_err(), "a statement outlived its cell");
    }
    ensure!(!host.log().contains("panicked"), "{}", host.log());
    host.end()
}

/// The answer, from the first client that gets one.
fn soon(vm: &Vm, sql: &str) -> Result<String> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match psql(vm, SHOP, sql) {
            Ok(answer) => return Ok(answer),
            Err(error) => ensure!(Instant::now() < until, "no answer after the kill: {error:#}"),
        }
    }
}
