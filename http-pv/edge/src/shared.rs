//! What all threads of the edge share.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use tokio::sync::mpsc;
use vamos_http_cache::Purge;
use vamos_http_server::accept::Connections;
use vamos_http_server::limits::ConnectionLimits;
use vamos_http_server::tls::{Certificate, CertificateError, Certificates};
use vamos_proto::edge::{self, Configure, Stats};

use crate::access_log::AccessLog;
use crate::limits::{CONNECTIONS_MAX, CONNECTIONS_OF_CLIENT_MAX};
use crate::link::Link;
use crate::routes::Routes;
use crate::upstream::{Target, TargetName, Targets};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS itself.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Counted since the edge began.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests that were understood.
    pub requests: AtomicU64,
    /// Those that were refused for what was wrong with them.
    pub malformed: AtomicU64,
}

/// A guest's stream, for the thread that is to serve it.
pub type Opened = (Arc<Target>, OwnedFd);

/// See the module.
#[derive(Debug)]
pub struct Shared {
    routes: RwLock<Arc<Routes>>,
    /// Every VM's bindings.
    pub targets: Targets,
    links: Mutex<HashMap<String, Arc<Link>>>,
    /// What was counted.
    pub counts: Counts,
    /// Who was answered what.
    pub log: AccessLog,
    /// The hosts' certificates.
    pub certificates: Arc<Certificates>,
    /// The clients of all threads.
    pub connections: Arc<Connections>,
}

impl Shared {
    /// Without routes and certificates.
    ///
    /// # Errors
    /// This build cannot speak TLS.
    pub fn new(log: AccessLog) -> Result<Self, rustls::Error> {
        Ok(Self {
            routes: RwLock::default(),
            targets: Targets::default(),
            links: Mutex::default(),
            counts: Counts::default(),
            log,
            certificates: Arc::new(Certificates::new(Vec::new())?),
            connections: Arc::new(Connections::new(ConnectionLimits {
                open_max: CONNECTIONS_MAX,
                of_client_max: CONNECTIONS_OF_CLIENT_MAX,
            })),
        })
    }

    /// The routes of the moment.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces them, and the certificates.
    ///
    /// # Errors
    /// What is wrong with a certificate; nothing is replaced then.
    pub fn configure(&self, configure: Configure) -> Result<(), ConfigureError> {
        let read = |one: &edge::Certificate| Certificate::from_pem(&one.chain, &one.key, SystemTime::now());
        let certificates = configure.certificates.iter().map(read).collect::<Result<_, _>>()?;
        self.certificates.replace(certificates)?;
        let routes = Arc::new(Routes::new(configure.routes, &self.targets));
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
        Ok(())
    }

    /// Takes what a VM's guest opens from `socket` from now on, and hands it to `worker`. Streams that came before stay.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn link(
        self: &Arc<Self>,
        vm: String,
        socket: OwnedFd,
        worker: mpsc::Sender<Opened>,
    ) -> io::Result<()> {
        let link = Arc::new(Link::new(socket)?);
        let (shared, following, of) = (self.clone(), link.clone(), vm.clone());
        tokio::spawn(async move {
            let target = |binding| shared.targets.target(TargetName { vm: of.clone(), binding });
            following.follow(target, worker).await;
            shared.forget_link(&of, &following);
        });
        self.links.lock().unwrap_or_else(PoisonError::into_inner).insert(vm, link);
        Ok(())
    }

    /// The VM is not here any longer.
    pub fn unlink(&self, vm: &str) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).remove(vm);
        self.targets.forget(vm);
    }

    fn forget_link(&self, vm: &str, link: &Arc<Link>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.get(vm).is_some_and(|present| Arc::ptr_eq(present, link)) {
            links.remove(vm);
        }
    }

    /// Removes what is kept of a target's answers.
    pub fn purge(&self, purge: &edge::Purge) {
        let what = match &purge.what {
            Some(edge::purge::What::Url(url)) => Purge::Url(url),
            Some(edge::purge::What::Tag(tag)) => Purge::Tag(tag),
            Some(edge::purge::What::All(_)) | None => Purge::All,
        };
        let of = |target: &&Arc<Target>| {
            target.name.vm == purge.vm && (purge.binding.is_empty() || target.name.binding == purge.binding)
        };
        for target in self.targets.all().iter().filter(of) {
            target.cache().purge(what);
        }
    }

    /// The way to a VM's cell.
    pub fn link_to(&self, vm: &str) -> Option<Arc<Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).get(vm).cloned()
    }

    /// How many cells there are.
    pub fn cells(&self) -> usize {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What was counted.
    pub fn stats(&self, request: u64) -> Stats {
        let connections = self.connections.counts();
        let now = |count: &AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        Stats {
            request,
            connections: connections.opened,
            connections_open: connections.open as u64,
            requests: now(&self.counts.requests),
            malformed: now(&self.counts.malformed),
            targets: self.targets.all().iter().map(|target| target.stats()).collect(),
        }
    }
}
