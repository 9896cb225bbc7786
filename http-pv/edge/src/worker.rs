//! A thread that serves: it accepts clients, and has its share of the guests' streams.

use std::io;
use std::net::TcpListener as BlockingListener;
use std::sync::Arc;
use std::thread;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;
use tracing::debug;
use vamos_http_server::accept;
use vamos_http_server::limits::Limits;

use crate::limits::{LOG_FLUSH_EVERY, STREAMS_WAITING_MAX};
use crate::shared::{Opened, Shared};
use crate::site::Site;

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    /// Takes streams of guests.
    pub streams: mpsc::Sender<Opened>,
    /// Ends when it has drained.
    pub thread: thread::JoinHandle<io::Result<()>>,
}

/// Where clients connect.
#[derive(Debug)]
pub struct Listener {
    /// A socket that listens.
    pub socket: BlockingListener,
    /// Its clients speak TLS.
    pub tls: bool,
}

/// What a worker goes through, each false until it has come.
#[derive(Debug, Clone)]
pub struct Phases {
    /// There are routes: clients are accepted.
    pub open: watch::Receiver<bool>,
    /// No more are, and those that are there are answered.
    pub draining: watch::Receiver<bool>,
    /// All have been, by all workers.
    pub finished: watch::Receiver<bool>,
}

impl Worker {
    /// Starts one. Each of its clients holds `clients`.
    ///
    /// # Errors
    /// There can be no further thread.
    pub fn start(
        number: usize,
        listeners: Vec<Listener>,
        shared: Arc<Shared>,
        phases: Phases,
        clients: mpsc::Sender<()>,
    ) -> io::Result<Self> {
        let (streams, opened) = mpsc::channel(STREAMS_WAITING_MAX);
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, work(listeners, shared, phases, clients, opened))
        })?;
        Ok(Self { streams, thread })
    }
}

async fn work(
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
    mut phases: Phases,
    clients: mpsc::Sender<()>,
    mut opened: mpsc::Receiver<Opened>,
) -> io::Result<()> {
    let logged = shared.clone();
    spawn_local(async move {
        loop {
            sleep(LOG_FLUSH_EVERY).await;
            logged.log.flush();
        }
    });
    spawn_local(async move {
        while let Some((target, stream)) = opened.recv().await {
            if let Err(error) = target.streams.add(stream).await {
                debug!(%error, vm = target.name.vm, "a stream of a guest is of no use");
            }
        }
    });
    tokio::select! {
        _ = phases.open.wait_for(|open| *open) => {}
        _ = phases.draining.wait_for(|draining| *draining) => {}
    }
    let mut own = Vec::new();
    for listener in listeners {
        listener.socket.set_nonblocking(true)?;
        let certificates = listener.tls.then(|| shared.certificates.clone());
        own.push(accept::Listener { socket: TcpListener::from_std(listener.socket)?, tls: certificates });
    }
    // Until vamosd says that it is enough, and the last of its clients has been answered.
    let (connections, draining) = (shared.connections.clone(), phases.draining.clone());
    accept::accept(own, Site::new(shared.clone()), connections, Limits::default(), draining).await;
    drop(clients);
    // Clients of other threads are answered over guests' streams of this one.
    let _ = phases.finished.wait_for(|finished| *finished).await;
    shared.log.flush();
    Ok(())
}
