//! A thread that serves: it accepts clients, and has its share of the guests' streams.

use std::io;
use std::net::TcpListener as BlockingListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;
use tracing::{debug, warn};
use vamos_http_server::limits::Limits;
use vamos_http_server::tls::Tls;
use vamos_http_server::{Peer, serve};

use crate::limits::{ACCEPT_PAUSE, CONNECTIONS_MAX, LOG_FLUSH_EVERY, STREAMS_WAITING_MAX};
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
    let site = Rc::new(Site::new(shared.clone()));
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
    let mut accepting = Vec::new();
    for listener in listeners {
        listener.socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(listener.socket)?;
        let tls = listener.tls.then(|| shared.tls.clone());
        let accept =
            accept(socket, tls, shared.clone(), site.clone(), phases.draining.clone(), clients.clone());
        accepting.push(spawn_local(accept));
    }
    // vamosd gone without a word is no reason to end: the channel is what tells.
    let _ = phases.draining.wait_for(|draining| *draining).await;
    for accept in accepting {
        accept.abort();
    }
    drop(clients);
    // Clients of other threads are answered over guests' streams of this one.
    let _ = phases.finished.wait_for(|finished| *finished).await;
    shared.log.flush();
    Ok(())
}

async fn accept(
    listener: TcpListener,
    tls: Option<Tls>,
    shared: Arc<Shared>,
    site: Rc<Site>,
    draining: watch::Receiver<bool>,
    clients: mpsc::Sender<()>,
) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // For want of descriptors, mostly; others may give some back.
                warn!(%error, "cannot accept a client now");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let counts = &shared.counts;
        if counts.connections_open.fetch_add(1, Relaxed) >= CONNECTIONS_MAX {
            counts.connections_open.fetch_sub(1, Relaxed);
            continue;
        }
        counts.connections.fetch_add(1, Relaxed);
        let open = Open(shared.clone());
        let (site, draining, client, tls) = (site.clone(), draining.clone(), clients.clone(), tls.clone());
        spawn_local(async move {
            // What is written is written whole.
            let limits = Limits::default();
            let peer = Peer { address, tls: tls.is_some() };
            match (stream.set_nodelay(true), tls) {
                (Ok(()), None) => serve(stream, peer, &*site, &limits, draining).await,
                (Ok(()), Some(tls)) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, peer, &*site, &limits, draining).await,
                    Err(error) => debug!(%error, client = %address, "no TLS with a client"),
                },
                (Err(error), _) => debug!(%error, client = %address, "a client was gone at once"),
            }
            drop((open, client));
        });
    }
}

/// A client, counted while it is there.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counts.connections_open.fetch_sub(1, Relaxed);
    }
}
