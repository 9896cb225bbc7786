//! `Host`: drain, discard, upgrade, shut down, examine.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tonic::{Request, Response, Status, async_trait};
use tracing::info;
use vamos_proto::control::host_server::Host;
use vamos_proto::control::{
    DiscardRequest, DiscardResponse, DoctorRequest, DoctorResponse, DrainRequest, DrainResponse,
    ShutdownRequest, ShutdownResponse, UpgradeRequest, UpgradeResponse,
};
use vamos_proto::id::VmId;

use super::super::status::{self, invalid};
use super::{Api, vm_name};
use crate::doctor;
use crate::limits::{DRAIN_DEFAULT, DRAIN_MAX, UPGRADE_DELAY};

#[async_trait]
impl Host for Api {
    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        let DrainRequest { name, deadline_ms } = request.into_inner();
        let drain = if deadline_ms == 0 { DRAIN_DEFAULT } else { Duration::from_millis(deadline_ms) };
        if drain > DRAIN_MAX {
            return Err(invalid(format!(
                "a drain of {drain:?} is too long, at most {DRAIN_MAX:?} are possible"
            )));
        }
        let names = if name.is_empty() { self.names().await? } else { vec![vm_name(name)?] };
        let each = names.iter().map(|name| self.platform.replace_cell(name, Some(drain)));
        futures::future::try_join_all(each).await.map_err(status::of)?;
        Ok(Response::new(DrainResponse { drained: names.iter().map(VmId::to_string).collect() }))
    }

    async fn discard(&self, request: Request<DiscardRequest>) -> Result<Response<DiscardResponse>, Status> {
        let name = vm_name(request.into_inner().name)?;
        self.platform.replace_cell(&name, None).await.map_err(status::of)?;
        Ok(Response::new(DiscardResponse {}))
    }

    async fn upgrade(&self, _: Request<UpgradeRequest>) -> Result<Response<UpgradeResponse>, Status> {
        info!("an upgrade was asked for over the control plane");
        let platform = self.platform.clone();
        tokio::spawn(async move {
            // The answer goes first.
            sleep(UPGRADE_DELAY).await;
            platform.upgrade();
        });
        Ok(Response::new(UpgradeResponse {}))
    }

    async fn shutdown(&self, _: Request<ShutdownRequest>) -> Result<Response<ShutdownResponse>, Status> {
        info!("shutdown was asked for over the control plane");
        self.platform.ending().cancel();
        Ok(Response::new(ShutdownResponse {}))
    }

    async fn doctor(&self, _: Request<DoctorRequest>) -> Result<Response<DoctorResponse>, Status> {
        let checks = spawn_blocking(|| doctor::examine(None)).await;
        let checks = checks.map_err(|error| Status::internal(format!("examine the host: {error}")))?;
        Ok(Response::new(DoctorResponse { checks }))
    }
}

impl Api {
    async fn names(&self) -> Result<Vec<VmId>, Status> {
        Ok(self.platform.vms().await.map_err(status::of)?.into_iter().map(|view| view.row.name).collect())
    }
}
