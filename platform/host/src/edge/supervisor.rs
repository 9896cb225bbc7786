//! The task of the edge. It starts the process, serves until that ends, and starts it again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use vamos_channel::ChannelError;
use vamos_proto::edge::{Configure, Drain, Link, Listener, Purge, StatsRequest, Unlink, from_edge, to_edge};

use super::process::{Listeners, Running, listen};
use super::{Command, EdgeError, Recipe, Reply, Status};
use crate::limits::{DRAIN_DEFAULT, EDGE_DRAIN_MAX};
use crate::vm::backoff::Backoff;

/// Questions that the edge may leave unanswered before the oldest are given up.
const PENDING_MAX: usize = 256;

pub(super) struct Supervisor {
    recipe: Recipe,
    listeners: Listeners,
    inbox: mpsc::Receiver<Command>,
    incarnation: watch::Sender<u64>,
    configure: Configure,
    requests: u64,
    pending: HashMap<u64, Pending>,
}

/// Who waits for an answer.
enum Pending {
    /// It is to hold from now on if it is taken.
    Configured(Box<Configure>, Reply<()>),
    Purged(Reply<()>),
    Stats(Reply<Status>),
}

/// Why serving with one edge ended.
enum End {
    Edge,
    Stop(Reply<()>),
    Abandoned,
}

impl Supervisor {
    pub(super) async fn begin(
        (recipe, configure): (Recipe, Configure),
        inbox: mpsc::Receiver<Command>,
        incarnation: watch::Sender<u64>,
    ) -> Result<Self, EdgeError> {
        let left = recipe.left_behind().await;
        let (old, mut kept) = left.map_or((None, Vec::new()), |(channel, kept)| (Some(channel), kept));
        let mut listeners = Vec::new();
        for (address, tls) in &recipe.listen {
            let about = Listener { address: address.to_string(), tls: *tls };
            let at = kept.iter().position(|(other, _)| *other == about);
            let socket = match at {
                Some(at) => kept.swap_remove(at).1,
                None => listen(*address)?,
            };
            listeners.push((about, socket));
        }
        drop(kept);
        let supervisor =
            Self { recipe, listeners, inbox, incarnation, configure, requests: 0, pending: HashMap::new() };
        if let Some(old) = old {
            let mut incarnation = supervisor.incarnation.subscribe();
            tokio::spawn(async move {
                // Both accept until then, so that nobody is kept waiting.
                let _ = incarnation.wait_for(|incarnation| *incarnation > 0).await;
                info!("the edge of an earlier vamosd drains");
                let deadline_ms = u64::try_from(EDGE_DRAIN_MAX.as_millis()).unwrap_or(u64::MAX);
                let drained = async {
                    let mut old = old;
                    old.send(to_edge::Message::Drain(Drain { deadline_ms }), &[]).await?;
                    while old.receive().await?.is_some() {}
                    Ok::<_, ChannelError>(())
                };
                // Its end closes the channel, which is an end as good as another.
                let _ = drained.await;
            });
        }
        Ok(supervisor)
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let pause = match self.recipe.start(&self.listeners).await {
                Ok(edge) => match self.serve(edge).await {
                    End::Edge => backoff.failed(begun.elapsed()),
                    End::Stop(reply) => {
                        let _ = std::fs::remove_file(&self.recipe.rendezvous);
                        drop(reply.send(Ok(())));
                        return;
                    }
                    End::Abandoned => return,
                },
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "the edge could not be started");
                    backoff.failed(Duration::ZERO)
                }
            };
            if let Some(reply) = self.pause(pause).await {
                drop(reply.send(Ok(())));
                return;
            }
        }
    }

    /// Waits without an edge; who has asked for the end of it.
    async fn pause(&mut self, pause: Duration) -> Option<Reply<()>> {
        let end = sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return None,
                Some(command) = self.inbox.recv() => match command {
                    Command::Configure { configure, reply } => {
                        // Whether it is right is not known before there is an edge.
                        self.configure = *configure;
                        let _ = reply.send(Err(EdgeError::None));
                    }
                    // The next edge keeps nothing of before.
                    Command::Purge { reply, .. } => drop(reply.send(Ok(()))),
                    Command::Stats { reply } => drop(reply.send(Err(EdgeError::None))),
                    Command::Link { .. } | Command::Unlink { .. } => {}
                    Command::Stop { reply, .. } => return Some(reply),
                }
            }
        }
    }

    async fn serve(&mut self, mut edge: Running) -> End {
        info!(pid = edge.pid, "the edge serves");
        let configure = Configure { request: 0, ..self.configure.clone() };
        let told = edge.channel.send(to_edge::Message::Configure(configure), &[]).await;
        self.incarnation.send_modify(|incarnation| *incarnation += 1);
        let end = match told {
            Ok(()) => self.until_the_end(&mut edge).await,
            Err(_) => End::Edge,
        };
        self.pending.clear();
        let how = edge.process.kill_and_reap().await;
        if let End::Edge = end {
            warn!(how, "the edge ended; it is started again");
        }
        end
    }

    async fn until_the_end(&mut self, edge: &mut Running) -> End {
        loop {
            tokio::select! {
                message = edge.channel.receive() => match message {
                    Ok(Some((message, _))) => self.heard(message, edge.pid),
                    Ok(None) => return End::Edge,
                    Err(error) => {
                        warn!(%error, "the edge cannot be understood and is ended");
                        return End::Edge;
                    }
                },
                command = self.inbox.recv() => match command {
                    None => return End::Abandoned,
                    Some(Command::Stop { drain, reply }) => {
                        self.drain(edge, drain).await;
                        return End::Stop(reply);
                    }
                    Some(command) => {
                        if self.obey(command, edge).await.is_err() {
                            return End::Edge;
                        }
                    }
                },
            }
        }
    }

    async fn drain(&self, edge: &mut Running, within: Duration) {
        let deadline_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let ended = async {
            edge.channel.send(to_edge::Message::Drain(Drain { deadline_ms }), &[]).await?;
            while edge.channel.receive().await?.is_some() {}
            Ok::<_, ChannelError>(())
        };
        // It keeps the deadline itself; this is for one that does not.
        let _ = timeout(within + DRAIN_DEFAULT, ended).await;
    }

    async fn obey(&mut self, command: Command, edge: &Running) -> Result<(), ChannelError> {
        let mut fd: Option<OwnedFd> = None;
        let message = match command {
            Command::Configure { configure, reply } => {
                let request = self.request();
                let told = Configure { request, ..(*configure).clone() };
                self.pending.insert(request, Pending::Configured(configure, reply));
                to_edge::Message::Configure(told)
            }
            Command::Link { vm, socket } => {
                fd = Some(socket);
                to_edge::Message::Link(Link { vm: vm.to_string() })
            }
            Command::Unlink { vm } => to_edge::Message::Unlink(Unlink { vm: vm.to_string() }),
            Command::Purge { purge, reply } => {
                let request = self.request();
                self.pending.insert(request, Pending::Purged(reply));
                to_edge::Message::Purge(Purge { request, ..*purge })
            }
            Command::Stats { reply } => {
                let request = self.request();
                self.pending.insert(request, Pending::Stats(reply));
                to_edge::Message::Stats(StatsRequest { request })
            }
            // Taken before.
            Command::Stop { .. } => return Ok(()),
        };
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        edge.channel.send(message, &fds).await
    }

    fn request(&mut self) -> u64 {
        if self.pending.len() >= PENDING_MAX {
            // Their askers have long given up.
            self.pending.clear();
        }
        self.requests += 1;
        self.requests
    }

    fn heard(&mut self, message: from_edge::Message, pid: u32) {
        match message {
            from_edge::Message::Done(done) => {
                let pending = self.pending.remove(&done.request);
                if let Some(Pending::Purged(reply)) = pending {
                    let _ = reply.send(Ok(()));
                } else if let Some(Pending::Configured(configure, reply)) = pending {
                    let outcome = if done.error.is_empty() {
                        self.configure = *configure;
                        Ok(())
                    } else {
                        Err(EdgeError::Says(done.error))
                    };
                    let _ = reply.send(outcome);
                } else if !done.error.is_empty() {
                    warn!(error = %done.error.escape_debug(), "the edge cannot use its configuration");
                }
            }
            from_edge::Message::Stats(stats) => {
                if let Some(Pending::Stats(reply)) = self.pending.remove(&stats.request) {
                    let listeners = self.listeners.iter().filter_map(|(_, socket)| local(socket)).collect();
                    let starts = *self.incarnation.borrow();
                    let _ = reply.send(Ok(Status { pid, starts, listeners, stats }));
                }
            }
            _ => {}
        }
    }
}

fn local(socket: &OwnedFd) -> Option<SocketAddr> {
    let address = rustix::net::getsockname(socket).ok()?;
    SocketAddr::try_from(address).ok()
}
