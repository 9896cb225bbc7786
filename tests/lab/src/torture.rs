//! `cargo torture`: clients in a guest, whose host is killed and replaced under them all the time. They must not
//! notice, and nothing may be lost or done twice. The seed determines the schedule of the faults.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::figures::{Figure, Figures};
use crate::limits::{TORTURE_END_MAX, TORTURE_PAUSE_MAX, TORTURE_PAUSE_MIN};
use crate::setup::{Needs, prepare};
use crate::{Guest, Host, HostConfig, Lab, Vm};

const VM: &str = "tortured";
const DATABASE: &str = "bank";

/// What can be asked of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long clients work.
    pub time: Duration,
    /// Of the schedule of faults.
    pub seed: u64,
    /// Write the figures there.
    pub json: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When anything is lost, doubled or out of order, or a client saw an error.
pub fn run(options: &Options) -> Result<()> {
    prepare(Needs::Verify)?;
    let lab = Lab::open()?;
    let figures = of(&lab, options)?;
    println!("torture: ok {}", figures.line());
    Ok(())
}

/// Runs it in a lab that is open.
///
/// # Errors
/// As [`run`].
pub fn of(lab: &Lab, options: &Options) -> Result<Figures> {
    let program = lab.artifacts().guest("guest-torture");
    let mut hosts = [
        lab.host(&HostConfig::new().own_network().vm(VM).bind(VM, DATABASE))?,
        lab.host(&HostConfig::new().own_network())?,
    ];
    let guest = Guest::qemu().file("/usr/bin/guest-torture", &program);
    let mut vm = hosts[0].boot(VM, &guest)?;
    let seconds = options.time.as_secs().max(1);
    println!("torture: {seconds} s, seed {}", options.seed);
    let clients = vm.start(&format!("guest-torture {DATABASE} {seconds}"), options.time + TORTURE_END_MAX)?;
    // An unmodified psql beside them, in a transaction most of the time.
    let step = "BEGIN; INSERT INTO step VALUES ($i); SELECT count(*) FROM step; COMMIT;";
    let psql = vm.start(
        &format!(
            "until psql -qc 'CREATE TABLE IF NOT EXISTS step (i bigint PRIMARY KEY)' {DATABASE}; do sleep 0.2; done
             end=$(($(date +%s) + {seconds})); i=0
             while [ $(date +%s) -lt $end ]; do i=$((i + 1)); echo \"{step}\"; echo $i >/run/steps; done |
                 psql -qAt -v ON_ERROR_STOP=1 {DATABASE} >/run/counts || exit 1
             cat /run/steps; tail -n 1 /run/counts; psql -qAtc 'SELECT count(*) FROM step' {DATABASE}"
        ),
        options.time + TORTURE_END_MAX,
    )?;
    let faults = strike(&mut hosts, (&mut vm, &guest), options)?;
    let said = clients.wait()?;
    let line = said.stdout.trim().to_owned();
    ensure!(said.status == 0, "the clients ended with {}: {}", said.status, said.stderr);
    let steps = psql.wait()?.success().context("psql was told of an error")?;
    let steps: Vec<&str> = steps.split_whitespace().collect();
    ensure!(steps.len() == 3 && steps.iter().all(|count| *count == steps[0]), "psql counted {steps:?}");
    for host in &hosts {
        ensure!(!host.log().contains("panicked"), "{}", host.log());
    }

    let figures = figures(&line, &faults)?;
    if let Some(path) = &options.json {
        figures.write(path)?;
    }
    let wrong = ["lost", "duplicated", "anomalies", "client_errors"];
    let is_zero = |name: &&str| line.split(' ').any(|part| part == format!("{name}=0"));
    ensure!(wrong.iter().all(is_zero), "seed {}: {line}\n{}", options.seed, said.stderr);
    drop(vm);
    hosts.into_iter().try_for_each(Host::end)?;
    Ok(figures)
}

/// What was done to the host.
#[derive(Debug, Default)]
struct Faults {
    kills: u32,
    discards: u32,
    drains: u32,
    /// Of vamosd, to the program that is there already.
    upgrades: u32,
    /// Deaths of vamosd.
    crashes: u32,
    migrations: u32,
}

/// Does one thing after the other until the time is over.
fn strike(hosts: &mut [Host; 2], (vm, guest): (&mut Vm, &Guest), options: &Options) -> Result<Faults> {
    let mut random = Random(options.seed);
    let mut here = 0;
    let mut faults = Faults::default();
    let until = Instant::now() + options.time;
    loop {
        let range = (TORTURE_PAUSE_MAX - TORTURE_PAUSE_MIN).as_micros() as u64;
        sleep(TORTURE_PAUSE_MIN + Duration::from_micros(random.next() % range));
        if Instant::now() >= until {
            return Ok(faults);
        }
        let host = &mut hosts[here];
        match random.next() % 24 {
            2 => {
                host.ctl(&["upgrade"])?;
                faults.upgrades += 1;
            }
            3 => {
                host.crash()?;
                faults.crashes += 1;
            }
            4 => {
                let [first, second] = &*hosts;
                let (from, to) = if here == 0 { (first, second) } else { (second, first) };
                from.migrate(VM, vm, guest, to)?;
                here = 1 - here;
                faults.migrations += 1;
            }
            0 => {
                host.ctl(&["discard", VM])?;
                faults.discards += 1;
            }
            1 => {
                host.ctl(&["drain", VM, "--deadline", "500ms"])?;
                faults.drains += 1;
            }
            _ => {
                // There may be none at the moment.
                let Ok(pid) = host.cell_process(VM) else { continue };
                let pid = Pid::from_raw(pid).context("no process")?;
                faults.kills += u32::from(kill_process(pid, Signal::KILL).is_ok());
            }
        }
    }
}

fn figures(line: &str, faults: &Faults) -> Result<Figures> {
    let value = |name: &str| {
        let found = line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.with_context(|| format!("no {name} in {line:?}"))
    };
    let mut figures = Figures::default();
    for name in ["done", "retried", "lost", "duplicated", "anomalies", "client_errors"] {
        figures.add(name, Figure::one(value(name)?.parse()?, "1"));
    }
    figures.add("kills", Figure::one(f64::from(faults.kills), "1"));
    figures.add("discards", Figure::one(f64::from(faults.discards), "1"));
    figures.add("drains", Figure::one(f64::from(faults.drains), "1"));
    figures.add("upgrades", Figure::one(f64::from(faults.upgrades), "1"));
    figures.add("crashes", Figure::one(f64::from(faults.crashes), "1"));
    figures.add("migrations", Figure::one(f64::from(faults.migrations), "1"));
    // One statement after the other: each loss makes one of them wait. The longest are those of migrations, which QEMU
    // decides.
    let losses = (faults.kills + faults.discards + faults.drains + faults.upgrades) as usize;
    let waits = value("waits_us")?
        .split(',')
        .skip(faults.migrations as usize)
        .take(losses)
        .map(|wait| Ok(wait.parse::<f64>()? / 1e3));
    let mut waits = waits.collect::<Result<Vec<f64>>>()?;
    waits.sort_by(f64::total_cmp);
    if let Some(range) = Figure::of(&waits, "ms") {
        let p99 = waits[(waits.len() * 99).div_ceil(100) - 1];
        figures.add("resume_p99", Figure { median: p99, ..range });
    }
    Ok(figures)
}

/// The schedule's source of chance (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_schedule() {
        let draw = |seed| (0..9).scan(Random(seed), |random, _| Some(random.next())).collect::<Vec<_>>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn figures_are_what_the_clients_say() {
        let line = "done=9 retried=1 lost=0 duplicated=0 anomalies=0 client_errors=0 waits_us=30000,20000,5";
        let faults = Faults { kills: 2, ..Faults::default() };
        let figures = figures(line, &faults).unwrap();
        assert!(figures.line().contains("resume_p99=30"), "{}", figures.line());
        assert!(super::figures("done=9", &faults).is_err());
    }
}
