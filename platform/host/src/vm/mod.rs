//! One VM as vamosd runs it: a socket for its VMM, a cell behind it, and a task that keeps both going.

mod attachment;
pub(crate) mod backoff;
mod supervisor;
pub mod tenancy;

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vamos_proto::cell::{Binding, Counters, Layer};
use vamos_proto::control::VmState;
use vamos_proto::id::VmId;

use crate::cell::adopt::Adopted;
use crate::cell::spawn::Recipe;
use crate::edge::Links;
use crate::limits::{CELL_REPLY_MAX, CELL_START_MAX, SNAPSHOT_MAX};
use supervisor::Supervisor;
use tenancy::Tenancy;

/// Commands that may wait for the supervisor.
const COMMANDS_MAX: usize = 64;

/// What is to be known of a running VM.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// What it is doing.
    pub state: VmState,
    /// Why, when that needs saying.
    pub detail: String,
    /// The cell's process, 0 when there is none.
    pub cell_pid: u32,
    /// How often a cell was started.
    pub cell_starts: u64,
    /// What the sandbox is made of.
    pub layers: Vec<Layer>,
}

/// Why a running VM did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// Its supervisor has ended.
    #[error("VM {0} is being removed")]
    Ending(VmId),
    /// There is no cell to ask.
    #[error("VM {vm} has no cell now: {detail}")]
    NoCell {
        /// Which VM.
        vm: VmId,
        /// Why.
        detail: String,
    },
    /// The cell did not answer.
    #[error("the cell of VM {0} did not answer within {CELL_REPLY_MAX:?}")]
    Silent(VmId),
    /// The cell could not.
    #[error("the cell of VM {vm} says: {reason}")]
    Cell {
        /// Which VM.
        vm: VmId,
        /// Why not.
        reason: String,
    },
}

/// What a VM needs besides its cell: the right to its volume, if others could have it, and the edge, if there is one.
pub type Needs = (Option<Tenancy>, Option<Links>);

type Reply<T> = oneshot::Sender<Result<T, VmError>>;

/// What can be asked of a VM's supervisor.
#[derive(Debug)]
enum Command {
    Bind {
        binding: Box<Binding>,
        reply: Reply<()>,
    },
    Unbind {
        name: String,
        reply: Reply<()>,
    },
    Stats {
        reply: Reply<Counters>,
    },
    /// Replace the cell: after its streams have ended, or at once.
    Replace {
        drain: Option<Duration>,
        reply: Reply<()>,
    },
    /// End the cell, then the supervisor.
    Stop {
        drain: Duration,
        reply: Reply<()>,
    },
    /// Copy the databases as they are at one instant.
    Snapshot {
        reply: Reply<()>,
    },
    /// Replace the cell at once by one of another recipe.
    Renew {
        recipe: Box<Recipe>,
        reply: Reply<()>,
    },
    /// Keep the volume's files fit for being copied, or no longer.
    Hold {
        release: bool,
        reply: Reply<()>,
    },
    /// End the cell at once, then the supervisor; whether the files were fit for being copied until then.
    Depart {
        reply: Reply<bool>,
    },
}

/// A running VM.
#[derive(Debug)]
pub struct Vm {
    name: VmId,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Vm {
    /// Starts serving a VM on `listener`, whose path is `socket`.
    pub fn start(recipe: Recipe, needs: Needs, listener: UnixListener, socket: PathBuf) -> Self {
        Self::run(recipe, needs, listener, socket, |supervisor| supervisor)
    }

    /// Goes on serving a VM with the cell that an earlier vamosd has left behind.
    pub fn go_on(recipe: Recipe, needs: Needs, adopted: Adopted, socket: PathBuf) -> Self {
        let Adopted { cell, start, listener, front_end } = adopted;
        let collect = |supervisor: Supervisor| supervisor.collecting(cell, start, front_end);
        Self::run(recipe, needs, listener, socket, collect)
    }

    fn run(
        recipe: Recipe,
        needs: Needs,
        listener: UnixListener,
        socket: PathBuf,
        begin: impl FnOnce(Supervisor) -> Supervisor,
    ) -> Self {
        let name = recipe.vm.clone();
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (publish, status) = watch::channel(Status { state: VmState::Starting, ..Status::default() });
        let supervisor = begin(Supervisor::new(recipe, needs, listener, socket, inbox, publish));
        let task = tokio::spawn(supervisor.run());
        Self { name, commands, status, task: Mutex::new(Some(task)) }
    }

    /// What the VM is doing now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until the first attempt to start a cell has succeeded or failed.
    pub async fn started(&self) -> Status {
        let mut status = self.status.clone();
        match status.wait_for(|status| status.state != VmState::Starting).await {
            Ok(status) => status.clone(),
            Err(_) => self.status(),
        }
    }

    /// Waits until there is a cell, or cannot be one.
    pub(crate) async fn steady(&self) {
        let steady = |status: &Status| !matches!(status.state, VmState::Starting | VmState::BackingOff);
        // An error: its supervisor has ended, and with it all that could change.
        let _ = self.status.clone().wait_for(steady).await;
    }

    /// Adds or changes a binding, now and for every later cell.
    ///
    /// # Errors
    /// [`VmError`]; a VM without a cell takes it over when it next has one.
    pub async fn bind(&self, binding: Binding) -> Result<(), VmError> {
        self.ask(CELL_REPLY_MAX, |reply| Command::Bind { binding: Box::new(binding), reply }).await
    }

    /// Ends a binding.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn unbind(&self, name: String) -> Result<(), VmError> {
        self.ask(CELL_REPLY_MAX, |reply| Command::Unbind { name, reply }).await
    }

    /// The device's counters.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn stats(&self) -> Result<Counters, VmError> {
        self.ask(CELL_REPLY_MAX, |reply| Command::Stats { reply }).await
    }

    /// Replaces the cell, giving open streams `drain` to finish, or none.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn replace_cell(&self, drain: Option<Duration>) -> Result<(), VmError> {
        let limit = drain.unwrap_or_default() + CELL_REPLY_MAX;
        self.ask(limit, |reply| Command::Replace { drain, reply }).await
    }

    /// Ends the cell, giving open streams `drain` to finish, and removes the socket.
    pub async fn stop(&self, drain: Duration) {
        // Whatever it answers, the task's end is what matters.
        let _ = self.ask(drain + CELL_REPLY_MAX, |reply| Command::Stop { drain, reply }).await;
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }

    /// Has every database copied as it is at one instant, to a file beside it.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn snapshot(&self) -> Result<(), VmError> {
        self.ask(SNAPSHOT_MAX, |reply| Command::Snapshot { reply }).await
    }

    /// Replaces the cell at once by one of another recipe.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn renew(&self, recipe: Recipe) -> Result<(), VmError> {
        let limit = CELL_START_MAX + CELL_REPLY_MAX;
        self.ask(limit, |reply| Command::Renew { recipe: Box::new(recipe), reply }).await
    }

    /// Keeps the volume's files fit for being copied while they are written to, until this cell ends.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn hold(&self) -> Result<(), VmError> {
        self.ask(CELL_REPLY_MAX, |reply| Command::Hold { release: false, reply }).await
    }

    /// Ends that.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn release(&self) -> Result<(), VmError> {
        self.ask(CELL_REPLY_MAX, |reply| Command::Hold { release: true, reply }).await
    }

    /// Ends the cell at once and removes the socket; whether the files were held since [`Vm::hold`].
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn depart(&self) -> Result<bool, VmError> {
        // One that is being started is ended when it has.
        let limit = CELL_START_MAX + CELL_REPLY_MAX;
        let held = self.ask(limit, |reply| Command::Depart { reply }).await?;
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
        Ok(held)
    }

    async fn ask<T>(&self, limit: Duration, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, VmError> {
        let (reply, answer) = oneshot::channel();
        let ending = || VmError::Ending(self.name.clone());
        let exchange = async {
            self.commands.send(command(reply)).await.map_err(|_| ending())?;
            answer.await.unwrap_or_else(|_| Err(ending()))
        };
        timeout(limit, exchange).await.unwrap_or_else(|_| Err(VmError::Silent(self.name.clone())))
    }
}
