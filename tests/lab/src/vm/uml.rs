//! User-mode Linux's command line: the kernel is a program, its serial line is the command channel.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use command_fds::{CommandFdExt, FdMapping};

use super::control::Control;
use super::{Boot, console_path};
use crate::process::Process;
use crate::run::RunDir;

/// Descriptor of the serial line.
const CONTROL_FD: i32 = 10;

/// Starts UML; the guest is booting.
pub fn start(
    boot: &Boot<'_>,
    directory: &Path,
    initramfs: &Path,
    run: &RunDir,
) -> Result<(Process, Control)> {
    ensure!(boot.disk.is_none(), "UML's guests have no disk");
    let (control, theirs) = UnixStream::pair().context("making the command channel")?;
    let console = File::create(console_path(directory)).context("creating the console's log")?;
    let mut command = Command::new(&boot.image.kernel);
    command
        .arg(format!("mem={}M", boot.guest.memory_mib))
        .arg(format!("initrd={}", initramfs.display()))
        // Its management socket belongs to the run, too.
        .arg(format!("uml_dir={}", directory.display()))
        .arg(format!("umid={}", boot.name))
        .args(["con0=null,fd:1", "con=null", &format!("ssl0=fd:{CONTROL_FD}"), "ssl=null"])
        .args(["quiet", "panic=-1", &format!("vamos.name={}", boot.name), "vamos.channel=/dev/ttyS0"])
        .args(boot.attach)
        .stdin(Stdio::null())
        .stdout(console.try_clone().context("sharing the console's log")?)
        .stderr(console)
        .fd_mappings(vec![FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: CONTROL_FD }])
        .context("passing UML its serial line")?;
    let process = Process::start("uml", command, run)?;
    Ok((process, Control::new(control)?))
}
