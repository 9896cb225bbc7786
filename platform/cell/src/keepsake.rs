//! What the cell keeps for the next vamosd, so that the VM's device outlives the one that runs now: sockets,
//! memory, and what the front-end said. It looks at none of it.
//!
//! The cell holds duplicates. While it does, the front-end's connection stays open though vamosd is dead, and
//! whatever the front-end says meanwhile waits in its socket.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixListener;
use tracing::warn;
use vamos_proto::cell::{Attach, IN_HAND, Keep, Kept, Layer, Settle, Start};

use crate::limits::KEPT_MESSAGES_MAX;

/// Descriptors of a `Start`: where the next vamosd connects, the front-ends' listener, the log.
type Given = [OwnedFd; 3];

/// See the module.
#[derive(Debug)]
pub(crate) struct Keepsake {
    rendezvous: UnixListener,
    vamosd_uid: u32,
    always: [OwnedFd; 2],
    attached: Option<Attached>,
    messages: BTreeMap<u32, (Keep, Vec<OwnedFd>)>,
}

/// A front-end's socket, vamosd's end of the device's, the memory of the streams.
#[derive(Debug)]
struct Attached {
    attach: Attach,
    fds: [OwnedFd; 3],
}

impl Keepsake {
    /// Keeps what came with `Start`. vamosd, this one and the next, is of user `vamosd_uid`.
    pub(crate) fn new(vamosd_uid: u32, given: Vec<OwnedFd>) -> io::Result<Self> {
        let [rendezvous, listener, log] = Given::try_from(given).map_err(|given| {
            io::Error::new(io::ErrorKind::InvalidData, format!("a Start with {} descriptors", given.len()))
        })?;
        let rendezvous = net::UnixListener::from(rendezvous);
        rendezvous.set_nonblocking(true)?;
        Ok(Self {
            rendezvous: UnixListener::from_std(rendezvous)?,
            vamosd_uid,
            always: [listener, log],
            attached: None,
            messages: BTreeMap::new(),
        })
    }

    /// A front-end was attached; what another had said is void.
    pub(crate) fn attach(&mut self, attach: Attach, fds: [OwnedFd; 3]) {
        self.messages.clear();
        self.attached = Some(Attached { attach, fds });
    }

    /// It is gone.
    pub(crate) fn release(&mut self) {
        self.messages.clear();
        self.attached = None;
    }

    pub(crate) fn keep(&mut self, keep: Keep, fds: Vec<OwnedFd>) {
        if self.messages.len() < KEPT_MESSAGES_MAX || self.messages.contains_key(&keep.slot) {
            self.messages.insert(keep.slot, (keep, fds));
        } else {
            warn!(slot = keep.slot, "too many messages to keep");
        }
    }

    pub(crate) fn settle(&mut self, settle: &Settle) {
        let done = self.messages.remove(&IN_HAND);
        for slot in &settle.forget {
            self.messages.remove(slot);
        }
        if let Some((keep, fds)) = done
            && settle.slot != IN_HAND
        {
            self.keep(Keep { slot: settle.slot, ..keep }, fds);
        }
    }

    /// Waits for the next vamosd. Nobody else can reach the socket; this holds if somebody can.
    pub(crate) async fn next_vamosd(&self) -> io::Result<net::UnixStream> {
        loop {
            let (socket, _) = self.rendezvous.accept().await?;
            let uid = socket.peer_cred()?.uid();
            if uid == self.vamosd_uid {
                return socket.into_std();
            }
            warn!(uid, "a stranger asked for what is kept: refused");
        }
    }

    /// Whether a front-end is still there.
    pub(crate) fn is_needed(&self) -> bool {
        let Some(attached) = &self.attached else { return false };
        let mut fds = [PollFd::new(&attached.fds[0], PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready == 0)
    }

    /// All of it, for the next vamosd.
    pub(crate) fn kept(&self, start: &Start, layers: Vec<Layer>) -> (Kept, Vec<BorrowedFd<'_>>) {
        let messages = self.messages.values().map(|(keep, _)| keep.clone()).collect();
        let kept = Kept {
            start: Some(start.clone()),
            attachment: self.attached.as_ref().map_or(0, |attached| attached.attach.attachment),
            succeeds: self.attached.as_ref().is_some_and(|attached| attached.attach.succeeds),
            messages,
            layers,
        };
        let attached = self.attached.iter().flat_map(|attached| &attached.fds);
        let messages = self.messages.values().flat_map(|(_, fds)| fds);
        (kept, self.always.iter().chain(attached).chain(messages).map(AsFd::as_fd).collect())
    }
}
