//! What the owner of a stream does with it: connect, read, write, shut down, let go.
//!
//! `poll_*` keep the caller's waker and return `Pending`, as any `poll` function; a stream has one
//! reader and one writer at a time.

use std::task::{Context, Poll, Waker};

use vamos_proto::id::VsockPort;

use crate::connection::{Connection, State, StreamError};
use crate::limits::{DEVICE_SEND_BYTES_MAX, STREAM_SEND_BYTES_MAX, STREAM_SEND_BYTES_MIN};
use crate::mux::{Mux, StreamId};

impl Mux {
    /// Asks the peer for a stream to `port`.
    ///
    /// # Errors
    /// [`StreamError::TooMany`].
    pub fn connect(&mut self, port: VsockPort) -> Result<StreamId, StreamError> {
        let (window, ports) = self.admit_local(port)?;
        let connection = Connection::from_local(window, self.config.counters_start);
        Ok(StreamId::of(self.insert(connection, ports)))
    }

    /// Whether the peer has answered a [`Mux::connect`].
    ///
    /// # Errors
    /// [`StreamError::Refused`].
    pub fn poll_connected(&mut self, id: StreamId, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let (_, entry) = self.entry(id)?;
        match entry.connection.state() {
            State::LocalRequested => {
                remember(&mut entry.connection.writer, cx);
                Poll::Pending
            }
            State::PeerReset | State::LocalReset => Poll::Ready(Err(StreamError::Refused)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// How large a buffer [`Mux::poll_read`] can make use of now, at least 1: preparing more of it would be
    /// work for nothing.
    pub fn read_size(&self, id: StreamId) -> usize {
        self.unread_bytes(id).max(1)
    }

    /// Reads at least one byte; 0 at the end of the stream.
    ///
    /// # Errors
    /// [`StreamError::Reset`], after everything that had been received.
    pub fn poll_read(
        &mut self,
        id: StreamId,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<Result<usize, StreamError>> {
        let (slot, entry) = self.entry(id)?;
        match entry.connection.read(out)? {
            Some(bytes) => {
                self.list(slot);
                Poll::Ready(Ok(bytes))
            }
            None => {
                remember(&mut entry.connection.reader, cx);
                Poll::Pending
            }
        }
    }

    /// Takes at least one of `bytes` for sending.
    ///
    /// # Errors
    /// [`StreamError::Reset`], [`StreamError::Closed`].
    pub fn poll_write(
        &mut self,
        id: StreamId,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, StreamError>> {
        let full = self.unsent_bytes >= DEVICE_SEND_BYTES_MAX;
        let (slot, entry) = self.entry(id)?;
        let room = if full { STREAM_SEND_BYTES_MIN } else { STREAM_SEND_BYTES_MAX };
        let room = room.saturating_sub(entry.connection.unsent_bytes());
        match entry.connection.write(bytes, room)? {
            Some(taken) => {
                self.unsent_bytes += taken;
                self.list(slot);
                Poll::Ready(Ok(taken))
            }
            None => {
                remember(&mut entry.connection.writer, cx);
                Poll::Pending
            }
        }
    }

    /// Ends the writing direction; ready once the last byte and the SHUTDOWN have left.
    ///
    /// # Errors
    /// [`StreamError::Reset`] if the device does not know the stream.
    pub fn poll_shutdown(&mut self, id: StreamId, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let (slot, entry) = self.entry(id)?;
        if entry.connection.shutdown() {
            return Poll::Ready(Ok(()));
        }
        remember(&mut entry.connection.writer, cx);
        self.list(slot);
        Poll::Pending
    }

    /// The owner lets go. What it wrote still leaves, then the peer is told that the stream is
    /// closed; a stream that was never accepted is refused.
    pub fn close(&mut self, id: StreamId) {
        let Ok((slot, entry)) = self.entry(id) else { return };
        entry.owned = false;
        entry.connection.close();
        self.list(slot);
        self.settle(slot);
    }
}

fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}
