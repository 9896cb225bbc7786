//! The services of the control plane, one file each.

mod bindings;
mod edge;
mod host;
mod migrations;
mod registered;
mod vms;

use std::collections::HashMap;
use std::sync::Arc;

use tonic::Status;
use vamos_proto::control;
use vamos_proto::id::VmId;

use super::status::invalid;
use crate::names::{ServiceName, SnapshotName};
use crate::platform::{Platform, VmView};
use crate::registry::{BindingRow, ServiceRow, SnapshotRow, Volume};

/// What serves the requests.
#[derive(Debug)]
pub(super) struct Api {
    platform: Arc<Platform>,
}

impl Api {
    pub(super) fn new(platform: Arc<Platform>) -> Self {
        Self { platform }
    }
}

fn vm_name(name: String) -> Result<VmId, Status> {
    VmId::new(name).map_err(invalid)
}

fn service_name(name: String) -> Result<ServiceName, Status> {
    ServiceName::new(name).map_err(invalid)
}

/// A local one, unless something else is said.
fn volume_of(volume: Option<control::Volume>) -> Result<Volume, Status> {
    let control::Volume { class, path } = volume.unwrap_or_default();
    Volume::new(&class, &path).map_err(invalid)
}

fn snapshot_name(name: String) -> Result<SnapshotName, Status> {
    SnapshotName::new(name).map_err(invalid)
}

fn snapshot(row: SnapshotRow) -> control::Snapshot {
    let SnapshotRow { vm, name, generation, taken } = row;
    control::Snapshot { vm: vm.to_string(), name: name.to_string(), generation, taken }
}

fn vm(view: VmView) -> control::Vm {
    let VmView { row, status, socket, volume } = view;
    control::Vm {
        name: row.name.to_string(),
        cid: row.cid.0,
        generation: row.generation,
        state: status.state.into(),
        detail: status.detail,
        socket: socket.display().to_string(),
        volume: volume.display().to_string(),
        cell_pid: status.cell_pid,
        cell_uid: row.uid,
        cell_starts: status.cell_starts,
        declared: row.declared,
        volume_class: row.volume.class().into(),
        sandbox: status.layers,
    }
}

fn service(row: ServiceRow) -> control::Service {
    control::Service { name: row.name.to_string(), kind: row.kind.as_str().into(), declared: row.declared }
}

fn binding(row: BindingRow) -> control::Binding {
    control::Binding {
        vm: row.vm.to_string(),
        service: row.service.to_string(),
        kind: row.kind.as_str().into(),
        port: row.port.0,
        door: row.door.into_iter().collect::<HashMap<_, _>>(),
        policy: Some(row.policy),
        quota: Some(row.quota),
        declared: row.declared,
    }
}
