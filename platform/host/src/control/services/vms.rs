//! `Vms`: create, look at, delete, watch.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use tokio::time::sleep;
use tonic::{Request, Response, Status, async_trait};
use vamos_proto::control::vms_server::Vms;
use vamos_proto::control::{
    CreateVmRequest, DeleteVmRequest, DeleteVmResponse, GetVmRequest, ListVmsRequest, ListVmsResponse,
    StatsRequest, Vm, VmStats,
};
use vamos_proto::id::{GuestCid, VmId};

use super::super::status;
use super::{Api, vm, vm_name};
use crate::limits::STATS_INTERVAL_MIN;
use crate::platform::Platform;

#[async_trait]
impl Vms for Api {
    async fn create(&self, request: Request<CreateVmRequest>) -> Result<Response<Vm>, Status> {
        let CreateVmRequest { name, cid } = request.into_inner();
        let cid = (cid != 0).then_some(GuestCid(cid));
        let created = self.platform.create_vm(vm_name(name)?, cid).await.map_err(status::of)?;
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
