//! A platform of our own: vamosd with a generated configuration in a temporary directory.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::limits::{PLATFORM_EXIT_MAX, PLATFORM_START_MAX};
use crate::process::Pid;

/// Name of the one VM.
pub const VM: &str = "bench";

/// Name of its one binding.
pub const DATABASE: &str = "catalog";

/// A running vamosd with one VM.
pub struct Platform {
    directory: PathBuf,
    vamosd: Child,
    vamosctl: PathBuf,
}

/// The device's transitions since the cell started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transitions {
    /// Kicks the device received.
    pub kicks: u64,
    /// Calls the device sent.
    pub calls: u64,
}

impl Platform {
    /// Starts `vamosd` in `directory` with one VM; `polling_us` is the longest its device may poll.
    ///
    /// # Errors
    /// If it does not say that it is ready in time; with what it said instead.
    pub fn start(vamosd: &Path, directory: &Path, polling_us: u64) -> anyhow::Result<Self> {
        let more = format!(
            "[cells]\npolling_us = {polling_us}\n\n[[service]]\nname = {DATABASE:?}\nkind = \"sql\"\n\n\
             [[vm]]\nname = {VM:?}\n\n[[binding]]\nvm = {VM:?}\nservice = {DATABASE:?}\n"
        );
        Self::configured(vamosd, directory, &more)
    }

    /// Starts `vamosd` in `directory` with these lines of configuration besides its own.
    ///
    /// # Errors
    /// If it does not say that it is ready in time; with what it said instead.
    pub fn configured(vamosd: &Path, directory: &Path, more: &str) -> anyhow::Result<Self> {
        let vamosctl = vamosd.with_file_name("vamosctl");
        let (state, run) = (directory.join("state"), directory.join("run"));
        let config = format!("state_dir = {state:?}\nrun_dir = {run:?}\nsandbox = \"best-effort\"\n\n{more}");
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let file = directory.join("vamos.toml");
        std::fs::write(&file, config).context("write vamos.toml")?;
        let log = std::fs::File::create(directory.join("vamosd.log")).context("make vamosd's log")?;
        let child = Command::new(vamosd)
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", vamosd.display()))?;
        let mut platform = Self { directory: directory.to_owned(), vamosd: child, vamosctl };
        if let Err(error) = platform.wait_ready() {
            return Err(error.context(format!("start vamosd; its log: {}", platform.log())));
        }
        Ok(platform)
    }

    /// What `vamosctl` answers to these arguments, as JSON.
    ///
    /// # Errors
    /// If vamosctl fails.
    pub fn ctl(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(&self.vamosctl)
            .arg("--socket")
            .arg(self.directory.join("run/control.sock"))
            .arg("--json")
            .args(arguments)
            .output()
            .with_context(|| format!("run {}", self.vamosctl.display()))?;
        if !output.status.success() {
            bail!(
                "vamosctl {} failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        serde_json::from_slice(&output.stdout).context("read vamosctl's JSON")
    }

    /// What vamosd and its cells logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("vamosd.log")).unwrap_or_default()
    }

    /// The VM's vhost-user socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("run/vms").join(VM).join("vhost.sock")
    }

    /// The processes of the VM's cell.
    ///
    /// # Errors
    /// If there are none.
    pub fn cell(&self) -> anyhow::Result<Vec<Pid>> {
        let cell = Pid(self.vamosd.id()).descendants("vamos-cell")?;
        if cell.is_empty() {
            bail!("find the cell: vamosd has no process of that name; its log: {}", self.log());
        }
        Ok(cell)
    }

    /// CPU time the cell has used.
    ///
    /// # Errors
    /// If it is gone.
    pub fn cell_cpu(&self) -> anyhow::Result<Duration> {
        self.cell()?.into_iter().map(Pid::cpu).sum()
    }

    /// The cell's memory, bytes, in its share of pages.
    ///
    /// # Errors
    /// If it is gone.
    pub fn cell_pss(&self) -> anyhow::Result<u64> {
        self.cell()?.into_iter().map(Pid::pss).sum()
    }

    /// The device's counters, asked as an operator asks them.
    ///
    /// # Errors
    /// If vamosctl fails.
    pub fn transitions(&self) -> anyhow::Result<Transitions> {
        let stats = self.ctl(&["vm", "stats", VM])?;
        let count = |name: &str| find(&stats, name).with_context(|| format!("find {name} in {stats}"));
        Ok(Transitions { kicks: count("kicks_received")?, calls: count("calls_sent")? })
    }

    /// Ends it in order, once the tasks of its guests have had the time to let go of their devices.
    pub async fn stop(mut self) {
        self.terminate();
        let deadline = Instant::now() + PLATFORM_EXIT_MAX;
        while Instant::now() < deadline && matches!(self.vamosd.try_wait(), Ok(None)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn terminate(&self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.vamosd.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let stdout = self.vamosd.stdout.take().context("take vamosd's standard output")?;
        let (said, hear) = mpsc::channel();
        std::thread::spawn(move || {
            // Reads to the end, so that vamosd never blocks on a full pipe.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let deadline = Instant::now() + PLATFORM_START_MAX;
        loop {
            match hear.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains("vamosd: ready") => return Ok(()),
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("vamosd is not ready after {PLATFORM_START_MAX:?}")
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => bail!("vamosd ended"),
            }
        }
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if !matches!(self.vamosd.try_wait(), Ok(None)) {
            return;
        }
        // Not stopped in order: an error is on its way out. A drained vamosd ends its cells.
        self.terminate();
        let deadline = Instant::now() + PLATFORM_EXIT_MAX;
        while Instant::now() < deadline && matches!(self.vamosd.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.vamosd.kill();
        let _ = self.vamosd.wait();
    }
}

/// The number called `name`, wherever it is in `value`.
fn find(value: &Value, name: &str) -> Option<u64> {
    match value {
        Value::Object(fields) => match fields.get(name) {
            Some(Value::Number(number)) => number.as_u64(),
            // Protobuf's JSON writes 64-bit numbers as text.
            Some(Value::String(text)) => text.parse().ok(),
            _ => fields.values().find_map(|value| find(value, name)),
        },
        Value::Array(values) => values.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_wherever_it_is() {
        let stats = serde_json::json!({"name": "a", "counters": {"kicks_received": 3, "calls_sent": "4"}});
        assert_eq!((find(&stats, "kicks_received"), find(&stats, "calls_sent")), (Some(3), Some(4)));
        assert_eq!(find(&stats, "packets"), None);
    }

    #[test]
    fn a_vamosd_that_ends_at_once_is_reported() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = Platform::start(Path::new("/bin/false"), directory.path(), 0).err().expect("an error");
        assert!(error.to_string().contains("start vamosd"), "{error:#}");
        assert!(format!("{error:#}").contains("vamosd ended"), "{error:#}");
    }
}
