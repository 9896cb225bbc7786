//! The vhost-user vsock device of one VM: rings on one side, streams of bytes on the other.
//!
//! Everything runs on one thread, in one tokio `current_thread` runtime: the control socket
//! (`socket.rs`, `control.rs`), the rings (`ring.rs`, `chain.rs`), the passes between rings and
//! streams (`transport.rs`, driven by `event_loop.rs`), and the services, which the [`Acceptor`]
//! spawns onto the same runtime. A request crosses no thread on its way to a service and back. No
//! other thread exists. `control.rs` says why this is not built on `vhost-user-backend`.
//!
//! Only `chain.rs`, `ring.rs` and `memory.rs` touch guest memory, through `vm-memory`. It knows nothing of what is spoken on a stream, and decides
//! nothing about who may open one.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::task::JoinSet;
use vamos_proto::id::{GuestCid, VsockPort};
use vamos_service::ByteStream;

mod audit;
mod chain;
mod control;
mod counters;
mod event_loop;
pub mod fuzz;
pub mod limits;
mod memory;
mod polling;
mod ring;
mod roster;
mod socket;
mod stream;
mod transport;
mod watch;

pub use counters::{CounterSnapshot, Counters};
pub use polling::Polling;
pub use roster::{Roster, RosterError};
pub use socket::ControlError;

use control::Control;
use event_loop::EventLoop;
use polling::Window;
use socket::ControlSocket;
use transport::Transport;

/// What a device is to be.
#[derive(Debug, Clone, Copy)]
pub struct DeviceConfig {
    /// The guest's context id: what it is told, and the only source it may name.
    pub cid: GuestCid,
    /// Whether the ring thread may spin.
    pub polling: Polling,
}

/// Who decides about the streams a guest asks for.
pub trait Acceptor: Send + Sync + 'static {
    /// Called on the ring thread for each stream requested. True: the stream has been taken and
    /// is established. False, with `stream` dropped: the guest sees it refused. Must not block.
    fn accept(&self, port: VsockPort, stream: ByteStream) -> bool;
}

/// Why a device ended, or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The control socket could not be prepared.
    #[error("prepare the control socket")]
    Prepare(#[source] io::Error),
    /// The runtime could not watch a file descriptor.
    #[error("watch a file descriptor")]
    Watch(#[source] io::Error),
    /// The front-end broke the vhost-user protocol.
    #[error("talk to the vhost-user front-end")]
    Control(#[from] ControlError),
    /// The rings could not be made.
    #[error("make the rings")]
    Rings,
    /// The ring task ended by a panic or because its runtime did.
    #[error("run the ring task")]
    Task(#[source] tokio::task::JoinError),
}

/// One device, on one control socket.
pub struct Device {
    socket: ControlSocket,
    counters: Arc<Counters>,
    polling: Polling,
}

impl Device {
    /// A device for the front-end at the other end of `control`.
    ///
    /// # Errors
    /// [`DeviceError::Prepare`].
    pub fn new(
        control: UnixStream,
        config: DeviceConfig,
        acceptor: Arc<dyn Acceptor>,
        counters: Arc<Counters>,
    ) -> Result<Self, DeviceError> {
        let transport =
            Transport::new(config.cid, acceptor, Arc::clone(&counters)).map_err(|_| DeviceError::Rings)?;
        let socket =
            ControlSocket::new(control, Control::new(config.cid, transport)).map_err(DeviceError::Prepare)?;
        Ok(Self { socket, counters, polling: config.polling })
    }

    /// Writes the open streams into `roster`. With `succeeds`, the control socket will say what was said to
    /// the device that kept the roster last, and that was killed under a running guest: its streams are
    /// reset, its rings gone on with, and the guest is interrupted once.
    #[must_use]
    pub fn keeping(self, roster: Roster, succeeds: bool) -> Self {
        self.socket.control().transport.keep(roster, succeeds);
        self
    }

    /// Serves until the front-end hangs up; every stream has ended then. Needs a tokio
    /// `current_thread` runtime with I/O and time. Dropping the future ends the device.
    ///
    /// # Errors
    /// The front-end broke the protocol, or a system call failed that has no reason to.
    pub async fn run(self) -> Result<(), DeviceError> {
        let ring_task = EventLoop::new(self.socket, self.counters, Window::new(self.polling))?;
        // A task, not the runtime's root future: waking the root costs a system call.
        let mut task = JoinSet::new();
        task.spawn(ring_task.run());
        match task.join_next().await {
            Some(outcome) => outcome.map_err(DeviceError::Task)?,
            None => Ok(()),
        }
    }
}
