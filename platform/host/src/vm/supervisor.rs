//! The task of one VM. It starts the cell, serves until the cell ends, pauses, and starts it again:
//!
//! ```text
//!          +---------------------------- pause ----------------------------+
//!          v                                                               |
//!      STARTING --ready--> READY --front-end--> ATTACHED --cell ends--> BACKING OFF
//!          |                 ^---- hangs up --------+
//!          +-----refused---> BROKEN --pause--> STARTING
//! ```

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use vamos_channel::ChannelError;
use vamos_proto::cell::{
    Bind, Counters, Drain, Hold, Lease, Release, Snapshot, Start, StatsRequest, Unbind, from_cell, to_cell,
};
use vamos_proto::control::VmState;

use super::attachment::{Attachment, Detached};
use super::backoff::Backoff;
use super::tenancy::Tenancy;
use super::{Command, Reply, Status, VmError};
use crate::cell::adopt::Held;
use crate::cell::spawn::{Cell, Recipe, StartError};
use crate::edge::Links;
use crate::lease::Renewal;
use crate::limits::{ACCEPT_PAUSE, CELL_BACKOFF_MAX};

/// Questions a cell may leave unanswered before the oldest are given up.
const PENDING_MAX: usize = 256;

pub(super) struct Supervisor {
    recipe: Recipe,
    listener: UnixListener,
    socket: PathBuf,
    inbox: mpsc::Receiver<Command>,
    status: watch::Sender<Status>,
    attachment: Attachment,
    /// The cell of an earlier vamosd, until it is served with.
    adopted: Option<(Cell, Start)>,
    pending: HashMap<u64, Pending>,
    requests: u64,
    /// The right to a volume that is shared.
    tenancy: Option<Tenancy>,
    /// The cell has been told to keep the volume's files fit for being copied.
    holds: bool,
    /// How the cell gets to the edge, if there is one.
    edge: Option<Links>,
}

/// What is to be said when the supervisor has ended.
type Farewell = Box<dyn FnOnce() + Send>;

/// Who waits for an answer of the cell.
enum Pending {
    Done(Reply<()>),
    Stats(Reply<Counters>),
}

/// Why serving with one cell ended.
enum End {
    /// The cell did, by itself.
    Cell,
    /// It is to be replaced, for whom.
    Replace(Reply<()>),
    /// The VM is to end.
    Stop(Farewell),
    /// The VM leaves this host, for whom.
    Depart(Reply<bool>),
}

impl Supervisor {
    pub(super) fn new(
        recipe: Recipe,
        (tenancy, edge): (Option<Tenancy>, Option<Links>),
        listener: UnixListener,
        socket: PathBuf,
        inbox: mpsc::Receiver<Command>,
        status: watch::Sender<Status>,
    ) -> Self {
        let attachment = Attachment::new(recipe.vm.clone());
        let (adopted, pending) = (None, HashMap::new());
        let (requests, holds) = (0, false);
        Self {
            recipe,
            listener,
            socket,
            inbox,
            status,
            attachment,
            adopted,
            pending,
            requests,
            tenancy,
            holds,
            edge,
        }
    }

    /// Begins with the cell that an earlier vamosd has left behind, and its front-end.
    #[must_use]
    pub(super) fn collecting(mut self, cell: Cell, start: Start, front_end: Option<Held>) -> Self {
        if let Some(held) = front_end {
            self.attachment.adopt(held);
        }
        self.adopted = Some((cell, start));
        self
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let farewell = loop {
            let cell = match self.tenant().await {
                Ok(()) => self.cell().await,
                Err(error) => Err(error),
            };
            let pause = match cell {
                Ok(cell) => match self.serve(cell, &mut backoff).await {
                    Next::Pause(pause) => pause,
                    Next::Stop(farewell) => break Some(farewell),
                },
                Err(error) => self.not_started(&error, &mut backoff),
            };
            if let Some(farewell) = self.pause(pause).await {
                break Some(farewell);
            }
            if self.inbox.is_closed() {
                break None;
            }
        };
        if let Some(tenancy) = &mut self.tenancy {
            // Only one that is asked to end has ended its cell.
            if farewell.is_some() {
                tenancy.release().await;
            }
        }
        // The path is this VM's alone; nobody else binds it.
        let _ = fs::remove_file(&self.socket);
        if let Some(farewell) = farewell {
            farewell();
        }
    }

    /// The volume is this VM's, and where a cell may work in it is known.
    async fn tenant(&mut self) -> Result<(), StartError> {
        let Some(tenancy) = &mut self.tenancy else { return Ok(()) };
        match tenancy.claim().await {
            Ok(place) => {
                self.recipe.start.volume = place.display().to_string();
                self.recipe.volume = place;
                self.recipe.start.lease_until = tenancy.until().map_or(0, nanoseconds);
                Ok(())
            }
            Err(error) => {
                // One that another host has taken over from while there was no vamosd.
                if let Some((cell, _)) = self.adopted.take() {
                    let how = cell.end().await;
                    warn!(vm = %self.recipe.vm, how, "the cell of an earlier vamosd is ended: its volume is not ours now");
                    self.attachment.cell_ended().await;
                }
                Err(error)
            }
        }
    }

    /// The cell of an earlier vamosd, or another.
    async fn cell(&mut self) -> Result<Cell, StartError> {
        if let Some(cell) = self.collected().await {
            return Ok(cell);
        }
        self.recipe.remake().await?;
        self.recipe.start(self.listener.as_fd()).await
    }

    /// The cell of an earlier vamosd, told what has changed meanwhile. One that was started otherwise than it
    /// would be now is ended.
    async fn collected(&mut self) -> Option<Cell> {
        let (cell, mut had) = self.adopted.take()?;
        let (wanted, bound) = (&self.recipe.start.bindings, std::mem::take(&mut had.bindings));
        let lease_until = had.lease_until;
        let changed = had != Start { bindings: Vec::new(), lease_until, ..self.recipe.start.clone() };
        if changed || self.attachment.needs_another_cell() {
            let how = cell.end().await;
            info!(vm = %self.recipe.vm, how, "the cell of an earlier vamosd is of no use any more");
            self.attachment.cell_ended().await;
            return None;
        }
        let gone = bound.iter().filter(|old| wanted.iter().all(|new| new.name != old.name));
        let gone = gone
            .map(|old| to_cell::Message::Unbind(Unbind { request: 0, name: old.name.clone(), purge: false }));
        let new = wanted.iter().filter(|new| !bound.contains(new));
        let new = new.map(|new| to_cell::Message::Bind(Bind { request: 0, binding: Some(new.clone()) }));
        for change in gone.chain(new).collect::<Vec<_>>() {
            // One that cannot be told has ended, which is noticed next.
            let _ = cell.channel.send(change, &[]).await;
        }
        Some(cell)
    }

    fn not_started(&mut self, error: &StartError, backoff: &mut Backoff) -> Duration {
        let vm = &self.recipe.vm;
        if let (StartError::Waiting(detail), Some(tenancy)) = (error, &self.tenancy) {
            if self.status.borrow().detail != *detail {
                warn!(%vm, detail, "no cell yet");
            }
            let pause = tenancy.pause();
            self.publish(VmState::BackingOff, detail.clone());
            return pause;
        }
        warn!(%vm, %error, "the cell could not be started");
        let pause = if error.needs_operator() { CELL_BACKOFF_MAX } else { backoff.failed(Duration::ZERO) };
        let state = if error.needs_operator() { VmState::Broken } else { VmState::BackingOff };
        self.publish(state, error.to_string());
        pause
    }

    fn publish(&self, state: VmState, detail: String) {
        self.status.send_modify(|status| {
            status.state = state;
            status.detail = detail;
            if !matches!(state, VmState::Ready | VmState::Attached) {
                status.cell_pid = 0;
            }
        });
    }

    async fn serve(&mut self, mut cell: Cell, backoff: &mut Backoff) -> Next {
        let (vm, started) = (self.recipe.vm.clone(), Instant::now());
        info!(%vm, pid = cell.pid, "cell serves");
        self.status.send_modify(|status| {
            status.cell_pid = cell.pid;
            status.cell_starts += 1;
            status.layers.clone_from(&cell.layers);
        });
        self.publish(VmState::Ready, String::new());
        self.tell_tenancy(&cell).await;
        if self.edge.as_mut().is_some_and(Links::seen) {
            self.link_edge(&cell).await;
        }
        let end = match self.attachment.succeed(&cell).await {
            Ok(succeeds) => {
                if succeeds || self.attachment.is_attached() {
                    self.publish(VmState::Attached, String::new());
                }
                self.until_the_end(&mut cell).await
            }
            Err(_) => End::Cell,
        };
        self.pending.clear();
        let how = cell.reap().await;
        let held = std::mem::take(&mut self.holds);
        match end {
            End::Stop(_) | End::Depart(_) => self.attachment.detach().await,
            // Nothing else holds the other end of their sockets any more.
            End::Cell | End::Replace(_) => self.attachment.cell_ended().await,
        }
        match end {
            End::Cell => {
                let pause = backoff.failed(started.elapsed());
                let failures = backoff.failures();
                warn!(%vm, how, failures, ?pause, "the cell ended; it is started again");
                self.publish(
                    VmState::BackingOff,
                    format!("the cell ended ({how}), {failures} times in a row"),
                );
                Next::Pause(pause)
            }
            End::Replace(reply) => {
                info!(%vm, how, "the cell is replaced");
                self.publish(VmState::Starting, String::new());
                let _ = reply.send(Ok(()));
                Next::Pause(Duration::ZERO)
            }
            End::Stop(farewell) => Next::Stop(farewell),
            End::Depart(reply) => Next::Stop(departed(reply, held)),
        }
    }

    async fn until_the_end(&mut self, cell: &mut Cell) -> End {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((front_end, _)) => {
                        if self.attach(front_end, cell).await.is_err() {
                            return End::Cell;
                        }
                    }
                    Err(error) => pause_accepting(&self.recipe.vm, &error).await,
                },
                renewal = renewed(&mut self.tenancy) => match renewal {
                    Renewal::Valid => self.tell_tenancy(cell).await,
                    Renewal::Lost => {
                        warn!(vm = %self.recipe.vm, "another host has the volume: the cell is ended");
                        cell.kill();
                        return End::Cell;
                    }
                },
                () = edge_wanted(&mut self.edge) => self.link_edge(cell).await,
                detached = self.attachment.detached() => match detached {
                    Detached::FrontEnd => {
                        self.publish(VmState::Ready, String::new());
                        // It keeps the connection open otherwise.
                        if cell.channel.send(to_cell::Message::Release(Release {}), &[]).await.is_err() {
                            return End::Cell;
                        }
                    }
                    Detached::Cell => return End::Cell,
                },
                message = cell.channel.receive() => match message {
                    Ok(Some((message, _))) => self.heard(message),
                    Ok(None) => return End::Cell,
                    Err(error) => {
                        warn!(vm = %self.recipe.vm, %error, "the cell cannot be understood and is ended");
                        return End::Cell;
                    }
                },
                command = self.inbox.recv() => match self.obey(command, cell).await {
                    Ok(None) => {}
                    Ok(Some(end)) => return end,
                    Err(error) => {
                        warn!(vm = %self.recipe.vm, %error, "the cell cannot be told anything and is ended");
                        return End::Cell;
                    }
                },
            }
        }
    }

    /// Until when the cell may write.
    async fn tell_tenancy(&self, cell: &Cell) {
        let until = self.tenancy.as_ref().and_then(Tenancy::until);
        if let Some(until) = until.map(nanoseconds) {
            // One that cannot be told has ended, which is noticed next.
            let _ = cell.channel.send(to_cell::Message::Lease(Lease { until }), &[]).await;
        }
    }

    /// Joins the cell and the edge of the moment.
    async fn link_edge(&self, cell: &Cell) {
        let Some(edge) = &self.edge else { return };
        match vamos_channel::link() {
            Ok((ours, theirs)) => {
                edge.link(self.recipe.vm.clone(), ours).await;
                let linked = to_cell::Message::Edge(vamos_proto::cell::Edge {});
                // One that cannot be told has ended, which is noticed next.
                let _ = cell.channel.send(linked, &[theirs.as_fd()]).await;
            }
            Err(error) => warn!(vm = %self.recipe.vm, %error, "the cell cannot be linked to the edge"),
        }
    }

    async fn attach(&mut self, front_end: UnixStream, cell: &Cell) -> Result<(), ChannelError> {
        self.attachment.accept(front_end, cell).await?;
        self.publish(VmState::Attached, String::new());
        Ok(())
    }

    fn heard(&mut self, message: from_cell::Message) {
        match message {
            from_cell::Message::Done(done) => {
                if let Some(Pending::Done(reply)) = self.pending.remove(&done.request) {
                    let result = if done.error.is_empty() { Ok(()) } else { Err(self.cell_says(done.error)) };
                    let _ = reply.send(result);
                }
            }
            from_cell::Message::Stats(stats) => {
                if let Some(Pending::Stats(reply)) = self.pending.remove(&stats.request) {
                    let _ = reply.send(Ok(stats.counters.unwrap_or_default()));
                }
            }
            from_cell::Message::Detached(detached) if !detached.error.is_empty() => {
                warn!(vm = %self.recipe.vm, error = %detached.error.escape_debug(), "the device ended");
            }
            _ => {}
        }
    }

    fn cell_says(&self, reason: String) -> VmError {
        VmError::Cell { vm: self.recipe.vm.clone(), reason: reason.escape_debug().to_string() }
    }

    fn request(&mut self, pending: Pending) -> u64 {
        if self.pending.len() >= PENDING_MAX {
            // Their askers have long given up.
            self.pending.clear();
        }
        self.requests += 1;
        self.pending.insert(self.requests, pending);
        self.requests
    }

    /// Carries out a command with a cell at hand. `None` as command: nobody can command any more.
    async fn obey(&mut self, command: Option<Command>, cell: &mut Cell) -> Result<Option<End>, ChannelError> {
        match command {
            Some(Command::Bind { binding, reply }) => {
                self.remember(&binding);
                let request = self.request(Pending::Done(reply));
                let bind = Bind { request, binding: Some(*binding) };
                cell.channel.send(to_cell::Message::Bind(bind), &[]).await?;
            }
            Some(Command::Unbind { name, reply }) => {
                self.forget(&name);
                let request = self.request(Pending::Done(reply));
                let unbind = Unbind { request, name, purge: false };
                cell.channel.send(to_cell::Message::Unbind(unbind), &[]).await?;
            }
            Some(Command::Stats { reply }) => {
                let request = self.request(Pending::Stats(reply));
                cell.channel.send(to_cell::Message::Stats(StatsRequest { request }), &[]).await?;
            }
            Some(Command::Replace { drain, reply }) => {
                self.end_cell(cell, drain).await;
                return Ok(Some(End::Replace(reply)));
            }
            Some(Command::Stop { drain, reply }) => {
                self.end_cell(cell, Some(drain)).await;
                return Ok(Some(End::Stop(stopped(reply))));
            }
            Some(Command::Hold { release, reply }) => {
                self.holds = !release;
                let request = self.request(Pending::Done(reply));
                cell.channel.send(to_cell::Message::Hold(Hold { request, release }), &[]).await?;
            }
            Some(Command::Snapshot { reply }) => {
                let request = self.request(Pending::Done(reply));
                cell.channel.send(to_cell::Message::Snapshot(Snapshot { request }), &[]).await?;
            }
            Some(Command::Renew { recipe, reply }) => {
                self.end_cell(cell, None).await;
                self.recipe = *recipe;
                return Ok(Some(End::Replace(reply)));
            }
            Some(Command::Depart { reply }) => {
                self.end_cell(cell, None).await;
                return Ok(Some(End::Depart(reply)));
            }
            None => return Ok(Some(End::Cell)),
        }
        Ok(None)
    }

    /// Lets the cell finish its streams, for at most `drain`, then ends it. Its front-end stays connected
    /// meanwhile, for the streams' sake.
    async fn end_cell(&mut self, cell: &mut Cell, drain: Option<Duration>) {
        if let Some(drain) = drain {
            let deadline_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
            let ended = async {
                cell.channel.send(to_cell::Message::Drain(Drain { deadline_ms }), &[]).await?;
                while cell.channel.receive().await?.is_some() {}
                Ok::<_, ChannelError>(())
            };
            // The cell keeps the deadline itself; this is for one that does not.
            let _ = timeout(drain + Duration::from_secs(1), ended).await;
        }
        cell.kill();
    }

    fn remember(&mut self, binding: &vamos_proto::cell::Binding) {
        self.forget(&binding.name);
        self.recipe.start.bindings.push(binding.clone());
    }

    fn forget(&mut self, name: &str) {
        self.recipe.start.bindings.retain(|binding| binding.name != name);
    }

    /// Waits without a cell; what to say when the VM has ended, if somebody wants that.
    async fn pause(&mut self, pause: Duration) -> Option<Farewell> {
        let end = sleep(pause);
        tokio::pin!(end);
        let broken = self.status.borrow().state == VmState::Broken;
        loop {
            tokio::select! {
                () = &mut end => return None,
                // A short pause goes unnoticed: the front-end waits in the backlog. A broken VM must not
                // leave its VMM hanging.
                accepted = self.listener.accept(), if broken => match accepted {
                    Ok(_) => warn!(vm = %self.recipe.vm, "a front-end connected, but the VM has no cell: refused"),
                    Err(error) => pause_accepting(&self.recipe.vm, &error).await,
                },
                command = self.inbox.recv() => match command {
                    Some(Command::Stop { reply, .. }) => return Some(stopped(reply)),
                    Some(Command::Depart { reply }) => return Some(departed(reply, false)),
                    Some(command) => if self.obey_without_cell(command) { return None },
                    None => return None,
                },
            }
        }
    }

    /// Carries out what can be; whether a cell is to be started now.
    fn obey_without_cell(&mut self, command: Command) -> bool {
        let no_cell =
            || VmError::NoCell { vm: self.recipe.vm.clone(), detail: self.status.borrow().detail.clone() };
        match command {
            Command::Stats { reply } => {
                let _ = reply.send(Err(no_cell()));
            }
            Command::Bind { binding, reply } => {
                self.remember(&binding);
                let _ = reply.send(Ok(()));
                return true;
            }
            Command::Unbind { name, reply } => {
                self.forget(&name);
                let _ = reply.send(Ok(()));
                return true;
            }
            Command::Renew { recipe, reply } => {
                self.recipe = *recipe;
                let _ = reply.send(Ok(()));
                return true;
            }
            Command::Hold { release: false, reply } | Command::Snapshot { reply } => {
                let _ = reply.send(Err(no_cell()));
            }
            Command::Hold { release: true, reply } => {
                let _ = reply.send(Ok(()));
            }
            Command::Replace { reply, .. } => {
                let _ = reply.send(Ok(()));
                return true;
            }
            // `pause` has taken these.
            Command::Stop { .. } | Command::Depart { .. } => {}
        }
        false
    }
}

/// As a cell is told; centuries fit.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Never, where there is no edge.
async fn edge_wanted(edge: &mut Option<Links>) {
    match edge {
        Some(edge) => edge.wanted().await,
        None => std::future::pending().await,
    }
}

/// Never, where nothing is to be renewed.
async fn renewed(tenancy: &mut Option<Tenancy>) -> Renewal {
    match tenancy {
        Some(tenancy) => tenancy.renewed().await,
        None => std::future::pending().await,
    }
}

/// What to do after a cell has ended.
enum Next {
    Pause(Duration),
    Stop(Farewell),
}

fn stopped(reply: Reply<()>) -> Farewell {
    Box::new(move || drop(reply.send(Ok(()))))
}

/// `held`: the volume's files were fit for being copied until the cell ended.
fn departed(reply: Reply<bool>, held: bool) -> Farewell {
    Box::new(move || drop(reply.send(Ok(held))))
}

/// For want of descriptors or memory; others may give some back. The loop must not spin until then.
async fn pause_accepting(vm: &vamos_proto::id::VmId, error: &std::io::Error) {
    warn!(%vm, %error, "cannot accept a front-end now");
    sleep(ACCEPT_PAUSE).await;
}
