//! Examining a host: what is there, what is missing, and what to do about it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use vamos_proto::control::{Check, Verdict};
use vamos_sandbox::probe;

/// Longest a kernel may take to greet when a boot is to prove acceleration.
const BOOT_MAX: Duration = Duration::from_secs(20);

/// Examines the host. With a kernel, boots it to prove that KVM works.
pub fn examine(kernel: Option<&Path>) -> Vec<Check> {
    let mut checks = vec![kvm(kernel), memfd()];
    checks.extend(probe::layers().into_iter().map(|finding| match finding.found {
        Ok(found) => ok(finding.name, found),
        Err(why) => missing(finding.name, why, finding.remedy),
    }));
    checks.push(vmm("qemu", "qemu-system-x86_64", "--version", "apt-get install qemu-system-x86"));
    checks.push(vmm("uml", "linux.uml", "--version", "apt-get install user-mode-linux"));
    checks
}

/// The layers of a cell's sandbox that this host lacks, with what to do.
pub fn missing_layers() -> Vec<String> {
    let findings = probe::layers().into_iter();
    findings
        .filter_map(|finding| {
            let why = finding.found.err()?;
            Some(format!("{}: {why}; {}", finding.name, finding.remedy))
        })
        .collect()
}

fn check(name: &str, verdict: Verdict, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name: name.into(), verdict: verdict.into(), detail: detail.into(), remedy: remedy.into() }
}

fn ok(name: &str, detail: impl Into<String>) -> Check {
    check(name, Verdict::Ok, detail, "")
}

fn missing(name: &str, detail: impl Into<String>, remedy: &str) -> Check {
    check(name, Verdict::Missing, detail, remedy)
}

fn memfd() -> Check {
    match memfd_create("vamos-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING) {
        Ok(_) => ok("memfd", "shared guest memory, with seals"),
        Err(error) => missing("memfd", error.to_string(), "use a kernel from 3.17 with CONFIG_MEMFD_CREATE"),
    }
}

/// A device that opens proves nothing: paravirtual ones inside a VM may hang a stock kernel. Only a boot does.
fn kvm(kernel: Option<&Path>) -> Check {
    const DEVICE: &str = "/dev/kvm";
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        let remedy =
            "enable virtualisation and load kvm_intel or kvm_amd; without it VMs run under TCG, slowly";
        return missing("kvm", format!("open {DEVICE}: {error}"), remedy);
    }
    let Some(kernel) = kernel else {
        let remedy = "run: vamosd doctor --boot, which boots a kernel to prove it";
        return check("kvm", Verdict::Unproven, format!("{DEVICE} opens, which proves nothing yet"), remedy);
    };
    match boots(kernel) {
        Ok(took) => ok("kvm", format!("{} greeted after {} ms", kernel.display(), took.as_millis())),
        Err(error) => {
            missing("kvm", format!("boot {}: {error}", kernel.display()), "VMs must run under TCG here")
        }
    }
}

/// Boots `kernel` with KVM until its first line on the serial console.
fn boots(kernel: &Path) -> io::Result<Duration> {
    let console = tempfile(&std::env::temp_dir())?;
    let started = Instant::now();
    let mut vmm = Command::new("qemu-system-x86_64")
        .args(["-accel", "kvm", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-serial"])
        .arg(format!("file:{}", console.display()))
        .args(["-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let greeted = loop {
        if fs::read(&console).is_ok_and(|text| text.windows(13).any(|window| window == b"Linux version")) {
            break Ok(started.elapsed());
        }
        if let Some(status) = vmm.try_wait()? {
            break Err(io::Error::other(format!("the VMM ended with {status}")));
        }
        if started.elapsed() > BOOT_MAX {
            break Err(io::Error::new(io::ErrorKind::TimedOut, format!("no greeting within {BOOT_MAX:?}")));
        }
        sleep(Duration::from_millis(20));
    };
    let _ = vmm.kill();
    let _ = vmm.wait();
    let _ = fs::remove_file(&console);
    greeted
}

/// A new empty file that nobody else can have prepared.
fn tempfile(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join(format!("vamos-doctor-{}", std::process::id()));
    fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    Ok(path)
}

/// The newest kernel installed on this host, for a boot.
pub fn installed_kernel() -> Option<PathBuf> {
    let entries = fs::read_dir("/boot").ok()?;
    let kernels = entries.flatten().map(|entry| entry.path());
    kernels.filter(|path| path.to_string_lossy().contains("/vmlinuz-")).max()
}

fn vmm(name: &str, program: &str, version: &str, remedy: &str) -> Check {
    match Command::new(program).arg(version).stdin(Stdio::null()).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            ok(name, format!("{program}: {}", text.lines().next().unwrap_or("version not told").trim()))
        }
        Err(error) => missing(name, format!("{program}: {error}"), remedy),
    }
}

/// The checks as a table for people.
pub fn table(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let verdict = match check.verdict() {
            Verdict::Ok => "ok",
            Verdict::Unproven => "unproven",
            Verdict::Missing => "missing",
            Verdict::Unspecified => "?",
        };
        text.push_str(&format!("{:<12} {verdict:<9} {}\n", check.name, check.detail));
        if !check.remedy.is_empty() {
            text.push_str(&format!("{:<22} -> {}\n", "", check.remedy));
        }
    }
    text
}

/// The checks for programs.
pub fn json(checks: &[Check]) -> serde_json::Value {
    let one = |check: &Check| {
        serde_json::json!({
            "name": check.name,
            "verdict": check.verdict().as_str_name().trim_start_matches("VERDICT_").to_lowercase(),
            "detail": check.detail,
            "remedy": check.remedy,
        })
    };
    checks.iter().map(one).collect()
}
