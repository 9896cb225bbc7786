//! Errors become gRPC statuses here and nowhere else: the code says what kind, the message what, why and what
//! to do.

use std::error::Error;
use std::io;
use std::iter::successors;

use tonic::{Code, Status};

use crate::edge::EdgeError;
use crate::migration::MigrationError;
use crate::platform::PlatformError;
use crate::registry::{Custody, RegistryError};
use crate::snapshot::SnapshotError;
use crate::vm::VmError;

/// The status of a request that names something that cannot be a name.
pub(super) fn invalid(reason: impl ToString) -> Status {
    Status::invalid_argument(reason.to_string())
}

/// The status of an error of the platform.
pub(super) fn of(error: PlatformError) -> Status {
    let (code, remedy) = code_and_remedy(&error);
    let remedy = if remedy.is_empty() { String::new() } else { format!("; {remedy}") };
    Status::new(code, format!("{}{remedy}", with_causes(&error)))
}

/// The error and every cause that its own text does not repeat.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in successors(error.source(), |&cause| cause.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn code_and_remedy(error: &PlatformError) -> (Code, &'static str) {
    match error {
        PlatformError::Registry(error) => registry(error),
        PlatformError::Vm(error) => vm(error),
        PlatformError::Migration(error) => migration(error),
        PlatformError::Snapshot(SnapshotError::File { source, .. })
            if source.kind() == io::ErrorKind::StorageFull =>
        {
            (Code::ResourceExhausted, "make room in the state directory")
        }
        PlatformError::Snapshot(SnapshotError::Shared(_)) => (Code::FailedPrecondition, ""),
        PlatformError::Snapshot(_) => (Code::Internal, "the log of vamosd may say more"),
        PlatformError::Edge(EdgeError::Says(_)) => (Code::InvalidArgument, ""),
        PlatformError::Edge(EdgeError::NotHere) => (Code::FailedPrecondition, ""),
        PlatformError::Edge(_) => (Code::Unavailable, "the log of vamosd may say more"),
        PlatformError::File { .. } => (Code::Internal, "the log of vamosd may say more"),
        PlatformError::Ending => (Code::Unavailable, "try again when it has been restarted"),
    }
}

fn registry(error: &RegistryError) -> (Code, &'static str) {
    match error {
        RegistryError::Database(_) => (Code::Internal, "check the disk of the state directory"),
        RegistryError::Damaged { .. } => (Code::DataLoss, "restore registry.db from a backup"),
        RegistryError::Version { .. } | RegistryError::NotOurs => (
            Code::FailedPrecondition,
            "run the vamosd that wrote it, or give this one a state directory of its own",
        ),
        RegistryError::Unreadable { .. } => (Code::FailedPrecondition, "check vamos.toml"),
        RegistryError::Exists { .. } => {
            (Code::AlreadyExists, "choose another name, or delete the other first")
        }
        RegistryError::Unknown { .. } => (Code::NotFound, "list what there is and check the spelling"),
        RegistryError::CidTaken { .. } => {
            (Code::AlreadyExists, "choose another cid, or leave it out to be given one")
        }
        RegistryError::CidReserved(_) => (Code::InvalidArgument, "leave it out to be given one"),
        RegistryError::Elsewhere { now: Custody::Here(_), .. } => {
            (Code::AlreadyExists, "delete that one first, or choose another host")
        }
        RegistryError::Elsewhere { .. } => {
            (Code::FailedPrecondition, "ask the host that has it, or end the migration with vamosctl migrate")
        }
        RegistryError::VolumeElsewhere { .. } => (
            Code::FailedPrecondition,
            "move the data, delete the VM with --purge, and create it anew; or say what it was before",
        ),
        RegistryError::NothingInVolume { .. } => {
            (Code::FailedPrecondition, "give the VM a volume of class local or shared")
        }
        RegistryError::Wanted { .. } => (Code::FailedPrecondition, "wait until the VM has a cell"),
        RegistryError::InUse { .. } => (Code::FailedPrecondition, "unbind it from those first"),
        RegistryError::OtherKind { .. } => {
            (Code::FailedPrecondition, "give the new service a name of its own")
        }
        RegistryError::Full { .. } => (Code::ResourceExhausted, "delete what is not needed"),
    }
}

fn migration(error: &MigrationError) -> (Code, &'static str) {
    match error {
        MigrationError::OtherToken(_) | MigrationError::Replaced(_) => (Code::Aborted, ""),
        MigrationError::Leaving(_) => (Code::FailedPrecondition, "wait for it"),
        MigrationError::NoVolume(_) => (Code::FailedPrecondition, "or choose another host"),
        MigrationError::VolumeExists(_) => (Code::AlreadyExists, "or choose another host"),
        MigrationError::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            (Code::ResourceExhausted, "make room there, or choose another host")
        }
        MigrationError::File { .. } => (Code::Internal, "the log of vamosd may say more"),
        MigrationError::Description(_) => (Code::InvalidArgument, "do both hosts run the same version?"),
    }
}

fn vm(error: &VmError) -> (Code, &'static str) {
    match error {
        VmError::Ending(_) => (Code::Unavailable, "nothing needs to be done"),
        VmError::NoCell { .. } => {
            (Code::Unavailable, "vamosd keeps trying to start it; mend the cause, if one is named")
        }
        VmError::Silent(_) => (Code::DeadlineExceeded, "discard the VM's cell if this lasts"),
        VmError::Cell { .. } => {
            (Code::Internal, "the change is recorded and is applied when the cause is mended")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn the_root_cause_reaches_the_user_with_what_to_do() {
        let source = io::Error::new(io::ErrorKind::StorageFull, "no space left");
        let status = of(PlatformError::File { action: "bind", path: "/run/x".into(), source });
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.message(), "bind /run/x: no space left; the log of vamosd may say more");
        let full = rusqlite::Error::InvalidPath("registry".into());
        let status = of(RegistryError::from(full).into());
        assert_eq!(
            status.message(),
            "use the registry: Invalid path: registry; check the disk of the state directory"
        );
    }
}
