//! A guest moves from host to host and back under an unmodified client.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use vamos_e2e::{SHOP, Stage, psql, same};
use vamos_lab::{Guest, Host, HostConfig, Move, Vm};

use crate::Case;

pub const CASES: &[Case] = &[
    ("migration::a_guest_moves_under_load_and_no_statement_fails", moves_under_load),
    ("migration::whoever_dies_the_guest_goes_on_at_one_side", taken_back),
];

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

/// Moves so slowly that it can be disturbed: the guest has some 100 MB to move.
const SLOWLY: [&str; 2] = ["--bandwidth", "25000000"];

/// Each of those who take part in a move dies while it goes on. The guest goes on at one side, and only one.
fn taken_back(stage: &Stage) -> Result<()> {
    let lab = stage.lab()?;
    let first = lab.host(&HostConfig::new().own_network().vm(VM).bind(VM, SHOP))?;
    let mut second = lab.host(&HostConfig::new().own_network())?;
    let guest = Guest::qemu();
    let mut vm = first.boot(VM, &guest)?;
    psql(&vm, SHOP, "CREATE TABLE kept (id integer PRIMARY KEY)")?;
    let mut done = 0;
    // Inserts a row, and finds all there are.
    let mut work = |vm: &Vm| {
        done += 1;
        psql(vm, SHOP, &format!("INSERT INTO kept VALUES ({done})"))?;
        same("rows", rows(vm)?, done)
    };
    work(&vm)?;

    // The QEMU that awaits the guest.
    let refused = first.migrate_by(VM, &mut vm, &guest, &second, |way| {
        disturbed(&first, &second, way, |_| kill(way.processes.1))
    });
    println!("without its QEMU: {:#}", refused.err().context("it has moved")?);
    same("state", state(&first)?, "attached")?;
    ensure!(state(&second).is_err(), "the target knows the VM still");
    work(&vm)?;

    // The vamosd that awaits it, and the guest has moved before anybody knows.
    let refused = first.migrate_by(VM, &mut vm, &guest, &second, |way| {
        disturbed(&first, &second, way, |_| kill(second.process().id()))
    });
    println!("without its vamosd: {:#}", refused.err().context("it has moved")?);
    same("state", state(&first)?, "attached")?;
    work(&vm)?;
    second = lab.host(&HostConfig::new().own_network())?;

    // The vamosctl that moves it: another one goes on.
    first.migrate_by(VM, &mut vm, &guest, &second, |way| {
        let refused = disturbed(&first, &second, way, kill);
        ensure!(refused.is_err(), "it was not disturbed");
        ensure!(state(&first)? == "away" && state(&second)? == "arriving", "it was not frozen");
        let options = first.migration(VM, &second, way);
        first.ctl(&options.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
    })?;
    // It is declared there, so it stays known; as away.
    same("state", state(&first)?, "away")?;
    same("state", state(&second)?, "attached")?;
    work(&vm)?;

    // The QEMU that the guest is in: the guest is gone, what it was told is not.
    let refused = second.migrate_by(VM, &mut vm, &guest, &first, |way| {
        disturbed(&second, &first, way, |_| kill(way.processes.0))
    });
    println!("without the guest: {:#}", refused.err().context("it has moved")?);
    same("state", state(&first)?, "away")?;
    drop(vm);
    let again = second.boot(VM, &guest)?;
    work(&again)?;
    for host in [first, second] {
        ensure!(!host.log().contains("panicked"), "{}", host.log());
        host.end()?;
    }
    Ok(())
}

/// Moves the guest, does `what` to somebody (it is given vamosctl's process) as soon as its memory moves, and waits for
/// vamosctl's end.
fn disturbed(from: &Host, to: &Host, way: &Move, what: impl FnOnce(u32) -> Result<()>) -> Result<()> {
    let options = from.migration(VM, to, way);
    let mut ctl = from.start_ctl(&[&options[..], &SLOWLY.map(str::to_owned)].concat())?;
    let until = Instant::now() + Duration::from_secs(60);
    while state(from)? != "away" {
        ensure!(Instant::now() < until && ctl.ended()?.is_none(), "it is never frozen: {}", from.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    what(ctl.id())?;
    let status = ctl.wait(Duration::from_secs(60))?;
    ensure!(status.success(), "vamosctl ended with {status}: {}", from.ctl_log());
    Ok(())
}

fn state(host: &Host) -> Result<String> {
    let shown = host.ctl_json(&["vm", "show", VM])?;
    Ok(shown["state"].as_str().unwrap_or_default().to_owned())
}

fn kill(process: u32) -> Result<()> {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).context("no process")?;
    kill_process(process, Signal::KILL).context("killing it")
}
