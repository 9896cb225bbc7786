//! A process guest: the client is itself the vhost-user front-end and the driver, over a memfd with
//! real rings. It needs no VM, runs at native speed, and is how the channel is measured and how
//! a thousand "VMs" fit in a test.
//!
//! The rings belong to whoever holds the lock: a task that writes and flushes moves its packets
//! itself; a carrier task on the same runtime waits for the device's calls and for what was
//! written without a flush, so that the packets of all tasks that were ready leave together.

mod driver;
mod front_end;
mod memory;
mod ring;
mod stream;

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{AbortHandle, spawn_blocking};
use vamos_proto::id::{GuestCid, VsockPort};

use driver::Driver;
use memory::Map;

pub use stream::ProcessStream;

/// Notifications of a process guest since it attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Guest to host, sent.
    pub kicks_sent: u64,
    /// Guest to host, not needed because the device was looking.
    pub kicks_suppressed: u64,
    /// Host to guest; several that came before the guest looked count as one.
    pub calls_received: u64,
}

/// An attached process guest. Clones share it; it detaches when the last clone and stream are gone.
#[derive(Debug, Clone)]
pub struct ProcessGuest(Arc<Attached>);

#[derive(Debug)]
struct Attached {
    driver: Arc<Mutex<Driver>>,
    cid: GuestCid,
    carrier: AbortHandle,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Attached {
    /// No code panics while it holds the lock with the driver half changed; a poisoned lock is as good.
    fn lock(&self) -> MutexGuard<'_, Driver> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProcessGuest {
    /// Attaches to the VM behind the vhost-user socket at `socket`, within a tokio runtime.
    ///
    /// # Errors
    /// The socket cannot be reached, or the device refused a message: the error says which.
    pub async fn attach(socket: &Path) -> io::Result<Self> {
        let socket: PathBuf = socket.to_owned();
        let map = Map::new();
        let attaching = spawn_blocking(move || {
            let memory = map.allocate()?;
            let attachment = front_end::attach(&socket, &memory, &map)?;
            io::Result::Ok((attachment, memory))
        });
        let (attachment, memory) = attaching.await.map_err(io::Error::other)??;
        let cid = attachment.cid;
        let receive = Watched::new(attachment.receive.watch_call()?)?;
        let transmit = Watched::new(attachment.transmit.watch_call()?)?;
        let control = attachment.control.try_clone()?;
        control.set_nonblocking(true)?;
        let control = tokio::net::UnixStream::from_std(control)?;
        let driver = Arc::new(Mutex::new(Driver::start(attachment, memory, map)?));
        let carrier = Carrier { driver: driver.clone(), receive, transmit, control };
        let carrier = tokio::spawn(carrier.run()).abort_handle();
        Ok(Self(Arc::new(Attached { driver, cid, carrier })))
    }

    /// Opens a stream to the service on `port`.
    ///
    /// # Errors
    /// `ConnectionRefused`: nothing answers there. `NotConnected`: the device is gone.
    pub async fn open(&self, port: VsockPort) -> io::Result<ProcessStream> {
        let id = {
            let mut driver = self.0.lock();
            if let Some(kind) = driver.failure() {
                return Err(io::Error::new(kind, "the device of this process guest is gone"));
            }
            let id = driver.mux.connect(port)?;
            driver.pump();
            id
        };
        let stream = ProcessStream::new(self.0.clone(), id);
        poll_fn(|cx| self.0.lock().mux.poll_connected(id, cx)).await?;
        Ok(stream)
    }

    /// This guest's CID, as the device says.
    pub fn cid(&self) -> GuestCid {
        self.0.cid
    }

    /// Notifications so far.
    pub fn counters(&self) -> Counters {
        self.0.lock().counters
    }
}

/// The device's end of a call: watched, never read, because each write to an eventfd is an edge of its own.
#[derive(Debug)]
struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    #[allow(unsafe_code, reason = "tokio registers descriptors by number")]
    fn new(call: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` always returns the same open descriptor, and the registration owns it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(call, Interest::READABLE) }?))
    }

    /// Whether it was called since the last time; else the task is woken when it is.
    fn take(&self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut called = false;
        // Once more after clearing: a call in between must leave a waker behind.
        while let Poll::Ready(guard) = self.0.poll_read_ready(cx) {
            guard?.clear_ready();
            called = true;
        }
        Ok(called)
    }
}

/// Moves packets when the device calls, and what was written without a flush.
struct Carrier {
    driver: Arc<Mutex<Driver>>,
    receive: Watched,
    transmit: Watched,
    control: tokio::net::UnixStream,
}

impl Carrier {
    async fn run(self) {
        let error = poll_fn(|cx| self.poll(cx)).await;
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        driver.lose_device(error);
    }

    /// Ready only when the device is gone.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::ErrorKind> {
        if self.hung_up(cx) {
            return Poll::Ready(io::ErrorKind::NotConnected);
        }
        let (received, transmitted) = match (self.receive.take(cx), self.transmit.take(cx)) {
            (Ok(received), Ok(transmitted)) => (received, transmitted),
            (Err(error), _) | (_, Err(error)) => return Poll::Ready(error.kind()),
        };
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        driver.counters.calls_received += u64::from(received) + u64::from(transmitted);
        driver.pump();
        driver.mux.wake_when_departing(cx.waker());
        match driver.failure() {
            Some(kind) => Poll::Ready(kind),
            None => Poll::Pending,
        }
    }

    /// After the handshake the device's side says nothing more until it closes the socket.
    fn hung_up(&self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(readable) = self.control.poll_read_ready(cx) {
            let mut byte = [0];
            match readable.and_then(|()| self.control.try_read(&mut byte)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) | Ok(0) => return true,
                Ok(_) => {}
            }
        }
        false
    }
}
