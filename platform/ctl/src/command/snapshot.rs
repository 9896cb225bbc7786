//! `vamosctl vm snapshot` and what is done with one. With a QEMU's monitor, volume and guest are a pair: of one instant,
//! under one name.

use std::path::absolute;

use serde_json::{Value, json};
use tonic::transport::Channel;
use vamos_proto::control::vms_client::VmsClient;
use vamos_proto::control::{
    CloneRequest, GetVmRequest, ListSnapshotsRequest, RemoveSnapshotRequest, RestoreRequest, Snapshot,
    TakeSnapshotRequest, Vm,
};

use crate::attach_args::{CHARDEV, DEVICE};
use crate::cli::GuestState;
use crate::failure::Failure;
use crate::output::print;
use crate::qmp::Qmp;
use crate::table::table;

type Vms = VmsClient<Channel>;

/// Takes one. The guest, if it is to be part of it, has its device unplugged, which QEMU cannot save, and stands still
/// until both are whole.
pub async fn take(
    vms: &mut Vms,
    vm: String,
    name: String,
    guest: GuestState,
    json: bool,
) -> Result<(), Failure> {
    let asked = TakeSnapshotRequest { vm: vm.clone(), name };
    let snapshot = match (guest.qmp, guest.vm_state) {
        (Some(qmp), Some(file)) => {
            let file =
                absolute(&file).map_err(|error| Failure::Vmm(format!("{}: {error}", file.display())))?;
            let socket = vms.get(GetVmRequest { name: vm }).await?.into_inner().socket;
            let mut qmp = Qmp::connect(&qmp).await?;
            qmp.unplug(DEVICE, CHARDEV).await?;
            let mut half = false;
            let taken = async {
                qmp.execute("stop", json!({})).await?;
                let snapshot = vms.take_snapshot(asked.clone()).await?.into_inner();
                half = true;
                qmp.save(&file).await?;
                Ok::<_, Failure>(snapshot)
            };
            let taken = taken.await;
            // Whatever became of it, the guest goes on.
            let goes_on = qmp.execute("cont", json!({})).await.map(drop);
            let plugged = qmp.plug(DEVICE, CHARDEV, &socket).await;
            if taken.is_err() && half {
                // Half of a pair is of no use. That there is none is as good.
                let TakeSnapshotRequest { vm, name } = asked;
                let _ = vms.remove_snapshot(RemoveSnapshotRequest { vm, name }).await;
            }
            let taken = taken?;
            goes_on.and(plugged)?;
            taken
        }
        _ => vms.take_snapshot(asked).await?.into_inner(),
    };
    let text = format!("snapshot {} of {} is taken\n", snapshot.name, snapshot.vm);
    print(json, &as_json(&snapshot), &text);
    Ok(())
}

/// Lists a VM's.
pub async fn list(vms: &mut Vms, vm: String, json: bool) -> Result<(), Failure> {
    let snapshots = vms.list_snapshots(ListSnapshotsRequest { vm }).await?.into_inner().snapshots;
    let row = |snapshot: &Snapshot| {
        let taken = std::time::UNIX_EPOCH + std::time::Duration::from_secs(snapshot.taken);
        let taken = humantime::format_rfc3339_seconds(taken).to_string();
        vec![snapshot.name.clone(), taken, snapshot.generation.to_string()]
    };
    let text = table(&["name", "taken", "generation"], &snapshots.iter().map(row).collect::<Vec<_>>());
    print(json, &Value::Array(snapshots.iter().map(as_json).collect()), &text);
    Ok(())
}

/// Removes one.
pub async fn remove(vms: &mut Vms, vm: String, name: String, json: bool) -> Result<(), Failure> {
    vms.remove_snapshot(RemoveSnapshotRequest { vm: vm.clone(), name: name.clone() }).await?;
    print(json, &json!({"removed": name}), &format!("snapshot {name} of {vm} is gone\n"));
    Ok(())
}

/// Goes back to one, with the guest if its QEMU is given.
pub async fn restore(vms: &mut Vms, vm: String, snapshot: String, guest: GuestState) -> Result<Vm, Failure> {
    // What can be wrong with the guest's half is found out before anything is replaced.
    let half = match (guest.qmp, guest.vm_state) {
        (Some(qmp), Some(file)) => {
            let unusable = |error| Failure::Vmm(format!("{}: {error}", file.display()));
            let file = absolute(&file).map_err(unusable)?;
            std::fs::File::open(&file).map_err(unusable)?;
            let mut qmp = Qmp::connect(&qmp).await?;
            let status = qmp.status().await?;
            if status != "inmigrate" {
                return Err(Failure::Vmm(format!("this QEMU is in state {status}; it must await the guest")));
            }
            Some((qmp, file))
        }
        _ => None,
    };
    let restored = vms.restore(RestoreRequest { vm, snapshot }).await?.into_inner();
    if let Some((mut qmp, file)) = half {
        qmp.load(&file).await?;
        qmp.plug(DEVICE, CHARDEV, &restored.socket).await?;
        qmp.execute("cont", json!({})).await?;
    }
    Ok(restored)
}

/// Makes another VM.
pub async fn clone(vms: &mut Vms, vm: String, new: String, snapshot: Option<String>) -> Result<Vm, Failure> {
    let Some(snapshot) = snapshot else {
        let own = format!("for-{new}");
        vms.take_snapshot(TakeSnapshotRequest { vm: vm.clone(), name: own.clone() }).await?;
        let made = vms.clone(CloneRequest { vm: vm.clone(), snapshot: own.clone(), name: new }).await;
        let removed = vms.remove_snapshot(RemoveSnapshotRequest { vm, name: own }).await;
        let made = made?.into_inner();
        removed?;
        return Ok(made);
    };
    Ok(vms.clone(CloneRequest { vm, snapshot, name: new }).await?.into_inner())
}

fn as_json(snapshot: &Snapshot) -> Value {
    let Snapshot { vm, name, generation, taken } = snapshot;
    json!({"vm": vm, "name": name, "generation": generation, "taken": taken})
}
