//! `Services`: register, list, remove.

use tonic::{Request, Response, Status, async_trait};
use vamos_proto::control::services_server::Services;
use vamos_proto::control::{
    ListServicesRequest, ListServicesResponse, RegisterServiceRequest, RemoveServiceRequest,
    RemoveServiceResponse, Service,
};

use super::super::status::{self, invalid};
use super::{Api, service, service_name};
use crate::names::ServiceKind;

#[async_trait]
impl Services for Api {
    async fn register(&self, request: Request<RegisterServiceRequest>) -> Result<Response<Service>, Status> {
        let RegisterServiceRequest { name, kind } = request.into_inner();
        let kind = ServiceKind::new(&kind).map_err(invalid)?;
        let row = self.platform.register_service(service_name(name)?, kind).await.map_err(status::of)?;
        Ok(Response::new(service(row)))
    }

    async fn list(&self, _: Request<ListServicesRequest>) -> Result<Response<ListServicesResponse>, Status> {
        let rows = self.platform.services().await.map_err(status::of)?;
        Ok(Response::new(ListServicesResponse { services: rows.into_iter().map(service).collect() }))
    }

    async fn remove(
        &self,
        request: Request<RemoveServiceRequest>,
    ) -> Result<Response<RemoveServiceResponse>, Status> {
        let name = service_name(request.into_inner().name)?;
        self.platform.remove_service(name).await.map_err(status::of)?;
        Ok(Response::new(RemoveServiceResponse {}))
    }
}
