//! `cargo torture`: clients in a guest, whose host is killed and replaced, whose disk fills and fails, all the time.
//! They must not notice, but for a full disk, and nothing may be lost or done twice. The seed determines the schedule
//! of the faults.

mod clients;
mod faults;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::figures::{Figure, Figures};
use crate::limits::TORTURE_DISK_BYTES;
use crate::setup::{Needs, prepare};
use crate::{Disk, Guest, Host, HostConfig, Lab};
use clients::{Clients, Told};
use faults::{Faults, Random};

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
    // The cell as it is shipped, but that it can be told to have its next sync fail.
    let armed = format!("cell_binary = \"{}\"", lab.artifacts().build_armed_cell()?.display());
    let host = || HostConfig::new().own_network().disk(Disk::Small(TORTURE_DISK_BYTES)).settings(&armed);
    let mut hosts = [lab.host(&host().vm(VM).bind(VM, DATABASE))?, lab.host(&host())?];
    let guest = Clients::equip(lab, Guest::qemu().with_debian());
    let mut vm = hosts[0].boot(VM, &guest)?;
    println!("torture: {} s, seed {}", options.time.as_secs(), options.seed);
    let clients = Clients::start(&vm, DATABASE, options.time)?;
    let mut random = Random(options.seed);
    let faults = faults::strike(&mut hosts, (&mut vm, &guest), options.time, &mut random)?;
    let told = clients.wait()?;
    for host in &hosts {
        ensure!(!host.log().contains("panicked"), "{}", host.log());
    }
    let figures = figures(&told, &faults)?;
    println!("torture: {}", figures.line());
    if let Some(path) = &options.json {
        figures.write(path)?;
    }
    let wrong = ["lost", "duplicated", "anomalies", "client_errors"];
    let is_right = wrong.iter().all(|name| figures.value(name) == Some(0.0));
    ensure!(is_right, "seed {}: {}\n{}", options.seed, figures.line(), told.complaints);
    drop(vm);
    hosts.into_iter().try_for_each(Host::end)?;
    Ok(figures)
}

fn figures(told: &Told, faults: &Faults) -> Result<Figures> {
    let mut figures = Figures::default();
    for (name, count) in &told.counts {
        figures.add(name, Figure::one(*count, "1"));
    }
    let told_full = told.full_at.len();
    let untimely = told.full_at.iter().filter(|at| !faults.full.iter().any(|full| full.contains(at))).count();
    figures.add("told_full", Figure::one(told_full as f64, "s"));
    // A disk that is said to be full while it is not is an error like any other.
    figures.add("client_errors", Figure::one(told.count("client_errors")? + untimely as f64, "1"));
    figures.add("fills", Figure::one(faults.full.len() as f64, "1"));
    for (name, count) in [
        ("kills", faults.kills),
        ("discards", faults.discards),
        ("drains", faults.drains),
        ("upgrades", faults.upgrades),
        ("crashes", faults.crashes),
        ("migrations", faults.migrations),
        ("failed_syncs", faults.failed_syncs),
    ] {
        figures.add(name, Figure::one(f64::from(count), "1"));
    }
    // One statement after the other: each loss makes one of them wait. The longest are those of migrations, which QEMU
    // decides.
    let losses =
        (faults.kills + faults.discards + faults.drains + faults.upgrades + faults.failed_syncs) as usize;
    let mut waits: Vec<f64> =
        told.waits_us.iter().skip(faults.migrations as usize).take(losses).map(|wait| wait / 1e3).collect();
    waits.sort_by(f64::total_cmp);
    if let Some(range) = Figure::of(&waits, "ms") {
        let p99 = waits[(waits.len() * 99).div_ceil(100) - 1];
        figures.add("resume_p99", Figure { median: p99, ..range });
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_what_the_clients_say() {
        let said = "done=9 retried=1 lost=0 duplicated=0 anomalies=0 client_errors=0 full_at=100,107 waits_us=30000,20000,5";
        let told = Told::of(&[said]).unwrap();
        let faults = Faults { kills: 2, full: vec![99..=101], ..Faults::default() };
        let figures = figures(&told, &faults).unwrap();
        assert!(figures.line().contains("resume_p99=30"), "{}", figures.line());
        // Of the two times, one is within none of those in which the disk was full.
        assert_eq!((figures.value("client_errors"), figures.value("told_full")), (Some(1.0), Some(2.0)));
        assert!(Told::of(&["done=9"]).is_err());
    }
}
