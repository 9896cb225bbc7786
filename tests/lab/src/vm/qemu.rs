//! QEMU's command line for a guest without network or display: a console, a command channel, a reset button, the
//! VAMOS device, and a disk for those that ask for one.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use command_fds::{CommandFdExt, FdMapping};

use super::qmp::Qmp;
use super::{Boot, console_path, log_path};
use crate::process::Process;
use crate::run::RunDir;

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// Descriptors that QEMU inherits.
const CONTROL_FD: i32 = 10;
const QMP_FD: i32 = 11;

/// A QEMU, the host's end of its guest's command channel, and a session with its monitor.
pub type Started = (Process, UnixStream, Qmp);

/// Where others may speak to its monitor.
pub fn monitor(directory: &Path) -> PathBuf {
    directory.join("qmp.sock")
}

/// The options for its disk, if it has one: nobody writes to it, so others may have it, too.
fn disk(boot: &Boot<'_>) -> Vec<String> {
    let Some(image) = boot.disk else { return Vec::new() };
    let drive = format!("file={},format=raw,if=none,id=disk,readonly=on", image.display());
    ["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"].map(str::to_owned).to_vec()
}

fn kernel_arguments(boot: &Boot<'_>) -> String {
    let disk = if boot.disk.is_some() { " vamos.disk=/dev/vda" } else { "" };
    format!("console=ttyS0 quiet panic=-1 vamos.name={} vamos.channel=/dev/vport0p1{disk}", boot.name)
}

/// Starts QEMU; the guest is booting, or awaited from another one.
pub fn start(boot: &Boot<'_>, directory: &Path, initramfs: &Path, run: &RunDir) -> Result<Started> {
    let (control, control_theirs) = UnixStream::pair().context("making the command channel")?;
    let (qmp, qmp_theirs) = UnixStream::pair().context("making the machine protocol's channel")?;
    let log = File::create(log_path(directory)).context("creating QEMU's log")?;
    let processor = if boot.accelerator == "kvm" { "host" } else { "max" };
    let mut command = Command::new(PROGRAM);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"])
        .args(["-accel", boot.accelerator, "-cpu", processor, "-smp", "1"])
        .args(["-m", &format!("{}M", boot.guest.memory_mib)])
        .args(["-name", boot.name])
        .arg("-kernel")
        .arg(&boot.image.kernel)
        .arg("-initrd")
        .arg(initramfs)
        .arg("-append")
        .arg(kernel_arguments(boot))
        .args(["-chardev", &format!("file,id=console,path={}", console_path(directory).display())])
        .args(["-serial", "chardev:console"])
        .args(["-device", "virtio-serial-pci"])
        .args(["-chardev", &format!("socket,id=control,fd={CONTROL_FD}")])
        .args(["-device", "virtserialport,chardev=control,name=vamos-lab"])
        .args(["-chardev", &format!("socket,id=qmp,fd={QMP_FD}"), "-mon", "chardev=qmp,mode=control"])
        .args(["-qmp", &format!("unix:{},server=on,wait=off", monitor(directory).display())])
        .args(disk(boot))
        .args(boot.attach)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing QEMU's log")?)
        .stderr(log)
        .fd_mappings(vec![
            FdMapping { parent_fd: OwnedFd::from(control_theirs), child_fd: CONTROL_FD },
            FdMapping { parent_fd: OwnedFd::from(qmp_theirs), child_fd: QMP_FD },
        ])
        .context("passing QEMU its channels")?;
    let process = Process::start("qemu", command, run)?;
    Ok((process, control, Qmp::new(qmp)?))
}
