//! `Bindings`: bind, unbind, list.

use tonic::{Request, Response, Status, async_trait};
use vamos_proto::control::bindings_server::Bindings;
use vamos_proto::control::{
    BindRequest, Binding, ListBindingsRequest, ListBindingsResponse, UnbindRequest, UnbindResponse,
};

use super::super::status::{self, invalid};
use super::{Api, binding, service_name, vm_name};
use crate::config::check_door;
use crate::registry::Terms;

#[async_trait]
impl Bindings for Api {
    async fn bind(&self, request: Request<BindRequest>) -> Result<Response<Binding>, Status> {
        let BindRequest { vm, service, door, policy, quota } = request.into_inner();
        let door = door.into_iter().collect();
        check_door(&door).map_err(invalid)?;
        let terms = Terms { door, policy: policy.unwrap_or_default(), quota: quota.unwrap_or_default() };
        let row =
            self.platform.bind(vm_name(vm)?, service_name(service)?, terms).await.map_err(status::of)?;
        Ok(Response::new(binding(row)))
    }

    async fn unbind(&self, request: Request<UnbindRequest>) -> Result<Response<UnbindResponse>, Status> {
        let UnbindRequest { vm, service } = request.into_inner();
        self.platform.unbind(vm_name(vm)?, service_name(service)?).await.map_err(status::of)?;
        Ok(Response::new(UnbindResponse {}))
    }

    async fn list(
        &self,
        request: Request<ListBindingsRequest>,
    ) -> Result<Response<ListBindingsResponse>, Status> {
        let vm = request.into_inner().vm;
        let vm = if vm.is_empty() { None } else { Some(vm_name(vm)?) };
        let rows = self.platform.bindings(vm).await.map_err(status::of)?;
        Ok(Response::new(ListBindingsResponse { bindings: rows.into_iter().map(binding).collect() }))
    }
}
