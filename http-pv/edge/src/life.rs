//! The life of the process: inherited descriptors, walls, workers, and doing what vamosd says.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{self, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use vamos_channel::{Channel, ChannelError, blocking};
use vamos_proto::cell::{Done, Forked, Layer, Ready, Refused};
use vamos_proto::edge::{FromEdge, Kept, Start, ToEdge, from_edge, to_edge};
use vamos_sandbox::{
    Enforcement, Entered, Outcome, Plan, Profile, Report, ResourceLimits, enter, inherited, memory,
};

use crate::access_log::AccessLog;
use crate::limits::{ACCEPT_PAUSE, ORPHAN_LOOK_EVERY, WORKERS_MAX};
use crate::shared::Shared;
use crate::worker::{Listener, Phases, Worker};

/// Takes the private channel from standard input, builds the walls, and serves until vamosd says that it is enough.
///
/// # Errors
/// What ends the edge early; the process should exit.
pub fn live() -> anyhow::Result<()> {
    inherited::close_others().context("close inherited descriptors")?;
    memory::prefer_small();
    tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(io::stderr).init();
    let socket = inherited::control_socket().context("take the channel from standard input")?;
    let first = blocking::receive::<ToEdge>(&socket)
        .context("receive the first message (vamos-edge is started by vamosd)")?;
    let (Some(to_edge::Message::Start(start)), given) = first else {
        bail!("the first message must be Start")
    };
    let report = match confine(&start) {
        Ok(Entered::Confined(report)) => report,
        Ok(Entered::Parent(parent)) => {
            let forked = from_edge::Message::Forked(Forked { pid: parent.child as u32 });
            return Ok(blocking::send::<FromEdge>(&socket, forked, &[parent.pidfd.as_fd()])?);
        }
        Err(error) => {
            let refused = from_edge::Message::Refused(Refused { reason: error.to_string() });
            let _ = blocking::send::<FromEdge>(&socket, refused, &[]);
            bail!(error);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(socket, start, given, &report))
}

fn confine(start: &Start) -> Result<Entered, vamos_sandbox::EnterError> {
    // Looked up once, before that is not allowed any more.
    let _ = std::thread::available_parallelism();
    let limits = start.limits.unwrap_or_default();
    enter(&Plan {
        volume: PathBuf::from(&start.directory),
        uid: start.uid,
        gid: start.gid,
        enforcement: if start.best_effort { Enforcement::BestEffort } else { Enforcement::Strict },
        limits: ResourceLimits {
            open_files: limits.open_files,
            threads: limits.threads,
            file_bytes: limits.file_bytes,
        },
        profile: Profile::Edge,
        without: Vec::new(),
    })
}

type Vamosd = Channel<FromEdge, ToEdge>;

struct Edge {
    vamosd: Option<Vamosd>,
    vamosd_uid: u32,
    rendezvous: UnixListener,
    /// The reading end of this process's log: while it is open, a line that nobody reads is no error.
    log: OwnedFd,
    listeners: Vec<OwnedFd>,
    start: Start,
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// Becomes true with the first routes.
    open: watch::Sender<bool>,
    draining: watch::Sender<bool>,
    finished: watch::Sender<bool>,
    /// Ends when no worker has a client any more, nor takes one.
    clients: mpsc::Receiver<()>,
    /// Which worker has the next guest.
    turn: usize,
}

async fn serve(socket: UnixStream, start: Start, given: Vec<OwnedFd>, report: &Report) -> anyhow::Result<()> {
    let vamosd = Vamosd::new(socket).context("watch the channel")?;
    let vamosd_uid = vamosd.peer()?.uid();
    let mut given = given.into_iter();
    let (Some(rendezvous), Some(log), Some(access_log)) = (given.next(), given.next(), given.next()) else {
        bail!("a Start without its descriptors");
    };
    let listeners: Vec<OwnedFd> = given.collect();
    if listeners.len() != start.listeners.len() {
        bail!("a Start with {} listeners instead of {}", listeners.len(), start.listeners.len());
    }
    let rendezvous = net::UnixListener::from(rendezvous);
    rendezvous.set_nonblocking(true)?;
    let shared = Arc::new(Shared::new(AccessLog::new(File::from(access_log)))?);
    let ((open, opened), (draining, drained)) = (watch::channel(false), watch::channel(false));
    let (finished, all_finished) = watch::channel(false);
    let phases = Phases { open: opened, draining: drained, finished: all_finished };
    let (client, clients) = mpsc::channel(1);
    let mut workers = Vec::new();
    for number in 0..(start.workers as usize).clamp(1, WORKERS_MAX) {
        let own = listeners.iter().zip(&start.listeners).map(|(socket, about)| {
            Ok(Listener { socket: TcpListener::from(socket.try_clone()?), tls: about.tls })
        });
        let own = own.collect::<io::Result<Vec<_>>>()?;
        workers.push(Worker::start(number, own, shared.clone(), phases.clone(), client.clone())?);
    }
    drop(client);
    let ready = from_edge::Message::Ready(Ready { layers: layers(report) });
    vamosd.send(ready, &[]).await?;
    let edge = Edge {
        vamosd: Some(vamosd),
        vamosd_uid,
        rendezvous: UnixListener::from_std(rendezvous)?,
        log,
        listeners,
        start,
        shared,
        workers,
        open,
        draining,
        finished,
        clients,
        turn: 0,
    };
    edge.run().await
}

impl Edge {
    async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let Some(vamosd) = &mut self.vamosd else {
                if !self.next_vamosd().await {
                    info!("neither a vamosd nor a cell is left: the edge ends");
                    return Ok(());
                }
                continue;
            };
            match vamosd.receive().await {
                Ok(Some((to_edge::Message::Drain(drain), _))) => {
                    return self.drain(Duration::from_millis(drain.deadline_ms)).await;
                }
                Ok(Some((message, fds))) => self.obey(message, fds).await,
                Ok(None) => self.lost(&"its end of the channel is closed"),
                Err(error) => self.lost(&error),
            }
        }
    }

    fn lost(&mut self, reason: &dyn std::fmt::Display) {
        warn!(%reason, "vamosd is gone: the edge serves on until the next one comes");
        self.vamosd = None;
    }

    /// Waits for the next vamosd, and gives it what it needs. False: there is nothing to wait for.
    async fn next_vamosd(&mut self) -> bool {
        let socket = match timeout(ORPHAN_LOOK_EVERY, self.rendezvous.accept()).await {
            Ok(Ok((socket, _))) => socket,
            Ok(Err(error)) => {
                warn!(%error, "cannot accept the next vamosd now");
                sleep(ACCEPT_PAUSE).await;
                return true;
            }
            Err(_) => return self.shared.cells() > 0,
        };
        if socket.peer_cred().is_ok_and(|peer| peer.uid() == self.vamosd_uid) {
            let welcomed = async {
                let vamosd = Vamosd::new(socket.into_std()?)?;
                let kept = Kept { listeners: self.start.listeners.clone() };
                let fds: Vec<_> = [&self.log].into_iter().chain(&self.listeners).map(AsFd::as_fd).collect();
                vamosd.send(from_edge::Message::Kept(kept), &fds).await?;
                Ok::<_, ChannelError>(vamosd)
            };
            match welcomed.await {
                Ok(vamosd) => self.vamosd = Some(vamosd),
                Err(error) => warn!(%error, "the next vamosd vanished too"),
            }
        } else {
            warn!("a stranger asked for what is kept: refused");
        }
        true
    }

    async fn obey(&mut self, message: to_edge::Message, fds: Vec<OwnedFd>) {
        let answer = match message {
            to_edge::Message::Configure(configure) => {
                let request = configure.request;
                let configured = self.shared.configure(configure);
                // Whoever came before that would be told that there is nothing here.
                self.open.send_replace(true);
                let error = configured.err().map(|error| error.to_string());
                from_edge::Message::Done(Done { request, error: error.unwrap_or_default() })
            }
            to_edge::Message::Link(link) => return self.link(link.vm, fds),
            to_edge::Message::Unlink(unlink) => return self.shared.unlink(&unlink.vm),
            to_edge::Message::Purge(purge) => {
                self.shared.purge(&purge);
                from_edge::Message::Done(Done { request: purge.request, error: String::new() })
            }
            to_edge::Message::Stats(stats) => from_edge::Message::Stats(self.shared.stats(stats.request)),
            to_edge::Message::Start(_) | to_edge::Message::Drain(_) => return,
        };
        if let Some(vamosd) = &self.vamosd {
            // If it cannot be told it is dead, which is noticed next.
            let _ = vamosd.send(answer, &[]).await;
        }
    }

    fn link(&mut self, vm: String, fds: Vec<OwnedFd>) {
        let Some(socket) = fds.into_iter().next() else { return };
        self.turn = (self.turn + 1) % self.workers.len();
        let worker = self.workers[self.turn].streams.clone();
        if let Err(error) = self.shared.link(vm, socket, worker) {
            warn!(%error, "a cell cannot be linked");
        }
    }

    async fn drain(mut self, within: Duration) -> anyhow::Result<()> {
        self.draining.send_replace(true);
        if timeout(within, self.clients.recv()).await.is_err() {
            info!("some clients were not done in time");
        }
        self.finished.send_replace(true);
        for worker in self.workers {
            match worker.thread.join() {
                Ok(outcome) => outcome?,
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok(())
    }
}

fn layers(report: &Report) -> Vec<Layer> {
    let layer = |(layer, outcome): &(vamos_sandbox::Layer, Outcome)| match outcome {
        Outcome::Applied(detail) => {
            Layer { name: layer.name().to_owned(), applied: true, detail: detail.clone() }
        }
        Outcome::Missing(reason) => {
            Layer { name: layer.name().to_owned(), applied: false, detail: reason.clone() }
        }
    };
    report.0.iter().map(layer).collect()
}
