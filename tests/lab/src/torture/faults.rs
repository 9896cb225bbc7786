//! What is done to the host, and when.

use std::ops::RangeInclusive;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::VM;
use crate::limits::{
    TORTURE_FULL_MAX, TORTURE_FULL_MIN, TORTURE_LONG, TORTURE_PAUSE_MAX, TORTURE_PAUSE_MAX_LONG,
    TORTURE_PAUSE_MIN,
};
use crate::{Guest, Host, Vm};

/// What was done.
#[derive(Debug, Default)]
pub struct Faults {
    pub kills: u32,
    pub discards: u32,
    pub drains: u32,
    /// Of vamosd, to the program that is there already.
    pub upgrades: u32,
    /// Deaths of vamosd.
    pub crashes: u32,
    pub migrations: u32,
    /// Syncs of the cell that were told to fail, and did.
    pub failed_syncs: u32,
    /// When the disk was full, by the guest's clock, seconds since 1970.
    pub full: Vec<RangeInclusive<u64>>,
}

/// Does one thing after the other until the time is over.
pub fn strike(
    hosts: &mut [Host; 2],
    (vm, guest): (&mut Vm, &Guest),
    time: Duration,
    random: &mut Random,
) -> Result<Faults> {
    let mut here = 0;
    let mut faults = Faults::default();
    // What was ordered of the disk of the host where the guest is.
    let mut sync_to_fail = false;
    let until = Instant::now() + time;
    let longest = if time > TORTURE_LONG { TORTURE_PAUSE_MAX_LONG } else { TORTURE_PAUSE_MAX };
    loop {
        sleep(random.between(TORTURE_PAUSE_MIN, longest));
        if sync_to_fail && !hosts[here].has_orders(VM) {
            faults.failed_syncs += 1;
            sync_to_fail = false;
        }
        if Instant::now() >= until {
            return Ok(faults);
        }
        let host = &mut hosts[here];
        match random.next() % 26 {
            0 => {
                host.ctl(&["discard", VM])?;
                faults.discards += 1;
            }
            1 => {
                host.ctl(&["drain", VM, "--deadline", "500ms"])?;
                faults.drains += 1;
            }
            2 => {
                host.ctl(&["upgrade"])?;
                faults.upgrades += 1;
            }
            3 => {
                host.crash()?;
                faults.crashes += 1;
            }
            4 => {
                // Whoever has to open the database anew, and cannot, is not moved.
                host.order(VM, "")?;
                sync_to_fail = false;
                host.await_cell(VM)?;
                let [first, second] = &*hosts;
                let (from, to) = if here == 0 { (first, second) } else { (second, first) };
                from.migrate(VM, vm, guest, to)?;
                here = 1 - here;
                faults.migrations += 1;
            }
            5 => {
                let from = clock(vm)?;
                let ballast = host.fill_disk()?;
                sleep(random.between(TORTURE_FULL_MIN, TORTURE_FULL_MAX));
                if random.next().is_multiple_of(2) {
                    // The next cell begins on a full disk.
                    faults.kills += u32::from(kill_cell(host)?);
                    sleep(TORTURE_FULL_MIN);
                }
                drop(ballast);
                // Who was told at the last moment notes it in the next second.
                faults.full.push(from..=clock(vm)? + 1);
            }
            6 => {
                host.order(VM, "fail sync 1\n")?;
                sync_to_fail = true;
            }
            _ => faults.kills += u32::from(kill_cell(host)?),
        }
    }
}

/// The guest's time.
fn clock(vm: &Vm) -> Result<u64> {
    vm.run("date +%s")?.trim().parse().context("the guest's time")
}

/// False if there is none at the moment.
fn kill_cell(host: &Host) -> Result<bool> {
    let Ok(pid) = host.cell_process(VM) else { return Ok(false) };
    Ok(kill_process(Pid::from_raw(pid).context("no process")?, Signal::KILL).is_ok())
}

/// The schedule's source of chance (splitmix64).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + Duration::from_micros(self.next() % (most - least).as_micros() as u64)
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
}
