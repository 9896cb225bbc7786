//! What confines a process of the platform: namespaces, a minimal root, an unprivileged identity,
//! Landlock, seccomp, rlimits and cgroups; and how descriptors pass between processes.
//!
//! Knows nothing of VMs, devices or services: it is told a directory, an identity and limits. A process
//! that is to be confined calls [`enter`] as the first thing it does, while it has one thread: Landlock and
//! seccomp bind the calling thread only, and every thread started later inherits them.
//!
//! Each [`Layer`] reports whether it was applied. Under [`Enforcement::Strict`] a missing one is an error.

pub mod cgroup;
pub mod inherited;
pub mod limits;
pub mod memory;
pub mod passing;
pub mod probe;
pub mod seccomp;

mod enter;
mod identity;
mod landlock;
mod layer;
mod namespaces;
mod resources;
mod root;

pub use enter::{EnterError, Entered, Plan, Profile, enter};
pub use layer::{Enforcement, Layer, Outcome, Report};
pub use namespaces::Parent;
pub use resources::ResourceLimits;
pub use root::VOLUME;
