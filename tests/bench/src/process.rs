//! What a process uses, from `/proc`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

/// A process, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pid(pub u32);

impl Pid {
    /// This process.
    pub fn own() -> Self {
        Self(std::process::id())
    }

    /// CPU time of all its living threads, to the nanosecond (`schedstat`).
    ///
    /// # Errors
    /// If the process is gone.
    pub fn cpu(self) -> anyhow::Result<Duration> {
        let mut total = 0;
        for thread in self.threads()? {
            // A thread may end between being listed and being read.
            let Ok(text) = std::fs::read_to_string(self.path(&format!("task/{thread}/schedstat"))) else {
                continue;
            };
            total += text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(total))
    }

    /// Its living threads.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn threads(self) -> anyhow::Result<Vec<i32>> {
        let tasks = self.path("task");
        let listed = std::fs::read_dir(&tasks).with_context(|| format!("list {}", tasks.display()))?;
        Ok(listed.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect())
    }

    /// Memory in its proportional share of pages, bytes (`smaps_rollup`).
    ///
    /// # Errors
    /// If the process is gone, or not ours to look at.
    pub fn pss(self) -> anyhow::Result<u64> {
        let path = self.path("smaps_rollup");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("Pss:")).context("find Pss in smaps_rollup")?;
        let kib = line.trim().trim_end_matches(" kB").parse::<u64>().context("read Pss")?;
        Ok(kib * 1024)
    }

    /// Processes below it, at any depth, whose command is `command` (15 characters at most).
    ///
    /// # Errors
    /// If `/proc` cannot be listed.
    pub fn descendants(self, command: &str) -> anyhow::Result<Vec<Pid>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir("/proc").context("list /proc")? {
            let entry = entry.context("list /proc")?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if let Some((parent, name)) = Pid(pid).status() {
                all.push((Pid(pid), parent, name));
            }
        }
        let parent = |pid: Pid| all.iter().find(|(child, _, _)| *child == pid).map(|(_, parent, _)| *parent);
        let below =
            |pid: Pid| std::iter::successors(parent(pid), |above| parent(*above)).any(|above| above == self);
        Ok(all
            .iter()
            .filter(|(pid, _, name)| name == command && below(*pid))
            .map(|(pid, _, _)| *pid)
            .collect())
    }

    /// Parent and command name.
    fn status(self) -> Option<(Pid, String)> {
        let stat = std::fs::read_to_string(self.path("stat")).ok()?;
        let (name, rest) = (stat.split_once('(')?.1).rsplit_once(')')?;
        let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
        Some((Pid(parent), name.to_owned()))
    }

    fn path(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_cpu_and_memory() {
        let before = Pid::own().cpu().expect("own schedstat");
        let mut sum = 0u64;
        while Pid::own().cpu().expect("own schedstat") < before + Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(Pid::own().pss().expect("own smaps_rollup") > 64 << 10);
    }

    #[test]
    fn children_are_found_by_their_command() {
        let mut child = std::process::Command::new("sleep").arg("20").spawn().expect("start sleep");
        let found = Pid::own().descendants("sleep").expect("list /proc");
        child.kill().and_then(|()| child.wait().map(drop)).expect("end sleep");
        assert!(found.contains(&Pid(child.id())), "{found:?}");
        assert_eq!(Pid::own().descendants("no such thing").expect("list /proc"), []);
    }
}
