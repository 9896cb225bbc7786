//! The front-end of a VM's device: at most one at a time.

use std::os::fd::AsFd;
use std::os::unix::net;

use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};
use vamos_proto::cell::{Attach, to_cell};
use vamos_proto::id::VmId;

use crate::cell::channel::ChannelError;
use crate::cell::spawn::Cell;
use crate::keeper::relay::Relay;
use crate::keeper::socket::MessageSocket;
use crate::limits::SECOND_FRONT_END_GRACE;

/// The relay of the connected front-end, if there is one. Dropping it ends the connection.
#[derive(Debug)]
pub(super) struct Attachment {
    vm: VmId,
    relays: JoinSet<()>,
    count: u64,
}

impl Attachment {
    pub(super) fn new(vm: VmId) -> Self {
        Self { vm, relays: JoinSet::new(), count: 0 }
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
        let _ = timeout(SECOND_FRONT_END_GRACE, self.relays.join_next()).await;
        if self.is_attached() {
            warn!(vm = %self.vm, "a second front-end connected while one is attached: refused; end the first VMM, or give this one a socket of its own");
            return Ok(());
        }
        let (ours, theirs) = net::UnixStream::pair()?;
        let relay = Relay::new(MessageSocket::accepted(front_end), MessageSocket::new(ours)?);
        self.count += 1;
        let attach = to_cell::Message::Attach(Attach { attachment: self.count });
        cell.channel.send(attach, &[theirs.as_fd()]).await?;
        info!(vm = %self.vm, attachment = self.count, "front-end attached");
        self.relays.spawn(run(self.vm.clone(), self.count, relay));
        Ok(())
    }

    /// Waits for the front-end to go; for ever when there is none.
    pub(super) async fn detached(&mut self) {
        if self.relays.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends the connection.
    pub(super) async fn detach(&mut self) {
        self.relays.shutdown().await;
    }
}

async fn run(vm: VmId, attachment: u64, mut relay: Relay) {
    match relay.run().await {
        Ok(()) => info!(%vm, attachment, "front-end detached"),
        Err(error) => warn!(%vm, attachment, %error, "front-end detached"),
    }
}
