//! The clients, and what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::limits::TORTURE_END_MAX;
use crate::{Guest, Lab, Running, Vm};

const PSQL: &str = include_str!("../../guest/psql.sh");
const PSYCOPG: &str = include_str!("../../guest/psycopg.py");

/// What every client counts.
const COUNTS: [&str; 6] = ["done", "retried", "lost", "duplicated", "anomalies", "client_errors"];

/// Clients at work: tokio-postgres, psql and psycopg.
pub struct Clients {
    running: Vec<(&'static str, Running)>,
}

impl Clients {
    /// A guest that has what they need.
    pub fn equip(lab: &Lab, guest: Guest) -> Guest {
        guest.file("/usr/bin/guest-torture", lab.artifacts().guest("guest-torture"))
    }

    /// Starts them; they work for so long, and check then.
    pub fn start(vm: &Vm, database: &str, time: Duration) -> Result<Self> {
        let seconds = time.as_secs().max(1);
        let scripts = [
            ("tokio-postgres", format!("guest-torture {database} {seconds}")),
            ("psql", format!("DATABASE={database} PERIOD={seconds}\n{PSQL}")),
            (
                "psycopg",
                format!(
                    "chroot /debian python3 - {database} {seconds} <<'END-OF-PROGRAM'\n{PSYCOPG}\nEND-OF-PROGRAM\n"
                ),
            ),
        ];
        let mut running = Vec::new();
        for (name, script) in scripts {
            running.push((name, vm.start(&script, time + TORTURE_END_MAX)?));
        }
        Ok(Self { running })
    }

    /// Waits until they have checked.
    pub fn wait(self) -> Result<Told> {
        let (mut lines, mut complaints) = (Vec::new(), String::new());
        for (name, running) in self.running {
            let said = running.wait().with_context(|| format!("waiting for {name}"))?;
            ensure!(said.status == 0, "{name} ended with {}: {}", said.status, said.stderr);
            println!("torture: {name}: {}", said.stdout.split(" full_at").next().unwrap_or_default().trim());
            lines.push(said.stdout);
            complaints += &said.stderr;
        }
        let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
        Ok(Told { complaints, ..Told::of(&lines)? })
    }
}

/// What all of them were told.
#[derive(Debug, Default)]
pub struct Told {
    /// By name.
    pub counts: BTreeMap<&'static str, f64>,
    /// When the disk was said to be full, by the guest's clock, seconds since 1970.
    pub full_at: BTreeSet<u64>,
    /// What the longest small statements took, microseconds, falling.
    pub waits_us: Vec<f64>,
    /// What they found wrong.
    pub complaints: String,
}

impl Told {
    /// Adds up what each client says in its line of figures.
    pub fn of(lines: &[&str]) -> Result<Self> {
        let mut told = Self::default();
        for line in lines {
            let value =
                |name: &str| line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            let numbers =
                |name: &str| value(name).unwrap_or_default().split(',').filter(|part| !part.is_empty());
            for name in COUNTS {
                let count: f64 = value(name).with_context(|| format!("no {name} in {line:?}"))?.parse()?;
                *told.counts.entry(name).or_default() += count;
            }
            told.full_at.extend(numbers("full_at").map(str::parse).collect::<Result<Vec<u64>, _>>()?);
            told.waits_us.extend(numbers("waits_us").map(str::parse).collect::<Result<Vec<f64>, _>>()?);
        }
        Ok(told)
    }

    /// One of the counts.
    pub fn count(&self, name: &str) -> Result<f64> {
        self.counts.get(name).copied().with_context(|| format!("nobody has counted {name}"))
    }
}
