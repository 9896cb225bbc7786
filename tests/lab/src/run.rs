//! A run directory: every socket, log and database of one command, and the promise that none of it
//! outlives the command, however that ends.
//!
//! Everything the lab starts carries the run's directory in its environment. A warden, a second
//! process of this binary, holds the reading end of a pipe whose writing end only the command has; when
//! the command is gone, whether it returned, was interrupted or was killed with SIGKILL, the
//! pipe closes and the warden kills what carries the mark and removes the directory. Should the warden be
//! killed as well, the next run does the same for every run directory whose lock nobody holds.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::disk::unmount_below;
use crate::limits::SWEEP_ROUNDS_MAX;

/// Environment variable that marks a process as part of a run; its value is the run's directory.
pub const RUN_VARIABLE: &str = "VAMOS_LAB_RUN";

/// Environment variable that makes a binary of the lab a warden.
const WARDEN_VARIABLE: &str = "VAMOS_LAB_WARDEN";

/// Name of the lock file in a run directory and in the directory of all of them.
const LOCK: &str = "lock";

static ENTERED: AtomicBool = AtomicBool::new(false);

/// First call of `main` in every binary that opens the lab: in a warden it does the warden's work and
/// does not return.
///
/// # Errors
/// When the kernel refuses the parent death signal.
pub fn enter() -> Result<()> {
    if let Some(directory) = std::env::var_os(WARDEN_VARIABLE) {
        let kept = watch(Path::new(&directory));
        std::process::exit(i32::from(kept.is_err()));
    }
    // Under `cargo demo` a person sees, and kills, cargo.
    if std::env::var_os("CARGO").is_some() {
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
            .context("asking to end with cargo")?;
    }
    ENTERED.store(true, Ordering::SeqCst);
    Ok(())
}

/// One command's directory. Dropped, its processes and files are gone.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
    leash: Option<ChildStdin>,
    warden: Child,
}

impl RunDir {
    /// Sweeps what dead runs left, then makes a directory of its own.
    ///
    /// # Errors
    /// When the directory cannot be made, or [`enter`] was not called.
    pub fn create() -> Result<Self> {
        ensure!(ENTERED.load(Ordering::SeqCst), "vamos_lab::enter() is not the first call of main");
        let root = root()?;
        let all = File::create(root.join(LOCK)).context("opening the lock of all runs")?;
        flock(&all, FlockOperation::LockExclusive).context("locking the list of runs")?;
        sweep_dead(&root)?;
        let path = tempfile::Builder::new()
            .prefix("run-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(&root)
            .context("making a run directory")?
            .keep();
        let lock = File::create(path.join(LOCK)).context("making the lock of this run")?;
        flock(&lock, FlockOperation::LockExclusive).context("locking this run")?;
        let mut warden = Command::new(std::env::current_exe().context("finding this binary")?)
            .env(WARDEN_VARIABLE, &path)
            .env_remove(RUN_VARIABLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting the warden")?;
        let leash = warden.stdin.take();
        Ok(Self { path, _lock: lock, leash, warden })
    }

    /// Where the run's files are. At most some 40 bytes long under `/tmp`: a socket's path has 108.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new directory in it.
    ///
    /// # Errors
    /// When it cannot be made, or exists.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o755).create(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // The warden is the one that cleans, also now: there is one way for a run to end.
        drop(self.leash.take());
        let _ = self.warden.wait();
    }
}

/// The warden: waits for the end of the run, then removes it.
fn watch(directory: &Path) -> Result<()> {
    let mut end = [0];
    while io::stdin().read(&mut end).context("waiting for the run's end")? > 0 {}
    remove(directory)
}

/// The directory of all runs of this user.
///
/// # Errors
/// When it cannot be made, or someone else made it.
pub fn root() -> Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let path = std::env::temp_dir().join(format!("vamos-lab-{uid}"));
    match DirBuilder::new().mode(0o755).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("making {}", path.display()));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(&path).with_context(|| format!("examining {}", path.display()))?;
    if !metadata.is_dir() || metadata.uid() != uid {
        bail!("{} belongs to someone else: set TMPDIR to a directory of your own", path.display());
    }
    Ok(path)
}

/// Removes every run whose command is dead. The caller holds the lock of all runs.
fn sweep_dead(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).context("listing earlier runs")? {
        let path = entry.context("listing earlier runs")?.path();
        if !path.is_dir() {
            continue;
        }
        // Without a lock file it died before it started anything: the lock of all runs was held.
        if let Ok(lock) = File::open(path.join(LOCK))
            && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
        {
            continue;
        }
        remove(&path)?;
    }
    Ok(())
}

/// Kills the processes of a run and removes its directory. Two may do so at once.
fn remove(directory: &Path) -> Result<()> {
    for round in 0.. {
        let marked = marked(directory)?;
        if marked.is_empty() {
            break;
        }
        ensure!(round < SWEEP_ROUNDS_MAX, "processes {marked:?} of a dead run do not end");
        for (pid, process) in marked {
            if let Err(error) = pidfd_send_signal(&process, Signal::KILL)
                && error != rustix::io::Errno::SRCH
            {
                return Err(error).with_context(|| format!("killing process {pid} of a dead run"));
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    unmount_below(directory)?;
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// The living processes of a run and all their descendants: a cell is started with an empty environment.
fn marked(directory: &Path) -> Result<HashMap<i32, rustix::fd::OwnedFd>> {
    let mark = format!("{RUN_VARIABLE}={}", directory.display());
    let warden = format!("{WARDEN_VARIABLE}=");
    let mut parents = HashMap::new();
    let mut of_run = HashSet::new();
    let mut handles = HashMap::new();
    for entry in fs::read_dir("/proc").context("listing processes")? {
        let Some(pid) = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) else {
            continue;
        };
        // The handle first: what is read after it is of the process that the handle names.
        let Some(Ok(handle)) =
            rustix::process::Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()))
        else {
            continue;
        };
        let Some(parent) = living_parent(pid) else { continue };
        parents.insert(pid, parent);
        handles.insert(pid, handle);
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        if variables.clone().any(|variable| variable.starts_with(warden.as_bytes())) {
            // That of a lab within this run: it ends by itself when it has removed its own.
            parents.remove(&pid);
        } else if variables.any(|variable| variable == mark.as_bytes()) {
            of_run.insert(pid);
        }
    }
    loop {
        let grown: Vec<i32> = parents
            .iter()
            .filter(|(pid, parent)| of_run.contains(parent) && !of_run.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if grown.is_empty() {
            break;
        }
        of_run.extend(grown);
    }
    handles.retain(|pid, _| of_run.contains(pid));
    Ok(handles)
}

/// The parent of a process, if it lives: a zombie is its parent's to reap, and holds nothing.
fn living_parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processes_of_a_dead_run_are_found_with_their_descendants() {
        let directory = tempfile::tempdir().unwrap();
        // The inner shell has lost the mark, as a cell has; the outer one waits for it.
        let mut outer = Command::new("sh")
            .args(["-c", "env -u VAMOS_LAB_RUN sleep 600; true"])
            .env(RUN_VARIABLE, directory.path())
            .spawn()
            .unwrap();
        let outer_pid = i32::try_from(outer.id()).unwrap();
        let found = loop {
            let found = marked(directory.path()).unwrap();
            let inner_has_lost_it = found.keys().any(|pid| {
                fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"))
            });
            if inner_has_lost_it {
                break found;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(found.len(), 2);
        assert!(found.contains_key(&outer_pid));
        let path = directory.keep();
        remove(&path).unwrap();
        assert!(!path.exists());
        outer.wait().unwrap();
        assert!(marked(&path).unwrap().is_empty());
    }

    #[test]
    fn the_warden_of_a_lab_within_a_run_is_spared() {
        let directory = tempfile::tempdir().unwrap();
        let mut warden = Command::new("sleep")
            .arg("600")
            .env(RUN_VARIABLE, directory.path())
            .env(WARDEN_VARIABLE, "elsewhere")
            .spawn()
            .unwrap();
        assert!(marked(directory.path()).unwrap().is_empty());
        warden.kill().unwrap();
        warden.wait().unwrap();
    }

    #[test]
    fn a_living_run_is_not_swept() {
        let root = tempfile::tempdir().unwrap();
        let (dead, alive) = (root.path().join("run-dead"), root.path().join("run-alive"));
        for run in [&dead, &alive] {
            fs::create_dir(run).unwrap();
            File::create(run.join(LOCK)).unwrap();
        }
        let held = File::open(alive.join(LOCK)).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        sweep_dead(root.path()).unwrap();
        assert!(!dead.exists());
        assert!(alive.exists());
    }
}
