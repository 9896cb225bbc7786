//! vamosd as a process of its own, which can be killed: this very program, told to be one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use vamos_host::config::Config;
use vamos_link::{Channel, ProcessGuest};

use crate::support::{DATABASE, Guest, PATIENCE};

const CONFIGURATION: &str = "VAMOS_TEST_CONFIGURATION";

/// Not a test: what [`Daemon::start`] runs.
#[test]
fn vamosd() {
    let Some(path) = std::env::var_os(CONFIGURATION) else { return };
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let config = Config::load(&PathBuf::from(path)).unwrap();
    if std::env::var_os(vamos_host::daemon::CHECK).is_none() {
        vamos_host::daemon::run(config).unwrap();
    }
}

/// A directory for one vamosd after the other, with one VM. What is in it ends with this.
pub struct Daemon {
    pub vm: String,
    process: Option<Child>,
    directory: tempfile::TempDir,
}

impl Daemon {
    /// `vm` is to be no other test's.
    pub fn of(vm: &str) -> Self {
        Self::configured(vm, "", "")
    }

    /// The same with more lines at the head of `vamos.toml`, and for the VM.
    pub fn configured(vm: &str, head: &str, of_vm: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "cells are started by root; run these tests as root");
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let vm = format!("{vm}-{}", std::process::id());
        let (root, cell) = (directory.path().display(), env!("CARGO_BIN_EXE_vamos-cell"));
        let text = format!(
            "state_dir = '{root}/state'\nrun_dir = '{root}/run'\ncell_binary = '{cell}'\n{head}\n\
             [[service]]\nname = '{DATABASE}'\nkind = 'sql'\n[[vm]]\nname = '{vm}'\n{of_vm}\n\
             [[binding]]\nvm = '{vm}'\nservice = '{DATABASE}'\n"
        );
        fs::write(directory.path().join("vamos.toml"), text).unwrap();
        Self { vm, process: None, directory }
    }

    /// The same, started and ready.
    pub fn ready(vm: &str) -> Self {
        let mut daemon = Self::of(vm);
        daemon.start();
        daemon.wait_until_ready();
        daemon
    }

    /// Starts one; it may not be ready yet.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "daemon::vamosd", "--nocapture", "--test-threads=1"])
            .env(CONFIGURATION, self.path("vamos.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    pub fn wait_until_ready(&mut self) {
        let stdout = self.process.as_mut().unwrap().stdout.as_mut().unwrap();
        let mut lines = BufReader::new(stdout).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.contains("vamosd: ready")));
        assert!(ready, "vamosd ended at its start:\n{}", self.log());
    }

    /// At any instruction.
    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// As an operator ends it: with its cell, and the volume given back.
    pub fn end(&mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let status = self.process.take().unwrap().wait().unwrap();
        assert!(status.success(), "{status}");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().unwrap())
    }

    /// The VM's cell. The one process of that name, but for an instant of its start.
    pub fn cell(&self) -> Option<Pid> {
        let wanted = format!("{}\0{}\0", env!("CARGO_BIN_EXE_vamos-cell"), self.vm);
        let is_cell =
            |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes());
        let all = fs::read_dir("/proc").unwrap().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter(is_cell).max().and_then(Pid::from_raw)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/vms").join(&self.vm).join("vhost.sock")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until the log holds `text`.
    pub async fn until_logged(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < end, "{text:?} is not in the log:\n{}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    pub async fn attach(&self) -> Guest {
        let guest = ProcessGuest::attach(&self.socket()).await.unwrap();
        Guest { channel: Channel::Process(guest) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(cell) = self.cell() {
            let _ = kill_process(cell, Signal::KILL);
        }
        if std::thread::panicking() {
            println!("log of vamosd:\n{}", self.log());
        }
    }
}
