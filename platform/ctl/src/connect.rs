//! The channel to vamosd: its Unix socket, or TCP with mutual TLS.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity, Uri};
use tower::service_fn;

use crate::cli::Endpoint;
use crate::failure::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to vamosd.
pub async fn connect(endpoint: &Endpoint) -> Result<Channel, Failure> {
    let connected = match &endpoint.tcp {
        Some(address) => tcp(endpoint, address).await,
        None => unix(&endpoint.socket).await,
    };
    connected.map_err(Failure::Unreachable)
}

async fn unix(socket: &Path) -> anyhow::Result<Channel> {
    // Try the path first: the reason of a failure ("no such file", "permission denied") is lost behind tonic's.
    let probe = UnixStream::connect(socket).await;
    probe.with_context(|| {
        format!(
            "connect to {} (is vamosd running, may this user enter the directory, is --socket right?)",
            socket.display()
        )
    })?;
    let path = socket.to_owned();
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The URI is never resolved: the connector above goes to the socket.
    Channel::from_static("http://vamosd")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("speak gRPC on {}", socket.display()))
}

async fn tcp(endpoint: &Endpoint, address: &str) -> anyhow::Result<Channel> {
    let read = |path: &Option<std::path::PathBuf>| {
        let path = path.as_deref().context("--tcp needs --ca, --cert and --key")?;
        std::fs::read(path).with_context(|| format!("read {}", path.display()))
    };
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&endpoint.ca)?))
        .identity(Identity::from_pem(read(&endpoint.cert)?, read(&endpoint.key)?));
    Channel::from_shared(format!("https://{address}"))
        .with_context(|| format!("read address {address:?}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tls_config(tls)
        .context("use the certificates")?
        .connect()
        .await
        .with_context(|| format!("connect to {address} with mutual TLS"))
}
