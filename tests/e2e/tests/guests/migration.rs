//! A guest moves from host to host and back under an unmodified client.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vamos_e2e::{SHOP, Stage, psql, same};
use vamos_lab::{Guest, HostConfig, Vm};

use crate::Case;

pub const CASES: &[Case] =
    &[("migration::a_guest_moves_under_load_and_no_statement_fails", moves_under_load)];

const VM: &str = "mover";

/// Transactions of the client.
const ROWS: u32 = 6000;

const MOVES: usize = 3;

fn moves_under_load(stage: &Stage) -> Result<()> {
    let lab = stage.lab()?;
    let first = lab.host(&HostConfig::new().own_network().vm(VM).bind(VM, SHOP))?;
    let second = lab.host(&HostConfig::new().own_network())?;
    let guest = Guest::qemu();
    let mut vm = first.boot(VM, &guest)?;
    psql(&vm, SHOP, "CREATE TABLE kept (id integer PRIMARY KEY)")?;
    let transaction = "BEGIN; INSERT INTO kept VALUES (&); SELECT count(*) FROM kept; COMMIT;";
    let client = format!(
        "{{ echo '\\timing on'; seq 1 {ROWS} | sed 's/.*/{transaction}/'; }} | psql -qAt -v ON_ERROR_STOP=1 {SHOP}"
    );
    let working = vm.start(&client, Duration::from_secs(180))?;
    let (mut here, mut there) = (&first, &second);
    for _ in 0..MOVES {
        let before = rows(&vm)?;
        ensure!(before < ROWS, "the client has ended: nothing would be proven");
        let report = here.migrate(VM, &mut vm, &guest, there)?;
        println!("moved: {report}");
        std::mem::swap(&mut here, &mut there);
    }
    let said = working.wait()?.success()?;
    let counts: Vec<u32> = said.lines().filter_map(|line| line.parse().ok()).collect();
    ensure!(counts == (1..=ROWS).collect::<Vec<_>>(), "counted {counts:?}");
    same("rows", rows(&vm)?, ROWS)?;
    let times = said.lines().filter_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok());
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    println!("the slowest statements took {:.0?} ms", &times[times.len().saturating_sub(MOVES)..]);
    for host in [first, second] {
        ensure!(!host.log().contains("panicked"), "{}", host.log());
        host.end()?;
    }
    Ok(())
}

fn rows(vm: &Vm) -> Result<u32> {
    psql(vm, SHOP, "SELECT count(*) FROM kept")?.trim().parse().context("a number of rows")
}
