//! Moving a VM to another host: what each side does when vamosctl asks. Which host has the VM is in the registry
//! before anything is done about it, so that a vamosd that is killed at any instant goes on where it was.
//!
//! ```text
//! source:  HERE --Freeze--> AWAY --Forget--> (gone)        target:  (none) --Arrive--> ARRIVING --Activate--> HERE
//!            ^-----Stay------+                                                            +--Drop--> (none)
//! ```
//!
//! At no time are both hosts HERE: Freeze comes before Activate, and Stay only after Drop.

mod arrival;
mod departure;
pub(crate) mod files;
mod log;
pub(crate) mod source;
mod target;

use std::io;
use std::path::PathBuf;

use vamos_proto::id::VmId;

pub use departure::Piece;
pub use source::{Departing, Pieces};
pub use target::Arrived;

/// Why a migration does not go on.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// Another migration of the VM is under way.
    #[error("VM {0} is under way by another migration; begin this one again")]
    OtherToken(VmId),
    /// The copy is of no use: the cell that kept the files fit for it is gone.
    #[error("the cell of VM {0} was replaced while its volume was copied; begin again")]
    Replaced(VmId),
    /// Not while the VM leaves.
    #[error("VM {0} is leaving for another host; its bindings stay as they are until it has left or stays")]
    Leaving(VmId),
    /// A file of the volume.
    #[error("{action} {}: {source}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A volume that is to be the same on every host is not there.
    #[error("the VM's volume is shared, and {} is not a directory of this host; mount it here first", .0.display())]
    NoVolume(PathBuf),
    /// A volume of this name is here already.
    #[error("{} holds the volume of an earlier VM of this name; move it away", .0.display())]
    VolumeExists(PathBuf),
    /// What the source says of the VM makes no sense.
    #[error("the source's description of the VM cannot be used: {0}")]
    Description(String),
}

fn failed(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> MigrationError {
    move |source| MigrationError::File { action, path: path.into(), source }
}
