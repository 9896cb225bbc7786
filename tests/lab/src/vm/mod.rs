//! A guest that runs: boot it, run scripts in it, reset it, pull its plug.

mod control;
mod qemu;
mod qmp;
mod uml;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use control::{Output, Running};

use crate::image::Image;
use crate::limits::{GUEST_BOOT_MAX, GUEST_SCRIPT_MAX};
use crate::process::{Process, last_lines_of};
use crate::run::RunDir;
use control::Control;
pub(crate) use qemu::PROGRAM as QEMU;
use qmp::Qmp;

/// What runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vmm {
    /// QEMU, with KVM where that is proven, else emulating.
    Qemu,
    /// User-mode Linux.
    Uml,
}

impl Vmm {
    /// As vamosctl calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Uml => "uml",
        }
    }
}

/// What is to be booted.
#[derive(Debug, Clone)]
pub struct Guest {
    pub(crate) vmm: Vmm,
    pub(crate) memory_mib: u32,
    pub(crate) files: Vec<(String, PathBuf)>,
    pub(crate) has_debian: bool,
}

impl Guest {
    /// A guest of QEMU.
    #[must_use]
    pub fn qemu() -> Self {
        Self { vmm: Vmm::Qemu, memory_mib: 384, files: Vec::new(), has_debian: false }
    }

    /// A guest of User-mode Linux.
    #[must_use]
    pub fn uml() -> Self {
        Self { vmm: Vmm::Uml, ..Self::qemu() }
    }

    /// Its memory. The initramfs lives in it: files take twice their size while the guest starts.
    #[must_use]
    pub fn memory(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Gives it a disk of the distribution's programs, at `/debian`. QEMU's guests only.
    #[must_use]
    pub fn with_debian(mut self) -> Self {
        self.has_debian = true;
        self
    }

    /// Puts a file of the host into the guest, with its permissions.
    #[must_use]
    pub fn file(mut self, path: impl Into<String>, from: impl Into<PathBuf>) -> Self {
        self.files.push((path.into(), from.into()));
        self
    }
}

/// All that a VMM is started with.
#[derive(Debug)]
pub(crate) struct Boot<'a> {
    pub name: &'a str,
    pub guest: &'a Guest,
    pub image: &'a Image,
    /// The VMM's options for the VAMOS device; none for a guest without one.
    pub attach: &'a [String],
    /// An image to be its first disk, read-only.
    pub disk: Option<&'a Path>,
    /// QEMU's `-accel`.
    pub accelerator: &'a str,
    pub limit: Duration,
}

/// A running guest. Dropped, it is gone, as if its plug were pulled.
#[derive(Debug)]
pub struct Vm {
    name: String,
    directory: PathBuf,
    process: Process,
    control: Control,
    qmp: Option<Qmp>,
    boot_time: Duration,
}

impl Vm {
    /// Boots a guest and waits for its command channel.
    pub(crate) fn boot(boot: &Boot<'_>, run: &RunDir) -> Result<Self> {
        let start = Instant::now();
        let directory = directory(run)?;
        let initramfs = directory.join(INITRAMFS);
        boot.image.with_files(&boot.guest.files, &initramfs)?;
        let (process, control, qmp) = match boot.guest.vmm {
            Vmm::Qemu => {
                let (process, control, qmp) = qemu::start(boot, &directory, &initramfs, run)?;
                (process, Control::new(control)?, Some(qmp))
            }
            Vmm::Uml => {
                let (process, control) = uml::start(boot, &directory, &initramfs, run)?;
                (process, control, None)
            }
        };
        let mut vm =
            Self { name: boot.name.to_owned(), directory, process, control, qmp, boot_time: Duration::ZERO };
        vm.await_boot(1, boot.limit)?;
        vm.boot_time = start.elapsed();
        Ok(vm)
    }

    /// Power-on to the command channel.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Runs a shell script in the guest to its end and returns what it printed.
    ///
    /// # Errors
    /// When it exits with another status than 0, takes too long, or the guest is gone.
    pub fn run(&self, script: &str) -> Result<String> {
        self.attempt(script)?.success().with_context(|| format!("in guest {}: {script}", self.name))
    }

    /// Runs a shell script in the guest to its end, whatever that is.
    ///
    /// # Errors
    /// When it takes too long, or the guest is gone.
    pub fn attempt(&self, script: &str) -> Result<Output> {
        self.start(script, GUEST_SCRIPT_MAX)?.wait().with_context(|| self.context(script))
    }

    /// Starts a shell script in the guest; others may run beside it.
    ///
    /// # Errors
    /// When the guest is gone.
    pub fn start(&self, script: &str, limit: Duration) -> Result<Running> {
        self.control.start(script, limit).with_context(|| self.context(script))
    }

    /// Resets the guest, as its reset button would, and waits until it is up again. What was put into
    /// its memory is gone.
    ///
    /// # Errors
    /// When the VMM has no such button, or the guest does not come up.
    pub fn reset(&mut self) -> Result<()> {
        let boots = self.control.boots();
        let qmp = self.qmp.as_mut().context("UML cannot be reset: drop it and boot another")?;
        qmp.execute("system_reset")?;
        self.await_boot(boots + 1, GUEST_BOOT_MAX)
    }

    /// Moves the guest into a QEMU that `boot` starts, by having `go` done: it is given the two monitors and an address
    /// at which the second one may listen.
    pub(crate) fn migrate<T>(
        &mut self,
        boot: &Boot<'_>,
        run: &RunDir,
        go: impl FnOnce(&Move) -> Result<T>,
    ) -> Result<T> {
        let directory = directory(run)?;
        // The same files: QEMU moves what it has read of them with the guest.
        let initramfs = self.initramfs();
        let (mut process, control, qmp) = qemu::start(boot, &directory, &initramfs, run)?;
        let way = Move {
            source: qemu::monitor(&self.directory),
            target: qemu::monitor(&directory),
            uri: format!("unix:{}", directory.join("incoming.sock").display()),
            processes: (self.process.id(), process.id()),
        };
        await_monitor(&way.target, &mut process)?;
        self.control.go_on_with(&control)?;
        let outcome = go(&way);
        if outcome.is_err() {
            self.control.moved(None);
            return outcome
                .with_context(|| format!("the other QEMU said: {}", last_lines_of(&log_path(&directory))));
        }
        std::fs::rename(initramfs, directory.join(INITRAMFS)).context("keeping the guest's files")?;
        self.control.moved(Some(control));
        (self.process, self.qmp, self.directory) = (process, Some(qmp), directory);
        outcome
    }

    fn initramfs(&self) -> PathBuf {
        self.directory.join(INITRAMFS)
    }

    /// Waits until the VMM ends by itself.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait(&mut self, limit: Duration) -> Result<()> {
        self.process.wait(limit).map(|_| ())
    }

    /// QEMU's monitor, for whoever operates the guest.
    #[must_use]
    pub fn monitor(&self) -> PathBuf {
        qemu::monitor(&self.directory)
    }

    /// The VMM's process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// The end of what the guest's kernel and init said.
    #[must_use]
    pub fn console(&self) -> String {
        last_lines_of(&console_path(&self.directory))
    }

    fn await_boot(&mut self, boots: u64, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        loop {
            if self.control.await_boots(boots, Duration::from_millis(100)) {
                return Ok(());
            }
            if let Some(status) = self.process.ended()? {
                let said = last_lines_of(&log_path(&self.directory));
                bail!("the VMM of {} ended with {status}:\n{said}\n{}", self.name, self.console());
            }
            if Instant::now() >= until {
                bail!("guest {} has not booted within {limit:?}:\n{}", self.name, self.console());
            }
        }
    }

    fn context(&self, script: &str) -> String {
        format!("in guest {}: {script}\nits console:\n{}", self.name, self.console())
    }
}

/// The name of what a guest is booted from, in its directory.
const INITRAMFS: &str = "initramfs.cpio";

/// What it takes to have one QEMU move a guest to another.
#[derive(Debug)]
pub struct Move {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) uri: String,
    /// Of the QEMU that the guest leaves, and of the other one.
    pub processes: (u32, u32),
}

impl Move {
    /// The monitor of the QEMU that awaits the guest.
    #[must_use]
    pub fn target_monitor(&self) -> &Path {
        &self.target
    }
}

fn directory(run: &RunDir) -> Result<PathBuf> {
    let made = tempfile::Builder::new().prefix("vm-").tempdir_in(run.path());
    Ok(made.context("making the guest's directory")?.keep())
}

fn await_monitor(socket: &Path, process: &mut Process) -> Result<()> {
    let until = Instant::now() + GUEST_BOOT_MAX;
    while !socket.exists() {
        if let Some(status) = process.ended()? {
            bail!("the awaiting QEMU ended with {status}");
        }
        anyhow::ensure!(Instant::now() < until, "the awaiting QEMU opens no monitor");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Where the guest's console is kept.
fn console_path(directory: &Path) -> PathBuf {
    directory.join("console.log")
}

/// Where the VMM's own messages are kept.
fn log_path(directory: &Path) -> PathBuf {
    directory.join("vmm.log")
}
