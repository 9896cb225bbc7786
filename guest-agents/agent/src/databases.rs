//! The databases a guest may use: its `sql` bindings by name, and a link to each that is used.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use vamos_link::Channel;
use vamos_proto::hello::Binding;
use vamos_proto::id::VsockPort;
use vamos_sql_client::{Client, ClientError, Dial, Dialing, Duplex};

/// Kind of the bindings this is about.
const KIND: &str = "sql";

/// How a stream to a binding's port comes about.
pub trait Connect: Send + Sync {
    /// Opens a stream to the service on `port`.
    fn connect(&self, port: VsockPort) -> Dialing<'_>;
}

impl Connect for Channel {
    fn connect(&self, port: VsockPort) -> Dialing<'_> {
        Box::pin(async move {
            let stream = self.open(port).await?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }
}

/// The way to the host, which may be another one after a while.
type Host = Arc<Mutex<Arc<dyn Connect>>>;

/// One port of the host, whichever way leads there at the moment.
struct HostPort {
    host: Host,
    port: VsockPort,
}

impl Dial for HostPort {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async move {
            let host = Arc::clone(&self.host.lock().unwrap_or_else(PoisonError::into_inner));
            host.connect(self.port).await
        })
    }
}

/// The databases, shared by all front doors.
pub struct Databases {
    host: Host,
    known: Mutex<BTreeMap<String, Database>>,
}

struct Database {
    port: VsockPort,
    /// The link its sessions share, once there was one. One task at a time opens it.
    link: Arc<tokio::sync::Mutex<Option<Client>>>,
}

impl Databases {
    /// None yet: [`update`](Self::update) makes them known.
    pub fn new(host: impl Connect + 'static) -> Self {
        Self { host: Arc::new(Mutex::new(Arc::new(host))), known: Mutex::default() }
    }

    /// Reaches the host another way from now on: the one before is lost.
    pub fn reach(&self, host: impl Connect + 'static) {
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(host);
    }

    /// Takes the bindings of a Welcome. Links of bindings that are gone end with their last session.
    pub fn update(&self, bindings: &[Binding]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = bindings.iter().filter(|binding| binding.kind == KIND);
        let mut next: BTreeMap<String, Database> = BTreeMap::new();
        for binding in sql {
            let port = VsockPort(binding.port);
            let kept = known.remove(&binding.name).filter(|database| database.port == port);
            next.insert(
                binding.name.clone(),
                kept.unwrap_or_else(|| Database { port, link: Arc::default() }),
            );
        }
        *known = next;
    }

    /// The names, in order.
    pub fn names(&self) -> Vec<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// A link to that database: the shared one, or a new one if that is lost. `None` if there is no such
    /// database.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn link(&self, name: &str) -> Result<Option<Client>, ClientError> {
        let found = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(name).map(|database| (database.port, Arc::clone(&database.link)))
        };
        let Some((port, link)) = found else { return Ok(None) };
        let mut link = link.lock().await;
        if let Some(client) = link.as_ref().filter(|client| !client.is_ended()) {
            return Ok(Some(client.clone()));
        }
        *link = None;
        let client = Client::dial(Arc::new(HostPort { host: Arc::clone(&self.host), port })).await?;
        *link = Some(client.clone());
        Ok(Some(client))
    }

    /// Lets go of every link.
    pub async fn close(&self) {
        let links: Vec<_> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.values().map(|database| Arc::clone(&database.link)).collect()
        };
        for link in links {
            link.lock().await.take();
        }
    }
}
