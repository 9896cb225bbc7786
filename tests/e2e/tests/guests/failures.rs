//! What breaks while others work.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use vamos_e2e::{ALPHA, SHOP, Stage, psql, same};
use vamos_lab::{Guest, HostConfig};

use crate::Case;

pub const CASES: &[Case] = &[
    ("failure::a_killed_cell_disturbs_no_other_vm", a_killed_cell_disturbs_no_other_vm),
    ("failure::a_killed_vmm_can_attach_again", a_killed_vmm_can_attach_again),
    ("failure::a_reset_guest_has_its_device_again", a_reset_guest_has_its_device_again),
    ("failure::vamosd_drains_and_leaves_nothing", vamosd_drains_and_leaves_nothing),
];

/// The guest whose cell is killed.
const VICTIM: &str = "victim";

fn a_killed_cell_disturbs_no_other_vm(stage: &Stage) -> Result<()> {
    let host =
        stage.lab()?.host(&HostConfig::new().vm(ALPHA).vm(VICTIM).bind(ALPHA, SHOP).bind(VICTIM, SHOP))?;
    let bystander = host.boot(ALPHA, &Guest::qemu())?;
    let victim = host.boot(VICTIM, &Guest::uml())?;
    psql(&bystander, SHOP, "CREATE TABLE tick (id integer PRIMARY KEY)")?;
    psql(&victim, SHOP, "CREATE TABLE kept (id integer PRIMARY KEY)")?;
    psql(&victim, SHOP, "INSERT INTO kept VALUES (1)")?;
    bystander.run("echo 'INSERT INTO tick DEFAULT VALUES;' >/tmp/tick.sql")?;
    let working = bystander.start(
        &format!("pgbench --no-vacuum --client 4 --time 6 --file /tmp/tick.sql {SHOP} 2>&1"),
        Duration::from_secs(60),
    )?;
    std::thread::sleep(Duration::from_secs(2));
    let cell = host.cell_process(VICTIM)?;
    kill_process(Pid::from_raw(cell).context("no cell")?, Signal::KILL).context("killing the cell")?;
    let said = working.wait()?.success()?;
    ensure!(said.contains("number of failed transactions: 0") && !said.contains("aborted"), "{said}");

    // Another cell takes over, and the data is there.
    drop(victim);
    let until = Instant::now() + Duration::from_secs(20);
    while host.cell_process(VICTIM).map_or(true, |pid| pid == cell) {
        ensure!(Instant::now() < until, "no new cell:\n{}", host.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let again = host.boot(VICTIM, &Guest::uml())?;
    same("what was acknowledged", psql(&again, SHOP, "SELECT id FROM kept")?, "1")?;
    host.end()
}

fn a_killed_vmm_can_attach_again(stage: &Stage) -> Result<()> {
    let host = stage.lab()?.host(&HostConfig::new().vm(VICTIM).bind(VICTIM, SHOP))?;
    for round in 1..=3 {
        let vm = host.boot(VICTIM, &Guest::uml())?;
        psql(&vm, SHOP, "CREATE TABLE IF NOT EXISTS round (id integer PRIMARY KEY)")?;
        psql(&vm, SHOP, "INSERT INTO round DEFAULT VALUES")?;
        same("rounds", psql(&vm, SHOP, "SELECT count(*) FROM round")?, round.to_string())?;
        // Dropped, it is killed with SIGKILL: the front-end hangs up without a word.
    }
    ensure!(!host.log().contains("panicked"), "{}", host.log());
    host.end()
}

fn a_reset_guest_has_its_device_again(stage: &Stage) -> Result<()> {
    let host = stage.lab()?.host(&HostConfig::new().vm(VICTIM).bind(VICTIM, SHOP))?;
    let mut vm = host.boot(VICTIM, &Guest::qemu())?;
    psql(&vm, SHOP, "CREATE TABLE kept (id integer PRIMARY KEY)")?;
    for round in 1..=3 {
        psql(&vm, SHOP, "INSERT INTO kept DEFAULT VALUES")?;
        vm.reset()?;
        host.start_agent(&vm)?;
        same("rows", psql(&vm, SHOP, "SELECT count(*) FROM kept")?, round.to_string())?;
    }
    // Streams of the boots before are not held for ever.
    let open = host.counter(VICTIM, "streams_open")?;
    ensure!(open <= 4, "{open} streams are open after three resets");
    host.end()
}

fn vamosd_drains_and_leaves_nothing(stage: &Stage) -> Result<()> {
    let host = stage.lab()?.host(&HostConfig::new().vm(VICTIM).bind(VICTIM, SHOP))?;
    let vm = host.boot(VICTIM, &Guest::uml())?;
    psql(&vm, SHOP, "SELECT 1")?;
    let (cell, socket) = (host.cell_process(VICTIM)?, host.socket());
    host.end()?;
    ensure!(!std::path::Path::new(&format!("/proc/{cell}/exe")).exists(), "cell {cell} lives on");
    ensure!(!socket.exists(), "{} is left", socket.display());
    Ok(())
}
