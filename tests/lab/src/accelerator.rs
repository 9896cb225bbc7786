//! Whether KVM really runs a guest here. `/dev/kvm` may exist, open and create VMs and still hang or
//! crash a stock kernel, so the proof is a guest that boots; the verdict is kept until the machine,
//! its kernel or QEMU changes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::{Cache, Inputs};
use crate::image::Image;
use crate::limits::KVM_PROOF_MAX;
use crate::process::output;
use crate::run::RunDir;
use crate::vm::{Boot, Guest, Vm};

/// How QEMU runs guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor's virtualisation.
    Kvm,
    /// Emulation, and why.
    Tcg(String),
}

impl Accelerator {
    /// QEMU's `-accel`.
    #[must_use]
    pub fn option(&self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg(_) => "tcg",
        }
    }

    /// Proves KVM by booting `image` with it, or finds out what is against it.
    ///
    /// # Errors
    /// When QEMU cannot be run at all.
    pub fn proven(cache: &Cache, image: &Image, run: &RunDir) -> Result<Self> {
        if !Path::new("/dev/kvm").exists() {
            return Ok(Self::Tcg("there is no /dev/kvm".to_owned()));
        }
        let version = output(Command::new(crate::vm::QEMU).arg("--version"))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot's id")?;
        let name =
            Inputs::new().bytes(version).bytes(boot).bytes(image.kernel.as_os_str().as_encoded_bytes());
        let entry = cache.entry(&name.name("kvm"), |directory| {
            eprintln!("lab: trying KVM with a short boot");
            let guest = Guest::qemu();
            let trial = Boot {
                disk: None,
                name: "kvm-proof",
                guest: &guest,
                image,
                attach: &[],
                accelerator: "kvm",
                limit: KVM_PROOF_MAX,
            };
            let against = Vm::boot(&trial, run).err().map(|error| first_line(&format!("{error:#}")));
            fs::write(directory.join("against"), against.unwrap_or_default()).context("keeping the verdict")
        })?;
        let against = fs::read_to_string(entry.join("against")).context("reading the verdict on KVM")?;
        Ok(if against.is_empty() { Self::Kvm } else { Self::Tcg(against) })
    }
}

/// What matters of a VMM's complaint: its own first line, or ours.
fn first_line(message: &str) -> String {
    let own = message.lines().find(|line| line.contains("qemu-system"));
    own.or_else(|| message.lines().next()).unwrap_or("no reason given").to_owned()
}
