//! A control group for one process: memory, tasks, processor share; version 2, or version 1 where that is
//! what is mounted. Made by the host before the process runs, because the process could not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Limits of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Tasks: threads and processes.
    pub tasks: u64,
    /// Processor weight as in version 2: 1 to 10,000, 100 being the usual.
    pub cpu_weight: u64,
}

const ROOT: &str = "/sys/fs/cgroup";

/// Which hierarchies this host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// One tree with the controllers we need.
    V2(PathBuf),
    /// A tree per controller.
    V1 {
        /// `memory`.
        memory: PathBuf,
        /// `pids`.
        pids: PathBuf,
        /// `cpu`.
        cpu: PathBuf,
    },
}

impl Hierarchy {
    /// Finds the best one.
    ///
    /// # Errors
    /// A sentence for the operator when there is none.
    pub fn find() -> Result<Self, String> {
        let root = Path::new(ROOT);
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        if ["memory", "pids", "cpu"]
            .iter()
            .all(|&wanted| controllers.split_whitespace().any(|have| have == wanted))
        {
            return Ok(Self::V2(root.to_path_buf()));
        }
        let [memory, pids, cpu] = ["memory", "pids", "cpu"].map(|name| root.join(name));
        if [&memory, &pids, &cpu].iter().all(|tree| tree.join("cgroup.procs").exists()) {
            return Ok(Self::V1 { memory, pids, cpu });
        }
        Err(format!("neither cgroup v2 with memory, pids and cpu, nor those v1 hierarchies under {ROOT}"))
    }

    /// The version's name, for operators.
    pub fn name(&self) -> &'static str {
        match self {
            Self::V2(_) => "cgroup v2",
            Self::V1 { .. } => "cgroup v1",
        }
    }

    fn trees(&self) -> Vec<&Path> {
        match self {
            Self::V2(root) => vec![root],
            Self::V1 { memory, pids, cpu } => vec![memory, pids, cpu],
        }
    }

    /// Makes the group `<parent>/<name>`, or adopts it if it exists, and sets its limits.
    ///
    /// # Errors
    /// As the cgroup file system's.
    pub fn group(&self, parent: &str, name: &str, limits: &CgroupLimits) -> io::Result<Cgroup> {
        let mut directories = Vec::new();
        for tree in self.trees() {
            let above = tree.join(parent);
            fs::create_dir_all(&above)?;
            if let Self::V2(root) = self {
                for directory in [root, &above] {
                    fs::write(directory.join("cgroup.subtree_control"), "+memory +pids +cpu")?;
                }
            }
            let directory = above.join(name);
            fs::create_dir_all(&directory)?;
            directories.push(directory);
        }
        let group = Cgroup { directories };
        for (file, value) in self.settings(limits) {
            group.write(file, &value)?;
        }
        Ok(group)
    }

    fn settings(&self, limits: &CgroupLimits) -> [(&'static str, String); 3] {
        match self {
            Self::V2(_) => [
                ("memory.max", limits.memory_bytes.to_string()),
                ("pids.max", limits.tasks.to_string()),
                ("cpu.weight", limits.cpu_weight.to_string()),
            ],
            Self::V1 { .. } => [
                ("memory.limit_in_bytes", limits.memory_bytes.to_string()),
                ("pids.max", limits.tasks.to_string()),
                // Version 1's usual share is 1024 where version 2's weight is 100.
                ("cpu.shares", (limits.cpu_weight * 1024 / 100).max(2).to_string()),
            ],
        }
    }

    /// Removes `<parent>` and every group below it with the processes in them, but for those named `in_use`:
    /// what a killed predecessor left behind. Only the owner of that name may call this, and only while it runs
    /// nothing else there.
    pub fn sweep(&self, parent: &str, in_use: &[&str]) {
        for tree in self.trees() {
            let above = tree.join(parent);
            for entry in fs::read_dir(&above).into_iter().flatten().flatten() {
                let used = in_use.iter().any(|name| entry.file_name() == *name);
                if !used && entry.path().is_dir() {
                    empty(&entry.path());
                    let _ = fs::remove_dir(entry.path());
                }
            }
            let _ = fs::remove_dir(above);
        }
    }
}

/// Kills what is in a group and waits, briefly, until it is gone. A process that is stuck in the kernel keeps
/// its group until the next sweep.
fn empty(group: &Path) {
    const TRIES: u32 = 50;
    for _ in 0..TRIES {
        let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        let mut pids = processes.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).peekable();
        if pids.peek().is_none() {
            return;
        }
        for pid in pids {
            // One that has ended meanwhile is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
        sleep(Duration::from_millis(10));
    }
}

/// One group: a directory in every tree of the hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    directories: Vec<PathBuf>,
}

impl Cgroup {
    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        let directory = self.directories.iter().find(|directory| directory.join(file).exists());
        let path = directory.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, file))?.join(file);
        fs::write(path, value)
    }

    /// Moves a process, with all it will start, into the group.
    ///
    /// # Errors
    /// As the cgroup file system's.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.directories.iter().try_for_each(|group| fs::write(group.join("cgroup.procs"), pid.to_string()))
    }

    /// Removes the group; its processes must have ended.
    ///
    /// # Errors
    /// As the cgroup file system's.
    pub fn remove(&self) -> io::Result<()> {
        self.directories.iter().try_for_each(fs::remove_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, id};

    #[test]
    fn a_group_limits_holds_and_goes() {
        let Ok(hierarchy) = Hierarchy::find() else {
            println!("no cgroup here: the layer reports itself missing");
            return;
        };
        let parent = format!("vamos-test-{}", id());
        let limits = CgroupLimits { memory_bytes: 64 << 20, tasks: 7, cpu_weight: 50 };
        let group = hierarchy.group(&parent, "web-1", &limits).unwrap();
        let pids = group.directories.iter().find(|directory| directory.join("pids.max").exists()).unwrap();
        assert_eq!(fs::read_to_string(pids.join("pids.max")).unwrap().trim(), "7");
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        group.add(child.id()).unwrap();
        assert!(fs::read_to_string(pids.join("cgroup.procs")).unwrap().contains(&child.id().to_string()));
        child.kill().unwrap();
        child.wait().unwrap();
        group.remove().unwrap();
        hierarchy.sweep(&parent, &[]);
        assert!(!pids.exists());
    }
}
