//! What each command needs on the machine. `cargo demo` on a fresh Debian or Ubuntu with a Rust
//! toolchain must need nothing that is not here.

use anyhow::{Result, ensure};

use crate::apt;

/// A command's needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// QEMU guests, one with psql in it and a disk of the distribution's programs.
    Demo,
    /// [`Needs::Demo`], UML guests, pgbench, and the etcd that hosts share.
    Verify,
    /// A PostgreSQL server to be measured against.
    Bench,
    /// An nginx to be measured against.
    BenchHttp,
}

/// QEMU; what a guest is made of, with what unpacks a kernel's modules; the client that the guest runs.
const DEMO: &[&str] = &[
    "qemu-system-x86",
    "busybox-static",
    "xz-utils",
    "zstd",
    "postgresql-client",
    "mmdebstrap",
    "e2fsprogs",
];

/// pgbench is in the server's package.
const POSTGRES: &str = "postgresql";

impl Needs {
    fn packages(self) -> Vec<&'static str> {
        match self {
            Self::Demo => DEMO.to_vec(),
            Self::Verify => {
                [DEMO, &["user-mode-linux", "btrfs-progs", POSTGRES, "etcd-server", "curl"]].concat()
            }
            Self::Bench => vec![POSTGRES],
            Self::BenchHttp => vec!["nginx-light"],
        }
    }
}

/// Installs what is missing, saying so first; without root, says the one command that does.
///
/// # Errors
/// When it cannot be installed, or this is no x86-64 machine.
pub fn prepare(needs: Needs) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "the lab's guests are x86-64: this machine is not");
    let packages = needs.packages();
    if packages.contains(&POSTGRES) && !apt::installed(POSTGRES)? {
        eprintln!(
            "lab: PostgreSQL is installed for its programs; the lab does not use a system-wide cluster"
        );
    }
    apt::install(&packages)
}
