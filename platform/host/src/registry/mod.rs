//! The durable list of VMs, services and bindings: one SQLite file in the state directory.
//!
//! Knows nothing of cells or sockets. Every call blocks for as long as a disk takes; the platform makes them on
//! threads that may block.

mod bindings;
mod custody;
mod published;
mod reconcile;
mod schema;
mod services;
mod snapshots;
mod vms;
mod volumes;

#[cfg(test)]
mod tests;

use std::path::Path;

use rusqlite::Connection;
use vamos_proto::id::{GuestCid, VmId};

use crate::names::{ServiceName, SnapshotName};

pub use bindings::{BindingRow, Terms};
pub use custody::{Custody, Token};
pub use published::{CertificateRow, RouteRow};
pub use services::ServiceRow;
pub use snapshots::{Restoration, SnapshotRow};
pub use vms::{SessionSecret, VmRow};
pub use volumes::Volume;

/// Why the registry refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The database does.
    #[error("use the registry")]
    Database(#[from] rusqlite::Error),
    /// A row this version did not write.
    #[error("the registry holds a {what} this version cannot read")]
    Damaged {
        /// What it is.
        what: &'static str,
    },
    /// Written by another version of vamosd.
    #[error("the registry has format {found}, this vamosd knows {known}")]
    Version {
        /// In the file.
        found: i32,
        /// Here.
        known: i32,
    },
    /// A file that the configuration names.
    #[error("read {}: {source}", .path.display())]
    Unreadable {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Some other program's file.
    #[error("the registry file belongs to another program")]
    NotOurs,
    /// The name is taken.
    #[error("{kind} {name} exists already")]
    Exists {
        /// What it is.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// There is none of this name.
    #[error("there is no {kind} {name}")]
    Unknown {
        /// What it would be.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The context id is taken.
    #[error("cid {} belongs to VM {holder}", .cid.0)]
    CidTaken {
        /// The id.
        cid: GuestCid,
        /// Who has it.
        holder: VmId,
    },
    /// Not an id for a guest.
    #[error("cid {} is reserved: guests have 3 to 4294967294", .0.0)]
    CidReserved(GuestCid),
    /// A volume does not move by being told to.
    #[error("the volume of VM {vm} is {}, and cannot be made {}", told(.known), told(.wanted))]
    VolumeElsewhere {
        /// Whose.
        vm: VmId,
        /// Where it is.
        known: Volume,
        /// Where it was to be.
        wanted: Volume,
    },
    /// The service keeps data in the volume.
    #[error("service {service} keeps its data in the volume, and that of VM {vm} is of class \"remote\"")]
    NothingInVolume {
        /// Whose.
        vm: VmId,
        /// Which.
        service: ServiceName,
    },
    /// A migration of another token has it.
    #[error("VM {vm} is {now}")]
    Elsewhere {
        /// Which.
        vm: VmId,
        /// Where it is.
        now: Custody,
    },
    /// Volumes are being made from the snapshot.
    #[error("snapshot {snapshot} of VM {vm} is just being made a volume")]
    Wanted {
        /// Whose.
        vm: VmId,
        /// Which.
        snapshot: SnapshotName,
    },
    /// VMs are bound to the service.
    #[error("service {service} is bound to {}", .vms.join(", "))]
    InUse {
        /// Which.
        service: ServiceName,
        /// To whom.
        vms: Vec<String>,
    },
    /// The name exists with another kind.
    #[error("service {service} is of kind {kind} and cannot become another")]
    OtherKind {
        /// Which.
        service: ServiceName,
        /// What it is.
        kind: String,
    },
    /// No more fit.
    #[error("there are {limit} {what} already")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// How many are possible.
        limit: usize,
    },
}

fn told(volume: &Volume) -> String {
    match volume.path() {
        Some(path) => format!("{} at {}", volume.class(), path.display()),
        None => volume.class().to_owned(),
    }
}

/// The uids given to cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// The registry.
#[derive(Debug)]
pub struct Registry {
    connection: Connection,
    uids: UidRange,
}

impl Registry {
    /// Opens the file, makes it if there is none.
    ///
    /// # Errors
    /// [`RegistryError`]; among them a file of a newer version, which is left untouched.
    pub fn open(file: &Path, uids: UidRange) -> Result<Self, RegistryError> {
        let mut connection = Connection::open(file)?;
        schema::prepare(&mut connection)?;
        Ok(Self { connection, uids })
    }
}
