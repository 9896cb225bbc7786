//! The VM lab: fetches and caches guests, starts vamosd, boots QEMU and UML on it, and leaves nothing
//! behind. It knows VAMOS by its binaries and their command lines only.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use vamos_lab::{Guest, HostConfig, Lab};
//!
//! vamos_lab::enter()?;
//! let lab = Lab::open()?;
//! let host = lab.host(&HostConfig::new().vm("web-1").bind("web-1", "catalog"))?;
//! let vm = host.boot("web-1", &Guest::qemu())?;
//! vm.run("psql catalog -c 'SELECT 1'")?;
//! # Ok(())
//! # }
//! ```

pub mod accelerator;
pub mod apt;
pub mod artifacts;
pub mod bench;
pub mod cache;
mod closure;
pub mod cpio;
mod debian;
pub mod demo;
mod disk;
pub mod figures;
mod host;
pub mod image;
mod kernel;
pub mod lab;
pub mod limits;
mod process;
pub mod run;
pub mod setup;
pub mod torture;
pub mod verify;
pub mod vm;

pub use disk::Disk;
pub use host::{Host, HostConfig, Transitions};
pub use lab::Lab;
pub use process::Process;
pub use run::enter;
pub use vm::{Guest, Move, Output, Running, Vm, Vmm};
