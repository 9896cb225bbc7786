//! `vamosctl vm ...`

use serde_json::{Value, json};
use tonic::transport::Channel;
use vamos_proto::control::vms_client::VmsClient;
use vamos_proto::control::{
    self as proto, CreateVmRequest, DeleteVmRequest, ListVmsRequest, StatsRequest, Volume,
};

use super::snapshot;
use crate::attach_args::{attach_args, incoming_args};
use crate::cli::{Vm, Vmm};
use crate::failure::Failure;
use crate::output::{self, print};
use crate::table::{pairs, table};

/// Runs one verb.
pub async fn run(channel: Channel, verb: Vm, json: bool) -> Result<(), Failure> {
    let mut vms = VmsClient::new(channel);
    match verb {
        Vm::Create { name, cid, volume_class, volume_path } => {
            let volume = Some(Volume { class: volume_class, path: volume_path });
            let vm = vms.create(CreateVmRequest { name, cid, volume }).await?.into_inner();
            show(&vm, json);
        }
        Vm::List => list(&vms.list(ListVmsRequest {}).await?.into_inner().vms, json),
        Vm::Show { name } => show(&find(&mut vms, name).await?, json),
        Vm::Delete { name, purge } => {
            vms.delete(DeleteVmRequest { name: name.clone(), purge }).await?;
            let text =
                if purge { format!("{name} and its volume are gone\n") } else { format!("{name} is gone\n") };
            print(json, &json!({"deleted": name, "purged": purge}), &text);
        }
        Vm::Stats { name, every } => stats(&mut vms, name, every, json).await?,
        Vm::Snapshot { name, snapshot, guest } => {
            snapshot::take(&mut vms, name, snapshot, guest, json).await?
        }
        Vm::Snapshots { name } => snapshot::list(&mut vms, name, json).await?,
        Vm::RemoveSnapshot { name, snapshot } => snapshot::remove(&mut vms, name, snapshot, json).await?,
        Vm::Restore { name, snapshot, guest } => {
            show(&snapshot::restore(&mut vms, name, snapshot, guest).await?, json);
        }
        Vm::Clone { name, new, snapshot } => {
            show(&snapshot::clone(&mut vms, name, new, snapshot).await?, json);
        }
        Vm::AttachArgs { vmm: Vmm::Qemu, memory, incoming: true, .. } => {
            print_args(&incoming_args(&memory), json);
        }
        Vm::AttachArgs { incoming: true, .. } => {
            return Err(Failure::Vmm("only QEMU can await a VM from another host".to_owned()));
        }
        Vm::AttachArgs { name, vmm, memory, .. } => {
            let vm = find(&mut vms, name).await?;
            print_args(&attach_args(vmm, &vm.socket, &memory), json);
        }
    }
    Ok(())
}

async fn find(vms: &mut VmsClient<Channel>, name: String) -> Result<proto::Vm, Failure> {
    Ok(vms.get(proto::GetVmRequest { name }).await?.into_inner())
}

fn list(vms: &[proto::Vm], json: bool) {
    let row = |vm: &proto::Vm| {
        vec![
            vm.name.clone(),
            vm.cid.to_string(),
            output::state(vm).to_owned(),
            vm.cell_pid.to_string(),
            vm.detail.clone(),
        ]
    };
    let text = table(&["name", "cid", "state", "cell", "detail"], &vms.iter().map(row).collect::<Vec<_>>());
    print(json, &Value::Array(vms.iter().map(output::vm).collect()), &text);
}

fn show(vm: &proto::Vm, json: bool) {
    let missing: Vec<&str> =
        vm.sandbox.iter().filter(|layer| !layer.applied).map(|layer| layer.name.as_str()).collect();
    let sandbox = match (vm.sandbox.is_empty(), missing.is_empty()) {
        (true, _) => "not entered yet".to_owned(),
        (false, true) => format!("all {} layers", vm.sandbox.len()),
        (false, false) => format!("MISSING {}", missing.join(", ")),
    };
    let text = pairs(&[
        ("name", vm.name.clone()),
        ("cid", vm.cid.to_string()),
        ("generation", vm.generation.to_string()),
        ("state", output::state(vm).to_owned()),
        ("detail", vm.detail.clone()),
        ("socket", vm.socket.clone()),
        ("volume", format!("{} ({})", vm.volume, vm.volume_class)),
        ("cell", format!("pid {}, uid {}, started {} times", vm.cell_pid, vm.cell_uid, vm.cell_starts)),
        ("sandbox", sandbox),
        ("declared", if vm.declared { "in vamos.toml" } else { "no" }.to_owned()),
    ]);
    print(json, &output::vm(vm), &text);
}

async fn stats(
    vms: &mut VmsClient<Channel>,
    name: String,
    every: Option<humantime::Duration>,
    json: bool,
) -> Result<(), Failure> {
    let interval_ms = every.map_or(0, |every| every.as_millis().try_into().unwrap_or(u64::MAX).max(1));
    let mut readings = vms.stats(StatsRequest { name, interval_ms }).await?.into_inner();
    while let Some(reading) = readings.message().await? {
        let counters = output::counters(&reading.counters.unwrap_or_default());
        let text: Vec<(&str, String)> =
            counters.iter().map(|(name, value)| (*name, value.to_string())).collect();
        print(json, &output::stats(&reading), &pairs(&text));
    }
    Ok(())
}

fn print_args(args: &[String], json: bool) {
    print(json, &json!(args), &format!("{}\n", args.join(" ")));
}
