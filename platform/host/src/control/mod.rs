//! The control plane: gRPC on a Unix socket for the uids that are allowed, and on TCP for clients with a
//! certificate when that is configured.
//!
//! Knows nothing of cells or messages: it checks what it is asked, has the platform do it, and says how it went.

mod listen;
mod services;
mod status;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::{InterceptorLayer, Routes};
use tonic::transport::server::{Server, UdsConnectInfo};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic::{Request, Status};
use tracing::{error, info};
use vamos_proto::control::DESCRIPTORS;
use vamos_proto::control::bindings_server::BindingsServer;
use vamos_proto::control::edge_server::EdgeServer;
use vamos_proto::control::host_server::HostServer;
use vamos_proto::control::migrations_server::MigrationsServer;
use vamos_proto::control::services_server::ServicesServer;
use vamos_proto::control::vms_server::VmsServer;
use vamos_sandbox::inherited::Inherited;

use crate::config::{Control, Tcp};
use crate::limits::{
    CONTROL_DEADLINE_MAX, CONTROL_MESSAGE_BYTES_MAX, CONTROL_STREAMS_MAX, MIGRATION_MESSAGE_BYTES_MAX,
};
use crate::platform::Platform;
use services::Api;

/// Why the control plane cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A socket or a file.
    #[error("{action} {place}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        place: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// gRPC itself.
    #[error("set up the control plane: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors of this build.
    #[error("set up reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Names of the listeners that pass from program to program.
const UNIX: &str = "control";
const TCP: &str = "control-tcp";

/// A control plane that is bound and not yet served.
pub struct ControlPlane {
    unix: UnixListener,
    tcp: Option<(TcpListener, ServerTlsConfig)>,
    allowed: BTreeSet<u32>,
    routes: Routes,
}

impl ControlPlane {
    /// Binds every listener.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn bind(
        control: &Control,
        socket: &Path,
        platform: Arc<Platform>,
        mut inherited: Inherited,
    ) -> Result<Self, ControlError> {
        let mut allowed = control.allowed_uids.clone();
        allowed.extend([0, rustix::process::geteuid().as_raw()]);
        let tcp = match &control.tcp {
            Some(tcp) => Some(bind_tcp(tcp, inherited.remove(TCP)).await?),
            None => None,
        };
        let place = socket.display().to_string();
        let failed = |action| move |source| ControlError::Io { action, place, source };
        let unix = match inherited.remove(UNIX) {
            Some(fd) => {
                let listener = net::UnixListener::from(fd);
                listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener))
            }
            None => {
                // Of a predecessor that was killed; the lock says that it is dead.
                let _ = fs::remove_file(socket);
                UnixListener::bind(socket)
            }
        };
        let unix = unix.map_err(failed("bind"))?;
        let place = socket.display().to_string();
        let failed = |action| move |source| ControlError::Io { action, place, source };
        fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(failed("protect"))?;
        Ok(Self { unix, tcp, allowed, routes: routes(platform).await? })
    }

    /// Duplicates of the listeners, for a program that follows this one.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn listeners(&self) -> io::Result<Inherited> {
        let mut listeners = Inherited::default();
        listeners.insert(UNIX, self.unix.as_fd().try_clone_to_owned()?);
        if let Some((tcp, _)) = &self.tcp {
            listeners.insert(TCP, tcp.as_fd().try_clone_to_owned()?);
        }
        Ok(listeners)
    }

    /// Serves until `ending` is cancelled and the open requests are answered.
    pub async fn serve(self, ending: CancellationToken) {
        let mut servers = JoinSet::new();
        let (routes, allowed) = (self.routes.clone(), Arc::new(self.allowed));
        let check = InterceptorLayer::new(move |request: Request<()>| check_peer(&allowed, request));
        let ended = ending.clone().cancelled_owned();
        let local = server().layer(check).add_routes(routes);
        servers.spawn(local.serve_with_incoming_shutdown(listen::connections(self.unix), ended));
        if let Some((listener, tls)) = self.tcp {
            match server().tls_config(tls) {
                Ok(mut server) => {
                    let ended = ending.cancelled_owned();
                    let remote = server.add_routes(self.routes);
                    servers.spawn(remote.serve_with_incoming_shutdown(listen::connections(listener), ended));
                }
                Err(error) => error!(%error, "the control plane is not served over TCP"),
            }
        }
        while let Some(ended) = servers.join_next().await {
            if let Ok(Err(error)) = ended {
                error!(%error, "a listener of the control plane ended");
            }
        }
    }
}

fn server() -> Server {
    Server::builder().timeout(CONTROL_DEADLINE_MAX).max_concurrent_streams(CONTROL_STREAMS_MAX)
}

async fn routes(platform: Arc<Platform>) -> Result<Routes, ControlError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<VmsServer<Api>>().await;
    reporter.set_serving::<ServicesServer<Api>>().await;
    reporter.set_serving::<BindingsServer<Api>>().await;
    reporter.set_serving::<HostServer<Api>>().await;
    reporter.set_serving::<EdgeServer<Api>>().await;
    reporter.set_serving::<MigrationsServer<Api>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let api = Arc::new(Api::new(platform));
    Ok(Routes::new(health)
        .add_service(reflection)
        .add_service(VmsServer::from_arc(api.clone()).max_decoding_message_size(CONTROL_MESSAGE_BYTES_MAX))
        .add_service(
            ServicesServer::from_arc(api.clone()).max_decoding_message_size(CONTROL_MESSAGE_BYTES_MAX),
        )
        .add_service(
            BindingsServer::from_arc(api.clone()).max_decoding_message_size(CONTROL_MESSAGE_BYTES_MAX),
        )
        .add_service(EdgeServer::from_arc(api.clone()).max_decoding_message_size(CONTROL_MESSAGE_BYTES_MAX))
        .add_service(
            MigrationsServer::from_arc(api.clone()).max_decoding_message_size(MIGRATION_MESSAGE_BYTES_MAX),
        )
        .add_service(HostServer::from_arc(api).max_decoding_message_size(CONTROL_MESSAGE_BYTES_MAX)))
}

/// The socket's mode keeps others out; this holds if the mode is changed or the socket passed on.
fn check_peer(allowed: &BTreeSet<u32>, request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    match peer {
        Some(credentials) if allowed.contains(&credentials.uid()) => Ok(request),
        Some(credentials) => Err(Status::permission_denied(format!(
            "uid {} may not use the control plane; run as root, or add the uid to control.allowed_uids in vamos.toml",
            credentials.uid()
        ))),
        None => {
            Err(Status::permission_denied("the client's uid is not known; use the Unix socket of vamosd"))
        }
    }
}

async fn bind_tcp(
    tcp: &Tcp,
    inherited: Option<OwnedFd>,
) -> Result<(TcpListener, ServerTlsConfig), ControlError> {
    let read = |path: &PathBuf| {
        fs::read(path).map_err(|source| ControlError::Io {
            action: "read",
            place: path.display().to_string(),
            source,
        })
    };
    let identity = Identity::from_pem(read(&tcp.certificate)?, read(&tcp.key)?);
    let authority = Certificate::from_pem(read(&tcp.client_authority)?);
    let tls = ServerTlsConfig::new().identity(identity).client_ca_root(authority).client_auth_optional(false);
    let listener = match inherited {
        Some(fd) => {
            let listener = std::net::TcpListener::from(fd);
            listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener))
        }
        None => TcpListener::bind(tcp.listen).await,
    };
    let listener = listener.map_err(|source| ControlError::Io {
        action: "bind",
        place: tcp.listen.to_string(),
        source,
    })?;
    info!(listen = %tcp.listen, "control plane over TCP, for clients with a certificate");
    Ok((listener, tls))
}
