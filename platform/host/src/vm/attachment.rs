//! The front-end of a VM's device: at most one at a time. It outlives the cell that serves it: what it
//! said is told to the next one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};
use vamos_proto::cell::{Attach, ROSTER_BYTES, to_cell};
use vamos_proto::id::VmId;

use crate::cell::adopt::Held;
use crate::cell::spawn::Cell;
use crate::keeper::custody::Custody;
use crate::keeper::relay::{Relay, RelayError};
use crate::keeper::socket::MessageSocket;
use crate::limits::SECOND_FRONT_END_GRACE;
use vamos_channel::ChannelError;

/// The relay of the connected front-end, if there is one. Dropping it ends the connection.
#[derive(Debug)]
pub(super) struct Attachment {
    vm: VmId,
    relays: JoinSet<Ended>,
    /// A front-end whose cell is gone, until there is another.
    kept: Option<Kept>,
    count: u64,
}

/// A front-end and the streams its guest has.
#[derive(Debug)]
struct Kept {
    relay: Relay,
    roster: OwnedFd,
}

/// How a relay ended: with the front-end if that is still there.
type Ended = Option<Kept>;

/// What became of an attached front-end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detached {
    /// It hung up, or was let go.
    FrontEnd,
    /// It is there, and the cell does not serve it any more.
    Cell,
}

impl Attachment {
    pub(super) fn new(vm: VmId) -> Self {
        Self { vm, relays: JoinSet::new(), kept: None, count: 0 }
    }

    pub(super) fn is_attached(&self) -> bool {
        !self.relays.is_empty()
    }

    /// Connects `front_end` to the cell, unless another one is connected.
    ///
    /// # Errors
    /// When the cell cannot be told; it is as good as gone.
    pub(super) async fn accept(&mut self, front_end: UnixStream, cell: &Cell) -> Result<(), ChannelError> {
        // A VMM that is restarted connects while its predecessor's connection is still being closed.
        if let Ok(Some(Ok(Some(kept)))) = timeout(SECOND_FRONT_END_GRACE, self.relays.join_next()).await {
            self.kept = Some(kept);
        }
        if self.is_attached() || self.kept.is_some() {
            warn!(vm = %self.vm, "a second front-end connected while one is attached: refused; end the first VMM, or give this one a socket of its own");
            return Ok(());
        }
        let (ours, theirs) = net::UnixStream::pair()?;
        let custody = Custody::of(cell.channel.sender());
        let relay =
            Relay::new(MessageSocket::accepted(front_end), MessageSocket::new(ours)?).kept_by(custody);
        let kept = Kept { relay, roster: roster()? };
        if let Err(error) = self.hand_over(theirs, kept.relay.cell(), &kept, false, cell).await {
            // The cell has just died: the next one gets the front-end, which need not know.
            self.kept = Some(kept);
            return Err(error);
        }
        info!(vm = %self.vm, attachment = self.count, "front-end attached");
        let (vm, attachment) = (self.vm.clone(), self.count);
        self.relays.spawn(async move { run(&vm, attachment, kept).await });
        Ok(())
    }

    /// Connects a front-end whose cell is gone to its successor; whether there is one.
    ///
    /// # Errors
    /// When the cell cannot be told; it is as good as gone, and the front-end is kept for the next.
    pub(super) async fn succeed(&mut self, cell: &Cell) -> Result<bool, ChannelError> {
        let Some(mut kept) = self.kept.take() else { return Ok(false) };
        if kept.relay.is_abandoned() {
            info!(vm = %self.vm, attachment = self.count, "front-end detached while it had no cell");
            return Ok(false);
        }
        let told = async {
            let (ours, theirs) = net::UnixStream::pair()?;
            let ours = MessageSocket::new(ours)?;
            self.hand_over(theirs, &ours, &kept, true, cell).await?;
            Ok::<_, ChannelError>(ours)
        };
        let socket = match told.await {
            Ok(socket) => socket,
            Err(error) => {
                self.kept = Some(kept);
                return Err(error);
            }
        };
        let (vm, attachment) = (self.vm.clone(), self.count);
        let custody = Custody::of(cell.channel.sender());
        self.relays.spawn(async move {
            match kept.relay.succeed(socket, custody).await {
                Ok(()) => {
                    info!(%vm, attachment, "the running guest has its device again");
                    run(&vm, attachment, kept).await
                }
                Err(error) => ended(&vm, attachment, &error, kept),
            }
        });
        Ok(true)
    }

    async fn hand_over(
        &mut self,
        socket: net::UnixStream,
        ours: &MessageSocket,
        kept: &Kept,
        succeeds: bool,
        cell: &Cell,
    ) -> Result<(), ChannelError> {
        self.count += 1;
        let attach = to_cell::Message::Attach(Attach { attachment: self.count, succeeds });
        let fds = [socket.as_fd(), kept.roster.as_fd(), kept.relay.front_end().as_fd(), ours.as_fd()];
        cell.channel.send(attach, &fds).await
    }

    /// Goes on with the front-end that a dead vamosd has left behind: with its cell, or, if that one does not
    /// know all it should, with the next.
    pub(super) fn adopt(&mut self, held: Held) {
        let Held { relay, roster, attachment, handled } = held;
        let (vm, mut kept) = (self.vm.clone(), Kept { relay, roster });
        self.count = attachment;
        let Some(handled) = handled else {
            self.kept = Some(kept);
            return;
        };
        self.relays.spawn(async move {
            match kept.relay.resume(handled).await {
                Ok(()) => run(&vm, attachment, kept).await,
                Err(error) => ended(&vm, attachment, &error, kept),
            }
        });
    }

    /// Whether a front-end waits for another cell.
    pub(super) fn needs_another_cell(&self) -> bool {
        self.kept.is_some()
    }

    /// Waits for the front-end or the cell to go; for ever when there is none.
    pub(super) async fn detached(&mut self) -> Detached {
        match self.relays.join_next().await {
            None => std::future::pending().await,
            Some(Ok(Some(kept))) => {
                self.kept = Some(kept);
                Detached::Cell
            }
            Some(_) => Detached::FrontEnd,
        }
    }

    /// The cell has ended: its front-end waits for the next.
    pub(super) async fn cell_ended(&mut self) {
        while let Some(ended) = self.relays.join_next().await {
            if let Ok(Some(kept)) = ended {
                self.kept = Some(kept);
            }
        }
    }

    /// Ends the connection.
    pub(super) async fn detach(&mut self) {
        self.kept = None;
        self.relays.shutdown().await;
    }
}

/// Memory for a device's streams. Sealed: whoever shrank it would kill the cell.
fn roster() -> io::Result<OwnedFd> {
    let memory = memfd_create("vamos-streams", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, ROSTER_BYTES as u64)?;
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memory)
}

async fn run(vm: &VmId, attachment: u64, mut kept: Kept) -> Ended {
    match kept.relay.run().await {
        Ok(()) => {
            info!(%vm, attachment, "front-end detached");
            None
        }
        Err(error) => ended(vm, attachment, &error, kept),
    }
}

fn ended(vm: &VmId, attachment: u64, error: &RelayError, kept: Kept) -> Ended {
    if error.is_of_cell() {
        info!(%vm, attachment, %error, "front-end kept, its cell is gone");
        return Some(kept);
    }
    warn!(%vm, attachment, %error, "front-end detached");
    None
}
