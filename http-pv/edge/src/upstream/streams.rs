//! The streams that a guest keeps open for one binding. On each the edge is the HTTP/2 client.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout_at;
use tracing::debug;
use vamos_http_message::Body;

use crate::limits::{
    ANSWER_HEAD_BYTES_MAX, CONNECTION_WINDOW_BYTES, STREAM_WAIT_MAX, STREAM_WINDOW_BYTES, WAITING_MAX,
};

/// Why there is no stream to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It has opened none for a while.
    #[error("the VM has no stream open")]
    None,
    /// Too many wait for one already.
    #[error("too many requests wait for the VM")]
    Crowded,
}

/// Those of one target.
#[derive(Debug, Default)]
pub struct Streams {
    state: Mutex<State>,
    opened: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Open>,
    /// Which is next.
    turn: usize,
    waiting: usize,
    /// Since when there is none. One that never had any is as if it had just lost them.
    none_since: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Body>,
    connection: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Streams {
    /// Takes a stream that the guest has opened. Served on the runtime this is called on.
    ///
    /// # Errors
    /// It cannot be watched, or what came on it is not HTTP/2.
    pub async fn add(&self, stream: OwnedFd) -> io::Result<()> {
        let stream = std::os::unix::net::UnixStream::from(stream);
        stream.set_nonblocking(true)?;
        let stream = TokioIo::new(UnixStream::from_std(stream)?);
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(ANSWER_HEAD_BYTES_MAX);
        let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
        let serving = tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a guest's stream broke");
            }
        });
        let mut state = self.lock();
        state.sweep();
        state.open.push(Open { sender, connection: serving.abort_handle() });
        state.none_since = None;
        drop(state);
        self.opened.notify_waiters();
        Ok(())
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        let mut state = self.lock();
        state.sweep();
        state.open.len()
    }

    /// Ends all of them.
    pub fn end(&self) {
        self.lock().open.clear();
    }

    /// One of them, each in its turn. Waits for a while if there is none: a guest whose cell was lost opens others
    /// within milliseconds. One that had none for longer than that is not waited for.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn next(&self) -> Result<SendRequest<Body>, StreamError> {
        if let Some(sender) = self.lock().next() {
            return Ok(sender);
        }
        let _place = self.wait_in_line()?;
        let since = *self.lock().none_since.get_or_insert_with(Instant::now);
        let until = since + STREAM_WAIT_MAX;
        loop {
            let mut opened = std::pin::pin!(self.opened.notified());
            // From now on none is missed.
            opened.as_mut().enable();
            if let Some(sender) = self.lock().next() {
                return Ok(sender);
            }
            // A look now and then, for one that broke unseen while it was the last.
            timeout_at(until.into(), opened).await.map_err(|_| StreamError::None)?;
        }
    }

    fn wait_in_line(&self) -> Result<Place<'_>, StreamError> {
        let mut state = self.lock();
        if state.waiting >= WAITING_MAX {
            return Err(StreamError::Crowded);
        }
        state.waiting += 1;
        Ok(Place(self))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long there has been none.
    pub fn none_for(&self) -> Option<Duration> {
        self.lock().none_since.map(|since| since.elapsed())
    }
}

impl State {
    fn sweep(&mut self) {
        self.open.retain(|open| !open.sender.is_closed());
    }

    fn next(&mut self) -> Option<SendRequest<Body>> {
        self.sweep();
        self.turn = self.turn.wrapping_add(1);
        let sender = self.open.get(self.turn.checked_rem(self.open.len())?)?.sender.clone();
        self.none_since = None;
        Some(sender)
    }
}

/// A place among those who wait.
struct Place<'a>(&'a Streams);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}
