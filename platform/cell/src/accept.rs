//! Which service answers on which port: the bindings of the VM, and `hello`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vamos_device::Acceptor;
use vamos_proto::hello::Welcome;
use vamos_proto::id::VsockPort;
use vamos_service::{ByteStream, Service, VmContext};

use crate::hello::Hello;

/// One binding in force.
struct Bound {
    service: Arc<dyn Service>,
    announced: vamos_proto::hello::Binding,
    /// Ends the binding's streams.
    ended: CancellationToken,
}

/// The table of ports. Streams run as tasks on the ring thread's runtime.
pub(crate) struct Ports {
    vm: Arc<VmContext>,
    bound: Mutex<HashMap<VsockPort, Bound>>,
    welcome: watch::Sender<Welcome>,
    hello: Arc<Hello>,
    /// Set while the cell drains: no new streams.
    closed: CancellationToken,
}

impl Ports {
    pub(crate) fn new(vm: VmContext) -> Self {
        let first = Welcome { vm: vm.vm.to_string(), generation: vm.generation, ..Welcome::default() };
        let (welcome, watched) = watch::channel(first);
        Self {
            vm: Arc::new(vm),
            bound: Mutex::default(),
            welcome,
            hello: Arc::new(Hello::new(watched)),
            closed: CancellationToken::new(),
        }
    }

    /// Makes `service` answer on the binding's port, in place of what did; agents are told.
    pub(crate) fn bind(&self, announced: vamos_proto::hello::Binding, service: Arc<dyn Service>) {
        let port = VsockPort(announced.port);
        let bound = Bound { service, announced, ended: CancellationToken::new() };
        let replaced = self.lock().insert(port, bound);
        if let Some(replaced) = replaced {
            replaced.ended.cancel();
        }
        self.announce();
    }

    /// Takes the binding called `name` away and ends its streams; whether there was one.
    pub(crate) fn unbind(&self, name: &str) -> bool {
        let mut bound = self.lock();
        let port = bound.iter().find(|(_, bound)| bound.announced.name == name).map(|(port, _)| *port);
        let Some(removed) = port.and_then(|port| bound.remove(&port)) else { return false };
        removed.ended.cancel();
        drop(bound);
        self.announce();
        true
    }

    /// Has agents open anew what they have opened ahead for bindings of this kind. Open streams go on.
    pub(crate) fn renew(&self, kind: &str) {
        for bound in self.lock().values_mut().filter(|bound| bound.announced.kind == kind) {
            bound.announced.epoch += 1;
        }
        self.announce();
    }

    /// Accepts nothing any more.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    fn announce(&self) {
        let mut bindings: Vec<_> = self.lock().values().map(|bound| bound.announced.clone()).collect();
        bindings.sort_by_key(|binding| binding.port);
        self.welcome.send_modify(|welcome| welcome.bindings = bindings);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VsockPort, Bound>> {
        // Nothing panics while the table is half changed.
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acceptor for Ports {
    fn accept(&self, port: VsockPort, stream: ByteStream) -> bool {
        if self.closed.is_cancelled() {
            return false;
        }
        let (service, ended): (Arc<dyn Service>, _) = if port == VsockPort::HELLO {
            (self.hello.clone(), CancellationToken::new())
        } else {
            match self.lock().get(&port) {
                Some(bound) => (bound.service.clone(), bound.ended.clone()),
                None => return false,
            }
        };
        let kind = service.kind();
        let serving = service.serve(stream, self.vm.clone());
        tokio::spawn(async move {
            if let Some(Err(error)) = ended.run_until_cancelled(serving).await {
                // Its `Display` may hold what the guest wrote: as a field it is escaped.
                tracing::info!(
                    kind,
                    error = &error as &dyn std::error::Error,
                    "a stream ended with an error"
                );
            }
        });
        true
    }
}
