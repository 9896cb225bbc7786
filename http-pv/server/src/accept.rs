//! The connections of a process: where they come from, how many there may be, and how they end.
//!
//! Each is one task on the thread that accepted it. Several threads may accept on the same sockets: each has a runtime and
//! calls [`accept`] with duplicates of them and the same [`Connections`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::limits::{ACCEPT_PAUSE_MAX, ConnectionLimits, Limits};
use crate::tls::Certificates;
use crate::{Handler, Peer, serve, serve_any, serve_h2};

/// Where connections come from.
#[derive(Debug)]
pub struct Listener {
    /// A socket that is bound already.
    pub socket: TcpListener,
    /// What is shown to clients, if they speak TLS.
    pub tls: Option<Arc<Certificates>>,
}

/// The connections that are open, and how many there were.
#[derive(Debug, Default)]
pub struct Connections {
    limits: ConnectionLimits,
    opened: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    open: AtomicUsize,
    of_client: Mutex<HashMap<IpAddr, usize>>,
}

/// Counts of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Since the beginning.
    pub opened: u64,
    /// Now.
    pub open: usize,
    /// Closed at once, because there were too many.
    pub refused: u64,
    /// Not accepted, because the process could not: no descriptor, no memory. One may be counted many times.
    pub failed: u64,
}

impl Connections {
    /// None yet.
    pub fn new(limits: ConnectionLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// How many there are and were.
    pub fn counts(&self) -> Counts {
        Counts {
            opened: self.opened.load(Relaxed),
            open: self.open.load(Relaxed),
            refused: self.refused.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }

    /// A place for one more of `client`'s, if there is any.
    fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let client = client_of(client);
        let place = self
            .open
            .fetch_update(Relaxed, Relaxed, |open| (open < self.limits.open_max).then_some(open + 1));
        let admitted = place.is_ok() && {
            let mut of_client = self.of_client.lock().unwrap_or_else(PoisonError::into_inner);
            let open = of_client.entry(client).or_default();
            let room = *open < self.limits.of_client_max;
            *open += usize::from(room);
            if !room {
                self.open.fetch_sub(1, Relaxed);
            }
            room
        };
        let counted = if admitted { &self.opened } else { &self.refused };
        counted.fetch_add(1, Relaxed);
        admitted.then(|| Place { connections: self.clone(), client })
    }
}

/// What one client has for an address: an IPv6 one has at least 64 bits of them.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

/// One connection's place among the others.
struct Place {
    connections: Arc<Connections>,
    client: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Relaxed);
        let mut of_client = self.connections.of_client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut open) = of_client.entry(self.client) {
            *open.get_mut() = open.get().saturating_sub(1);
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// What all connections of a thread have in common.
struct Shared<H> {
    handler: H,
    limits: Limits,
    connections: Arc<Connections>,
    draining: watch::Receiver<bool>,
}

/// Accepts connections and serves them, on this thread, until `draining` is true and the last has what it asked for.
/// Dropped, it ends them all at once.
pub async fn accept<H: Handler + 'static>(
    listeners: Vec<Listener>,
    handler: H,
    connections: Arc<Connections>,
    limits: Limits,
    draining: watch::Receiver<bool>,
) {
    let shared = Rc::new(Shared { handler, limits, connections, draining });
    let tasks = LocalSet::new();
    for listener in listeners {
        tasks.spawn_local(listen(listener, shared.clone()));
    }
    // Ends when every task has, also those that were begun meanwhile.
    tasks.await;
}

async fn listen<H: Handler + 'static>(listener: Listener, shared: Rc<Shared<H>>) {
    let mut draining = shared.draining.clone();
    let mut pause = Duration::ZERO;
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            _ = draining.wait_for(|draining| *draining) => return,
        };
        match accepted {
            Ok((socket, address)) => {
                pause = Duration::ZERO;
                // Closed at once if there is no place for it.
                if let Some(place) = shared.connections.admit(address.ip()) {
                    spawn_local(connection(socket, address, listener.tls.clone(), shared.clone(), place));
                }
            }
            // The client has changed its mind.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                shared.connections.failed.fetch_add(1, Relaxed);
                if pause.is_zero() {
                    warn!(%error, "no connection can be accepted for now");
                }
                pause = (pause * 2).clamp(Duration::from_millis(10), ACCEPT_PAUSE_MAX);
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = draining.wait_for(|draining| *draining) => return,
                }
            }
        }
    }
}

async fn connection<H: Handler>(
    socket: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<Certificates>>,
    shared: Rc<Shared<H>>,
    _place: Place,
) {
    // An answer that is written is whole: nothing is gained by waiting for more of it.
    let _ = socket.set_nodelay(true);
    let Shared { handler, limits, draining, .. } = &*shared;
    let peer = Peer { address, tls: tls.is_some() };
    let Some(certificates) = tls else {
        return serve_any(socket, peer, handler, limits, draining.clone()).await;
    };
    // What the handshake needs is not kept.
    let socket = match Box::pin(certificates.accept(socket, limits.head_within)).await {
        Ok(socket) => Box::new(socket),
        Err(error) => return debug!(%error, peer = %address, "no TLS"),
    };
    drop(certificates);
    match socket.get_ref().1.alpn_protocol() {
        Some(b"h2") => Box::pin(serve_h2(socket, peer, handler, limits, draining.clone())).await,
        Some(b"http/1.1") | None => Box::pin(serve(socket, peer, handler, limits, draining.clone())).await,
        // A name was proved; that is all there is to it.
        Some(_) => {}
    }
}
