//! The edge as vamosd runs it: one process for all VMs, its listeners, and a task that keeps it going.
//!
//! vamosd has duplicates of the listeners: when the edge dies, clients wait in their backlog until another accepts.
//! When vamosd does, the edge serves on; the next vamosd takes the listeners from it, starts another, and has it drain.

mod process;
mod supervisor;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vamos_proto::edge::{Configure, Purge, Start, Stats};
use vamos_proto::id::VmId;
use vamos_sandbox::cgroup::{CgroupLimits, Hierarchy};

use crate::limits::{EDGE_REPLY_MAX, EDGE_START_MAX};
use supervisor::Supervisor;

/// The name of the edge's control group, which no VM can have.
pub const CGROUP: &str = "_edge";

/// Commands that may wait.
const COMMANDS_MAX: usize = 256;

/// Everything that starting the edge takes.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The program.
    pub binary: PathBuf,
    /// Its directory; made if it does not exist.
    pub directory: PathBuf,
    /// Where it writes who was answered what.
    pub access_log: PathBuf,
    /// Where the next vamosd finds it.
    pub rendezvous: PathBuf,
    /// Where clients connect, and whether they speak TLS.
    pub listen: Vec<(SocketAddr, bool)>,
    /// What it is told.
    pub start: Start,
    /// Its limits in the control group.
    pub cgroup_limits: CgroupLimits,
    /// Where its group goes.
    pub cgroup: Option<(Hierarchy, String)>,
}

/// Why there is no edge, or it did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A file or a socket.
    #[error("{action} {what}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The private channel.
    #[error(transparent)]
    Channel(#[from] vamos_channel::ChannelError),
    /// It said why it cannot serve.
    #[error("the edge cannot start: {0}")]
    Refused(String),
    /// It ended while it started.
    #[error("the edge ended while it started; the log of vamosd may say why")]
    Ended,
    /// It took too long.
    #[error("the edge was not ready within {EDGE_START_MAX:?}")]
    Slow,
    /// There is none now.
    #[error("the edge is being started; try again")]
    None,
    /// It could not.
    #[error("the edge says: {0}")]
    Says(String),
    /// It did not answer.
    #[error("the edge did not answer within {EDGE_REPLY_MAX:?}")]
    Silent,
    /// It is not configured.
    #[error("this host has no edge; give it one with [edge] in vamos.toml")]
    NotHere,
}

type Reply<T> = oneshot::Sender<Result<T, EdgeError>>;

/// What can be asked of the edge.
#[derive(Debug)]
enum Command {
    /// Routes and certificates, all of them.
    Configure {
        configure: Box<Configure>,
        reply: Reply<()>,
    },
    /// The way to a VM's cell.
    Link {
        vm: VmId,
        socket: OwnedFd,
    },
    /// The VM is gone.
    Unlink {
        vm: VmId,
    },
    Purge {
        purge: Box<Purge>,
        reply: Reply<()>,
    },
    Stats {
        reply: Reply<Status>,
    },
    /// Finish what is under way, and end.
    Stop {
        drain: Duration,
        reply: Reply<()>,
    },
}

/// What the edge is doing.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// How often it had to be started.
    pub starts: u64,
    /// Where clients connect.
    pub listeners: Vec<SocketAddr>,
    /// What it has counted.
    pub stats: Stats,
}

/// The edge, running.
#[derive(Debug)]
pub struct Edge {
    links: Links,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// How a VM's supervisor reaches the edge.
#[derive(Debug, Clone)]
pub struct Links {
    commands: mpsc::Sender<Command>,
    /// Which edge it is: every one wants links of its own. 0 is none yet.
    incarnation: watch::Receiver<u64>,
}

impl Edge {
    /// Starts the edge, with the routes and certificates of `first`, and with the listeners of the one that an earlier vamosd has left behind, or with new ones.
    ///
    /// # Errors
    /// An address cannot be listened on. An edge that does not start is no error: it is tried again.
    pub async fn start(recipe: Recipe, first: Configure) -> Result<Self, EdgeError> {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (publish, incarnation) = watch::channel(0);
        let supervisor = Supervisor::begin((recipe, first), inbox, publish).await?;
        let task = tokio::spawn(supervisor.run());
        Ok(Self { links: Links { commands, incarnation }, task: Mutex::new(Some(task)) })
    }

    /// What supervisors need.
    pub fn links(&self) -> Links {
        self.links.clone()
    }

    /// Waits until there is an edge.
    pub async fn started(&self) {
        // An error: it has ended for good.
        let _ = self.links.incarnation.clone().wait_for(|incarnation| *incarnation > 0).await;
    }

    /// Replaces all routes and certificates, now and for every later edge.
    ///
    /// # Errors
    /// [`EdgeError`]: what is wrong with them, and nothing has changed; or there is no edge now, and the next has them.
    pub async fn configure(&self, configure: Configure) -> Result<(), EdgeError> {
        self.ask(EDGE_REPLY_MAX, |reply| Command::Configure { configure: Box::new(configure), reply }).await
    }

    /// Removes what is kept of a target's answers.
    ///
    /// # Errors
    /// [`EdgeError`]; one that is started anew keeps nothing.
    pub async fn purge(&self, purge: Purge) -> Result<(), EdgeError> {
        self.ask(EDGE_REPLY_MAX, |reply| Command::Purge { purge: Box::new(purge), reply }).await
    }

    /// What it has counted.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn stats(&self) -> Result<Status, EdgeError> {
        self.ask(EDGE_REPLY_MAX, |reply| Command::Stats { reply }).await
    }

    /// Forgets a VM that is served here no longer.
    pub async fn unlink(&self, vm: VmId) {
        // One that is gone knows no VM.
        let _ = self.links.commands.send(Command::Unlink { vm }).await;
    }

    /// Ends it, giving clients `drain` to be answered.
    pub async fn stop(&self, drain: Duration) {
        let _ = self.ask(drain + EDGE_REPLY_MAX, |reply| Command::Stop { drain, reply }).await;
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }

    async fn ask<T>(
        &self,
        limit: Duration,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, EdgeError> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.links.commands.send(command(reply)).await.map_err(|_| EdgeError::None)?;
            answer.await.unwrap_or(Err(EdgeError::None))
        };
        timeout(limit, exchange).await.unwrap_or(Err(EdgeError::Silent))
    }
}

impl Links {
    /// Waits until there is an edge that has no link of this supervisor's yet. May be dropped and called again.
    pub async fn wanted(&mut self) {
        loop {
            if self.incarnation.changed().await.is_err() {
                return std::future::pending().await;
            }
            if *self.incarnation.borrow_and_update() > 0 {
                return;
            }
        }
    }

    /// Whether there is an edge; from now on another one is [`wanted`](Self::wanted).
    pub fn seen(&mut self) -> bool {
        *self.incarnation.borrow_and_update() > 0
    }

    /// Gives the edge its end of a link to a VM's cell.
    pub async fn link(&self, vm: VmId, socket: OwnedFd) {
        // If there is no edge any more, the next asks for another.
        let _ = self.commands.send(Command::Link { vm, socket }).await;
    }
}
