//! What the edge serves: changed in the registry first, and in the edge with it.

use vamos_proto::edge::{Certificate, Configure, Purge, Route};

use super::{Platform, PlatformError};
use crate::edge::{Edge, EdgeError, Status};
use crate::registry::{CertificateRow, Registry, RegistryError, RouteRow};

impl Platform {
    fn edge(&self) -> Result<&Edge, PlatformError> {
        Ok(self.edge.as_ref().ok_or(EdgeError::NotHere)?)
    }

    /// Tells the edge all routes and certificates.
    pub(super) async fn tell_edge(&self) -> Result<(), PlatformError> {
        let edge = self.edge()?;
        let (routes, certificates) =
            self.registry(|registry| Ok((registry.routes()?, registry.certificates()?))).await?;
        Ok(edge.configure(configure(routes, certificates)).await?)
    }

    /// Makes a change if the edge can use what comes of it.
    async fn publish(
        &self,
        change: impl FnOnce(&mut Registry) -> Result<(), RegistryError> + Send + 'static,
    ) -> Result<(), PlatformError> {
        let edge = self.edge()?;
        let _turn = self.edge_changes.lock().await;
        let before = self.registry(|registry| Ok((registry.routes()?, registry.certificates()?))).await?;
        self.registry(move |registry| registry.atomically(change)).await?;
        let told = self.tell_edge().await;
        if let Err(PlatformError::Edge(EdgeError::Says(_))) = &told {
            // What it refuses must not be what the next one starts with.
            let (routes, certificates) = before;
            self.registry(move |registry| {
                registry.atomically(|registry| registry.publish_only(&routes, &certificates))
            })
            .await?;
        }
        if let Err(PlatformError::Edge(EdgeError::None)) = &told {
            // The next one is told.
            edge.started().await;
            return Ok(());
        }
        told
    }

    /// Adds a route, or changes the one of its host and prefix.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn set_route(&self, route: Route) -> Result<RouteRow, PlatformError> {
        let row = RouteRow { route: route.clone(), declared: false };
        self.publish(move |registry| registry.set_route(&route, false)).await?;
        Ok(row)
    }

    /// Removes a route.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn remove_route(&self, host: String, prefix: String) -> Result<(), PlatformError> {
        self.publish(move |registry| registry.remove_route(&host, &prefix)).await
    }

    /// Every route.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn routes(&self) -> Result<Vec<RouteRow>, PlatformError> {
        self.registry(|registry| registry.routes()).await
    }

    /// Adds a certificate, or replaces the one of its name.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn set_certificate(&self, row: CertificateRow) -> Result<(), PlatformError> {
        self.publish(move |registry| registry.set_certificate(&row)).await
    }

    /// Removes a certificate.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn remove_certificate(&self, name: String) -> Result<(), PlatformError> {
        self.publish(move |registry| registry.remove_certificate(&name)).await
    }

    /// Every certificate.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn certificates(&self) -> Result<Vec<CertificateRow>, PlatformError> {
        self.registry(|registry| registry.certificates()).await
    }

    /// Removes what is kept of a target's answers.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn purge(&self, purge: Purge) -> Result<(), PlatformError> {
        Ok(self.edge()?.purge(purge).await?)
    }

    /// What the edge is doing.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn edge_status(&self) -> Result<Status, PlatformError> {
        Ok(self.edge()?.stats().await?)
    }
}

pub(super) fn configure(routes: Vec<RouteRow>, certificates: Vec<CertificateRow>) -> Configure {
    let certificate = |row: CertificateRow| Certificate { chain: row.chain, key: row.key };
    Configure {
        request: 0,
        routes: routes.into_iter().map(|row| row.route).collect(),
        certificates: certificates.into_iter().map(certificate).collect(),
    }
}
