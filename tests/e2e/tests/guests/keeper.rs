//! A cell is killed under a running guest, and the guest goes on.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use vamos_e2e::{SHOP, Stage, psql, same};
use vamos_lab::{Guest, HostConfig, Vm, torture};

use crate::Case;

pub const CASES: &[Case] = &[
    ("keeper::qemu_goes_on_with_another_cell", qemu_goes_on),
    ("keeper::user_mode_linux_goes_on_with_another_cell", user_mode_linux_goes_on),
    ("keeper::tortured_clients_notice_nothing", torture),
];

const VM: &str = "survivor";

/// Transactions of the client.
const ROWS: u32 = 3000;

/// From one kill to the next: beyond this a cell has lived, and is started again at once.
const PAUSE: Duration = Duration::from_millis(1100);

fn qemu_goes_on(stage: &Stage) -> Result<()> {
    goes_on(stage, &Guest::qemu())
}

fn user_mode_linux_goes_on(stage: &Stage) -> Result<()> {
    goes_on(stage, &Guest::uml())
}

/// One unmodified client, connected all the time, in a transaction most of the time: no statement of it fails.
fn goes_on(stage: &Stage, guest: &Guest) -> Result<()> {
    let host = stage.lab()?.host(&HostConfig::new().vm(VM).bind(VM, SHOP))?;
    let vm = host.boot(VM, guest)?;
    psql(&vm, SHOP, "CREATE TABLE kept (id integer PRIMARY KEY)")?;
    let transaction = "BEGIN; INSERT INTO kept VALUES (&); SELECT count(*) FROM kept; COMMIT;";
    let client = format!(
        "{{ echo '\\timing on'; seq 1 {ROWS} | sed 's/.*/{transaction}/'; }} | psql -qAt -v ON_ERROR_STOP=1 {SHOP}"
    );
    let working = vm.start(&client, Duration::from_secs(120))?;
    let mut kills = 0;
    while rows(&vm)? < ROWS {
        let cell = host.cell_process(VM)?;
        kill_process(Pid::from_raw(cell).context("no cell")?, Signal::KILL).context("killing the cell")?;
        kills += 1;
        sleep(PAUSE);
        ensure!(host.cell_process(VM)? != cell, "the same cell");
    }
    let said = working.wait()?.success()?;
    ensure!(kills > 1, "{kills} kills prove nothing");
    let counts: Vec<u32> = said.lines().filter_map(|line| line.parse().ok()).collect();
    ensure!(counts == (1..=ROWS).collect::<Vec<_>>(), "counted {counts:?}");
    same("rows", rows(&vm)?, ROWS)?;
    let times = said.lines().filter_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok());
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    let slowest = &times[times.len().saturating_sub(kills)..];
    println!("{kills} kills; the slowest statements took {slowest:.0?} ms");
    ensure!(!host.log().contains("panicked"), "{}", host.log());
    host.end()
}

/// The short form of `cargo torture`.
fn torture(stage: &Stage) -> Result<()> {
    let options = torture::Options { time: Duration::from_secs(30), seed: 173_439, json: None };
    let figures = torture::of(stage.lab()?, &options)?;
    println!("{}", figures.line());
    Ok(())
}

fn rows(vm: &Vm) -> Result<u32> {
    let said = psql(vm, SHOP, "SELECT count(*) FROM kept")?;
    said.parse().with_context(|| format!("a number of rows: {said:?}"))
}
