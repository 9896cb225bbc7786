//! `Vms`: create, look at, delete, watch.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use tokio::time::sleep;
use tonic::{Request, Response, Status, async_trait};
use vamos_proto::control::vms_server::Vms;
use vamos_proto::control::{
    CloneRequest, CreateVmRequest, DeleteVmRequest, DeleteVmResponse, GetVmRequest, ListSnapshotsRequest,
    ListSnapshotsResponse, ListVmsRequest, ListVmsResponse, RemoveSnapshotRequest, RemoveSnapshotResponse,
    RestoreRequest, Snapshot, StatsRequest, TakeSnapshotRequest, Vm, VmStats,
};
use vamos_proto::id::{GuestCid, VmId};

use super::super::status;
use super::{Api, snapshot, snapshot_name, vm, vm_name, volume_of};
use crate::limits::STATS_INTERVAL_MIN;
use crate::platform::Platform;

#[async_trait]
impl Vms for Api {
    async fn create(&self, request: Request<CreateVmRequest>) -> Result<Response<Vm>, Status> {
        let CreateVmRequest { name, cid, volume } = request.into_inner();
        let volume = volume_of(volume)?;
        let cid = (cid != 0).then_some(GuestCid(cid));
        let created = self.platform.create_vm(vm_name(name)?, cid, volume).await.map_err(status::of)?;
        Ok(Response::new(vm(created)))
    }

    async fn get(&self, request: Request<GetVmRequest>) -> Result<Response<Vm>, Status> {
        let name = vm_name(request.into_inner().name)?;
        Ok(Response::new(vm(self.platform.vm(name).await.map_err(status::of)?)))
    }

    async fn list(&self, _: Request<ListVmsRequest>) -> Result<Response<ListVmsResponse>, Status> {
        let vms = self.platform.vms().await.map_err(status::of)?;
        Ok(Response::new(ListVmsResponse { vms: vms.into_iter().map(vm).collect() }))
    }

    async fn delete(&self, request: Request<DeleteVmRequest>) -> Result<Response<DeleteVmResponse>, Status> {
        let DeleteVmRequest { name, purge } = request.into_inner();
        self.platform.delete_vm(vm_name(name)?, purge).await.map_err(status::of)?;
        Ok(Response::new(DeleteVmResponse {}))
    }

    async fn take_snapshot(
        &self,
        request: Request<TakeSnapshotRequest>,
    ) -> Result<Response<Snapshot>, Status> {
        let TakeSnapshotRequest { vm, name } = request.into_inner();
        let (vm, name) = (vm_name(vm)?, snapshot_name(name)?);
        let taken = self.platform.take_snapshot(&vm, name).await.map_err(status::of)?;
        Ok(Response::new(snapshot(taken)))
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let vm = vm_name(request.into_inner().vm)?;
        let snapshots = self.platform.snapshots_of(&vm).await.map_err(status::of)?;
        Ok(Response::new(ListSnapshotsResponse { snapshots: snapshots.into_iter().map(snapshot).collect() }))
    }

    async fn remove_snapshot(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<RemoveSnapshotResponse>, Status> {
        let RemoveSnapshotRequest { vm, name } = request.into_inner();
        let (vm, name) = (vm_name(vm)?, snapshot_name(name)?);
        self.platform.remove_snapshot(&vm, name).await.map_err(status::of)?;
        Ok(Response::new(RemoveSnapshotResponse {}))
    }

    async fn restore(&self, request: Request<RestoreRequest>) -> Result<Response<Vm>, Status> {
        let RestoreRequest { vm: name, snapshot } = request.into_inner();
        let (name, snapshot) = (vm_name(name)?, snapshot_name(snapshot)?);
        Ok(Response::new(vm(self.platform.restore_vm(&name, snapshot).await.map_err(status::of)?)))
    }

    async fn clone(&self, request: Request<CloneRequest>) -> Result<Response<Vm>, Status> {
        let CloneRequest { vm: source, snapshot, name } = request.into_inner();
        let (source, snapshot, name) = (vm_name(source)?, snapshot_name(snapshot)?, vm_name(name)?);
        Ok(Response::new(vm(self.platform.clone_vm(&source, name, snapshot).await.map_err(status::of)?)))
    }

    type StatsStream = Pin<Box<dyn Stream<Item = Result<VmStats, Status>> + Send>>;

    async fn stats(&self, request: Request<StatsRequest>) -> Result<Response<Self::StatsStream>, Status> {
        let StatsRequest { name, interval_ms } = request.into_inner();
        let (name, platform) = (vm_name(name)?, self.platform.clone());
        // A VM that does not exist is an error of the request, not of its stream.
        let first = sample(&platform, &name).await?;
        let interval = (interval_ms > 0).then(|| Duration::from_millis(interval_ms).max(STATS_INTERVAL_MIN));
        let samples = unfold(Some((Some(first), platform)), move |state| {
            let name = name.clone();
            async move {
                let (first, platform) = state?;
                if let Some(first) = first {
                    return Some((Ok(first), interval.map(|_| (None, platform))));
                }
                let ending = platform.ending();
                tokio::select! {
                    () = sleep(interval?) => {}
                    () = ending.cancelled() => return None,
                }
                let next = sample(&platform, &name).await;
                let going_on = next.is_ok().then_some((None, platform));
                Some((next, going_on))
            }
        });
        Ok(Response::new(Box::pin(samples)))
    }
}

async fn sample(platform: &Platform, name: &VmId) -> Result<VmStats, Status> {
    let counters = platform.stats(name).await.map_err(status::of)?;
    let at_ms = u64::try_from(platform.since().elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(VmStats { name: name.to_string(), at_ms, counters: Some(counters) })
}
