//! `Edge`: routes, certificates, what was counted.

use tonic::{Request, Response, Status, async_trait};
use vamos_proto::control::edge_server::Edge;
use vamos_proto::control::{
    Certificate, EdgeStats, EdgeStatsRequest, ListCertificatesRequest, ListCertificatesResponse,
    ListRoutesRequest, ListRoutesResponse, PurgeRequest, PurgeResponse, RemoveCertificateRequest,
    RemoveCertificateResponse, RemoveRouteRequest, RemoveRouteResponse, Route, SetCertificateRequest,
    purge_request,
};
use vamos_proto::edge;

use super::super::status::{self, invalid};
use super::{Api, vm_name};
use crate::config::check_route;
use crate::limits::CERTIFICATE_BYTES_MAX;
use crate::names::SnapshotName;
use crate::registry::{CertificateRow, RouteRow};

#[async_trait]
impl Edge for Api {
    async fn set_route(&self, request: Request<edge::Route>) -> Result<Response<Route>, Status> {
        let mut wanted = request.into_inner();
        check_route(&mut wanted).map_err(Status::invalid_argument)?;
        let row = self.platform.set_route(wanted).await.map_err(status::of)?;
        Ok(Response::new(route(row)))
    }

    async fn remove_route(
        &self,
        request: Request<RemoveRouteRequest>,
    ) -> Result<Response<RemoveRouteResponse>, Status> {
        let RemoveRouteRequest { host, prefix } = request.into_inner();
        self.platform.remove_route(host, prefix).await.map_err(status::of)?;
        Ok(Response::new(RemoveRouteResponse {}))
    }

    async fn list_routes(
        &self,
        _: Request<ListRoutesRequest>,
    ) -> Result<Response<ListRoutesResponse>, Status> {
        let rows = self.platform.routes().await.map_err(status::of)?;
        Ok(Response::new(ListRoutesResponse { routes: rows.into_iter().map(route).collect() }))
    }

    async fn set_certificate(
        &self,
        request: Request<SetCertificateRequest>,
    ) -> Result<Response<Certificate>, Status> {
        let SetCertificateRequest { name, chain, key } = request.into_inner();
        // The same characters as a snapshot's name, or the path of its file.
        let named = name.trim_start_matches('/').split('/').all(|part| SnapshotName::new(part).is_ok());
        if !named {
            return Err(Status::invalid_argument(format!(
                "{name:?} is not a certificate's name: use letters, digits, '.', '_', '-' and '/'"
            )));
        }
        if [&chain, &key].iter().any(|text| text.len() as u64 > CERTIFICATE_BYTES_MAX) {
            let what = format!("a chain and a key have at most {CERTIFICATE_BYTES_MAX} bytes each");
            return Err(invalid(what));
        }
        let row = CertificateRow { name, chain, key, declared: false };
        self.platform.set_certificate(row.clone()).await.map_err(status::of)?;
        Ok(Response::new(certificate(row)))
    }

    async fn remove_certificate(
        &self,
        request: Request<RemoveCertificateRequest>,
    ) -> Result<Response<RemoveCertificateResponse>, Status> {
        self.platform.remove_certificate(request.into_inner().name).await.map_err(status::of)?;
        Ok(Response::new(RemoveCertificateResponse {}))
    }

    async fn list_certificates(
        &self,
        _: Request<ListCertificatesRequest>,
    ) -> Result<Response<ListCertificatesResponse>, Status> {
        let rows = self.platform.certificates().await.map_err(status::of)?;
        let certificates = rows.into_iter().map(certificate).collect();
        Ok(Response::new(ListCertificatesResponse { certificates }))
    }

    async fn purge(&self, request: Request<PurgeRequest>) -> Result<Response<PurgeResponse>, Status> {
        let PurgeRequest { vm, service, what } = request.into_inner();
        let vm = vm_name(vm)?.to_string();
        let what = match what {
            Some(purge_request::What::Url(url)) => edge::purge::What::Url(url),
            Some(purge_request::What::Tag(tag)) => edge::purge::What::Tag(tag),
            Some(purge_request::What::All(true)) => edge::purge::What::All(true),
            _ => return Err(Status::invalid_argument("say what to purge: a url, a tag, or all")),
        };
        let purge = edge::Purge { request: 0, vm, binding: service, what: Some(what) };
        self.platform.purge(purge).await.map_err(status::of)?;
        Ok(Response::new(PurgeResponse {}))
    }

    async fn stats(&self, _: Request<EdgeStatsRequest>) -> Result<Response<EdgeStats>, Status> {
        let status = self.platform.edge_status().await.map_err(status::of)?;
        Ok(Response::new(EdgeStats {
            pid: status.pid,
            starts: status.starts,
            listeners: status.listeners.iter().map(ToString::to_string).collect(),
            stats: Some(status.stats),
        }))
    }
}

fn route(row: RouteRow) -> Route {
    Route { route: Some(row.route), declared: row.declared }
}

/// Its key stays here.
fn certificate(row: CertificateRow) -> Certificate {
    Certificate { name: row.name, chain: row.chain, declared: row.declared }
}
