//! Where PostgreSQL clients come in: a Unix socket and, on loopback only, TCP ports.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::cancel::Cancels;
use super::connection::{self, Shared};
use super::error::PgError;
use super::wire::Wire;
use crate::databases::Databases;
use crate::limits::POSTGRES_CONNECTIONS_MAX;
use crate::shutdown::{self, Shutdown, Trigger};

/// How long a door rests that cannot accept, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a door is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port, which must be on loopback.
    Tcp(SocketAddr),
}

/// Why a door does not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The socket or its directory could not be made.
    #[error("open the PostgreSQL door {0}")]
    Socket(PathBuf, #[source] io::Error),
    /// Somebody else serves that socket.
    #[error("another server answers at {0}")]
    InUse(PathBuf),
    /// The TCP address could not be bound.
    #[error("open the PostgreSQL door at {0}")]
    Tcp(SocketAddr, #[source] io::Error),
    /// The address can be reached from other machines, and this door asks nobody for a password.
    #[error("{0} is not a loopback address: the PostgreSQL door has no passwords and stays in the guest")]
    NotLoopback(SocketAddr),
}

/// The open doors; all of them lead to all databases.
pub struct Doors {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    shutdown: Shutdown,
    open: BTreeMap<Address, Trigger>,
}

impl Doors {
    /// No door yet. Connections live until they end, or `shutdown` begins.
    pub fn new(databases: Arc<Databases>, shutdown: Shutdown) -> Self {
        let shared = Arc::new(Shared { databases, cancels: Arc::new(Cancels::default()) });
        let places = Arc::new(Semaphore::new(POSTGRES_CONNECTIONS_MAX));
        Self { shared, places, shutdown, open: BTreeMap::new() }
    }

    /// Closes the doors that are not in `wanted` and opens those that are new there. Connections made through
    /// a closed door stay. Needs a tokio runtime.
    ///
    /// # Errors
    /// The first [`DoorError`]; the other doors are open.
    pub async fn update(&mut self, wanted: &[Address]) -> Result<(), DoorError> {
        let gone: Vec<Address> =
            self.open.keys().filter(|address| !wanted.contains(address)).cloned().collect();
        for address in gone {
            self.close(&address).await;
        }
        let mut outcome = Ok(());
        for address in wanted {
            if self.open.contains_key(address) {
                continue;
            }
            match Listener::open(address).await {
                Ok(listener) => {
                    let (trigger, closing) = shutdown::channel();
                    tokio::spawn(self.serve(listener, closing));
                    self.open.insert(address.clone(), trigger);
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// Closes every door and waits until their sockets are gone.
    pub async fn close_all(&mut self) {
        let all: Vec<Address> = self.open.keys().cloned().collect();
        for address in all {
            self.close(&address).await;
        }
    }

    async fn close(&mut self, address: &Address) {
        if let Some(trigger) = self.open.remove(address) {
            trigger.begin();
            trigger.done().await;
        }
    }

    fn serve(&self, listener: Listener, mut closing: Shutdown) -> impl Future<Output = ()> + Send + use<> {
        let (shared, places, shutdown) =
            (Arc::clone(&self.shared), Arc::clone(&self.places), self.shutdown.clone());
        async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = closing.begun() => break,
                };
                match accepted {
                    Ok(client) => admit(client, &shared, &places, &shutdown),
                    Err(error) => {
                        tracing::warn!(%error, "could not accept a client");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
            // The socket goes before `closing`, which says that it has.
            drop(listener);
            drop(closing);
        }
    }
}

/// What connections come over.
trait Client: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Client for T {}

/// Serves a client, or sends it away when there are too many.
fn admit(client: Box<dyn Client>, shared: &Arc<Shared>, places: &Arc<Semaphore>, shutdown: &Shutdown) {
    let (shared, shutdown) = (Arc::clone(shared), shutdown.clone());
    match Arc::clone(places).try_acquire_owned() {
        Ok(place) => {
            tokio::spawn(async move {
                connection::serve(client, shared, shutdown).await;
                drop(place);
            });
        }
        Err(_) => {
            tokio::spawn(async move {
                let mut wire = Wire::new(client);
                wire.put_error(&PgError::fatal("53300", "sorry, too many clients already"), None);
                wire.close().await;
            });
        }
    }
}

enum Listener {
    Unix(UnixListener, #[expect(dead_code, reason = "removes the socket when it is dropped")] SocketFile),
    Tcp(TcpListener),
}

impl Listener {
    async fn open(address: &Address) -> Result<Self, DoorError> {
        match address {
            Address::Unix(path) => Self::unix(path).await,
            Address::Tcp(address) if !address.ip().is_loopback() => Err(DoorError::NotLoopback(*address)),
            Address::Tcp(address) => {
                let listener = TcpListener::bind(address).await;
                listener.map(Listener::Tcp).map_err(|error| DoorError::Tcp(*address, error))
            }
        }
    }

    async fn unix(path: &Path) -> Result<Self, DoorError> {
        let failed = |error| DoorError::Socket(path.to_owned(), error);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        remove_stale(path).await?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let file = SocketFile(path.to_owned());
        // As PostgreSQL does: every user of the guest may come in.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).map_err(failed)?;
        Ok(Listener::Unix(listener, file))
    }

    async fn accept(&self) -> io::Result<Box<dyn Client>> {
        match self {
            Listener::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Replies are written whole: waiting to fill a segment would only delay them.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// Removes a socket that was left behind; one that somebody serves stays.
async fn remove_stale(path: &Path) -> Result<(), DoorError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let error =
                io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is not a socket");
            return Err(DoorError::Socket(path.to_owned(), error));
        }
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(DoorError::InUse(path.to_owned()));
    }
    std::fs::remove_file(path).map_err(|error| DoorError::Socket(path.to_owned(), error))
}

/// A socket in the file system, removed with the door.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "could not remove a socket");
        }
    }
}
