//! A process guest: this process plays the VMM and the guest's driver at once.
//!
//! It shares a memfd with the device (`memory.rs`), lays two real virtqueues out in it (`ring.rs`),
//! tells the device over vhost-user where they are (`front_end.rs`), and carries packets between
//! the rings and its streams in one task (`carrier.rs`). The streams are those of `vamos-vsock`,
//! the same code that the host's end runs, seen from the other side.
//!
//! Works in any tokio runtime. It is fastest in one where the stream's users are tasks, not the
//! runtime's root future: waking that costs a system call.

mod carrier;
mod front_end;
mod memory;
mod ring;
mod stream;
mod watch;

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use tokio::task::AbortHandle;
use vamos_proto::id::{GuestCid, VsockPort};

pub use carrier::LinkCounters;
use carrier::Shared;
pub use front_end::AttachError;
pub use stream::ProcessStream;

/// See the module. Clones are the same guest; it detaches when the last clone and the last stream
/// are gone.
#[derive(Debug, Clone)]
pub struct ProcessGuest(Arc<Attached>);

/// An attached device; detaches when dropped.
#[derive(Debug)]
pub(crate) struct Attached {
    shared: Arc<Shared>,
    carrier: AbortHandle,
    control: UnixStream,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Said aloud, not left to the runtime, which may not run again.
        let _ = self.control.shutdown(Shutdown::Both);
        self.carrier.abort();
    }
}

impl ProcessGuest {
    /// Attaches to the device behind the vhost-user socket at `socket`.
    ///
    /// # Errors
    /// The socket cannot be connected to, is in use by another guest, or is not a vsock device;
    /// the error's source is an [`AttachError`] then.
    pub async fn attach(socket: &Path) -> io::Result<Self> {
        let socket = socket.to_owned();
        Self::attach_with(move || UnixStream::connect(socket)).await
    }

    /// Attaches to the device at the other end of `socket`, which must be a blocking one.
    ///
    /// # Errors
    /// As [`ProcessGuest::attach`].
    pub async fn attach_stream(socket: UnixStream) -> io::Result<Self> {
        Self::attach_with(move || Ok(socket)).await
    }

    async fn attach_with(
        connect: impl FnOnce() -> io::Result<UnixStream> + Send + 'static,
    ) -> io::Result<Self> {
        // The conversation is a dozen messages, with blocking calls.
        let device = tokio::task::spawn_blocking(move || front_end::attach(connect()?)).await??;
        let control = device.control.try_clone()?;
        let (shared, carrier) = carrier::start(device)?;
        Ok(Self(Arc::new(Attached { shared, carrier, control })))
    }

    /// Opens a stream to the service on `port`.
    ///
    /// # Errors
    /// `ConnectionRefused` if nothing is bound there, `ConnectionReset` if the device is gone.
    pub async fn open(&self, port: VsockPort) -> io::Result<ProcessStream> {
        let id = self.0.shared.connect(port)?;
        let stream = ProcessStream::new(Arc::clone(&self.0), id);
        poll_fn(|cx| self.0.shared.streams().poll_connected(id, cx)).await?;
        Ok(stream)
    }

    /// What this guest has counted so far.
    pub fn counters(&self) -> LinkCounters {
        self.0.shared.counters()
    }

    /// The context id the device gave this guest.
    pub fn cid(&self) -> GuestCid {
        self.0.shared.cid()
    }
}
