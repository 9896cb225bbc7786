//! What this host and this process' privileges offer, found out without changing anything.
#![allow(unsafe_code)]

use std::fs;
use std::path::Path;

use rustix::thread::{CapabilitySet, capabilities};

use crate::cgroup::Hierarchy;

/// One thing a sandbox is made of: what it is called, and what was found or what is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The layer, or the part of one.
    pub name: &'static str,
    /// What was found, or why it cannot be had.
    pub found: Result<String, String>,
    /// What to do when it is missing.
    pub remedy: &'static str,
}

/// Examines every layer a cell needs.
pub fn layers() -> Vec<Finding> {
    vec![privileges(), namespaces(), landlock(), seccomp(), cgroup()]
}

fn privileges() -> Finding {
    let needed = [
        (CapabilitySet::SYS_ADMIN, "sys_admin"),
        (CapabilitySet::SETUID, "setuid"),
        (CapabilitySet::SETGID, "setgid"),
        (CapabilitySet::SETPCAP, "setpcap"),
        (CapabilitySet::CHOWN, "chown"),
        (CapabilitySet::KILL, "kill"),
    ];
    let found = match capabilities(None) {
        Ok(have) => {
            let missing: Vec<_> = needed
                .iter()
                .filter(|(wanted, _)| !have.effective.contains(*wanted))
                .map(|(_, name)| *name)
                .collect();
            if missing.is_empty() {
                Ok("every capability that giving cells their own identity takes".into())
            } else {
                Err(format!("capabilities missing: {}", missing.join(", ")))
            }
        }
        Err(error) => Err(error.to_string()),
    };
    Finding { name: "privileges", found, remedy: "start vamosd as root" }
}

fn namespaces() -> Finding {
    let missing: Vec<_> = ["mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    let found = if missing.is_empty() {
        Ok("mount, pid, network, ipc, uts, cgroup".into())
    } else {
        Err(format!("missing: {}", missing.join(", ")))
    };
    Finding { name: "namespaces", found, remedy: "use a kernel with CONFIG_NAMESPACES and all kinds of them" }
}

/// The Landlock ABI of the running kernel, `None` when it is off or not built in.
pub fn landlock_abi() -> Option<i64> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with a null attribute, size 0 and the version flag the call reads nothing and returns a
    // number.
    let abi =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) };
    (abi > 0).then_some(abi)
}

fn landlock() -> Finding {
    let found = landlock_abi().map(|abi| format!("ABI {abi}")).ok_or_else(|| "not enabled".to_string());
    Finding { name: "landlock", found, remedy: "boot with lsm=landlock,... on a kernel from 5.13" }
}

fn seccomp() -> Finding {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let found = if actions.contains("kill_process") {
        Ok("filters that kill the process".into())
    } else {
        Err("no seccomp filter that kills the process".into())
    };
    Finding { name: "seccomp", found, remedy: "use a kernel from 4.14 with CONFIG_SECCOMP_FILTER" }
}

fn cgroup() -> Finding {
    let found = Hierarchy::find().map(|hierarchy| format!("{}: memory, pids, cpu", hierarchy.name()));
    Finding { name: "cgroup", found, remedy: "mount cgroup v2 at /sys/fs/cgroup, with memory, pids and cpu" }
}
