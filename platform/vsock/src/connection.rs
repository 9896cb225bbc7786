//! One connection: its state, its two buffers, its credit. No table, no addresses, no I/O.
//!
//! A connection begins with a REQUEST and lives until a RST has crossed in either direction.
//! States are named after who caused them; "peer" is the other end of the device, "local" is the
//! owner of the stream on this end (a service on the host, a client in a process guest).
//!
//! ```text
//!   peer: REQUEST                                local: connect (REQUEST leaves)
//!        │                                             │
//!        ▼                                             ▼
//!   PeerRequested                               LocalRequested
//!        │ local accepts (RESPONSE leaves)             │ peer: RESPONSE
//!        │ local refuses ─► LocalReset                 │ peer: RST ─► PeerReset
//!        └──────────────► Established ◄────────────────┘
//!                              │
//!    either side may end one direction and stay here: SHUTDOWN(send) means the
//!    sender's bytes have ended, SHUTDOWN(receive) that it will take no more
//!                              │
//!      ┌───────────────────────┼──────────────────────────┬─────────────────────┐
//!      │ local: dropped        │ peer: SHUTDOWN(both)     │ peer: RST           │ peer broke the
//!      ▼                       ▼                          ▼                     ▼ rules, or local reset
//!  LocalClosed             PeerClosed                 PeerReset             LocalReset
//!  what was written        RST leaves                                       RST leaves
//!  leaves, then
//!  SHUTDOWN(both);
//!  ends with the
//!  peer's RST
//! ```
//!
//! The last three are off the wire: the ports are free at once. What had already been received
//! stays readable, followed by an end (`PeerClosed`) or an error (`PeerReset`, `LocalReset`).
//!
//! `fwd_cnt` advances in [`Connection::read`] alone, when bytes leave for their owner: a receiver
//! that stops reading closes its own window, and nobody else's.

use std::io;
use std::task::Waker;

use bytes::{Buf, BytesMut};

use crate::credit::{ReceiveWindow, SendCredit};
use crate::limits::{IDLE_BUFFER_BYTES_MAX, PACKET_PAYLOAD_BYTES_MAX};
use crate::mux::Violation;
use crate::protocol::{Header, Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// A packet's payload, still where the transport has it. It is read at most once.
pub trait Payload {
    /// Appends exactly `len` bytes to `out`, or nothing.
    ///
    /// # Errors
    /// [`PayloadError`]: there are not `len` bytes there.
    fn append_to(self, out: &mut BytesMut, len: usize) -> Result<(), PayloadError>;
}

/// A packet has less payload than its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("payload is shorter than its header says")]
pub struct PayloadError;

impl Payload for &[u8] {
    fn append_to(self, out: &mut BytesMut, len: usize) -> Result<(), PayloadError> {
        out.extend_from_slice(self.get(..len).ok_or(PayloadError)?);
        Ok(())
    }
}

/// Why a stream cannot be used as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Nobody accepts on that port, or the device has no room for another stream.
    #[error("connection refused")]
    Refused,
    /// The peer, or the channel itself, went away in mid-stream.
    #[error("connection reset")]
    Reset,
    /// The peer takes no more, or the stream was shut down for writing.
    #[error("stream closed for writing")]
    Closed,
    /// This end has as many streams as it may.
    #[error("too many open streams")]
    TooMany,
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Refused => io::ErrorKind::ConnectionRefused,
            StreamError::Reset => io::ErrorKind::ConnectionReset,
            StreamError::Closed => io::ErrorKind::BrokenPipe,
            StreamError::TooMany => io::ErrorKind::QuotaExceeded,
        };
        io::Error::new(kind, error)
    }
}

/// See the module's picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    PeerRequested,
    LocalRequested,
    Established,
    LocalClosed,
    PeerClosed,
    PeerReset,
    LocalReset,
}

/// Packets that have to leave besides payload. At most one of each is ever owed, so a peer that
/// floods us with requests for them makes nothing grow.
#[derive(Debug, Default)]
struct Owed {
    request: bool,
    response: bool,
    reset: bool,
    shutdown: bool,
    credit_update: bool,
    credit_request: bool,
}

/// A packet that is to leave: the operation, its flags, and how much of the unsent bytes go with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Departure {
    pub operation: Operation,
    pub flags: u32,
    pub bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    window: ReceiveWindow,
    credit: SendCredit,
    /// Received, not yet read by the owner: at most the window's size.
    received: BytesMut,
    /// Written by the owner, not yet sent.
    unsent: BytesMut,
    owed: Owed,
    /// The owner writes no more; SHUTDOWN follows the last unsent byte.
    local_sent_all: bool,
    /// A credit request is out and has not been answered yet.
    credit_requested: bool,
    peer_sent_all: bool,
    peer_takes_no_more: bool,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
}

impl Connection {
    fn new(state: State, window: u32, start: u32) -> Self {
        Self {
            state,
            window: ReceiveWindow::new(window, start),
            credit: SendCredit::new(start),
            received: BytesMut::new(),
            unsent: BytesMut::new(),
            owed: Owed::default(),
            local_sent_all: false,
            credit_requested: false,
            peer_sent_all: false,
            peer_takes_no_more: false,
            reader: None,
            writer: None,
        }
    }

    /// A connection the peer asks for with `request`.
    pub(crate) fn from_peer(request: &Header, window: u32, start: u32) -> Self {
        let mut connection = Self::new(State::PeerRequested, window, start);
        connection.credit.learn(request);
        connection
    }

    /// A connection we ask for.
    pub(crate) fn from_local(window: u32, start: u32) -> Self {
        let mut connection = Self::new(State::LocalRequested, window, start);
        connection.owed.request = true;
        connection
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn window_bytes(&self) -> u32 {
        self.window.alloc()
    }

    pub(crate) fn unsent_bytes(&self) -> usize {
        self.unsent.len()
    }

    /// Nothing more will cross the wire for this connection: its ports are free.
    pub(crate) fn off_the_wire(&self) -> bool {
        matches!(self.state, State::PeerClosed | State::PeerReset | State::LocalReset) && !self.owed.reset
    }

    /// The owner has left and everything it wrote has been sent: only the peer's RST is missing.
    pub(crate) fn awaits_only_reset(&self) -> bool {
        self.state == State::LocalClosed && self.unsent.is_empty() && !self.owed.shutdown
    }

    // --- from the peer ---

    /// Takes one packet. An error means that the connection must be reset.
    pub(crate) fn receive(
        &mut self,
        operation: Operation,
        header: &Header,
        payload: impl Payload,
    ) -> Result<(), Violation> {
        if operation != Operation::ReadWrite && header.len != 0 {
            return Err(Violation::Malformed);
        }
        self.credit.learn(header);
        self.credit_requested = false;
        match (operation, self.state) {
            (Operation::Reset, _) => self.end(State::PeerReset),
            (Operation::Response, State::LocalRequested) => {
                self.state = State::Established;
                self.wake_both();
            }
            (Operation::ReadWrite, State::Established) => self.receive_payload(header, payload)?,
            // The owner has left and the peer has been, or is about to be, told so: what it sent
            // before it heard has nobody to go to, but must not stop what is still owed to it.
            (Operation::ReadWrite, State::LocalClosed) => {
                if !self.window.admit(header.len) {
                    return Err(Violation::CreditExceeded);
                }
                self.window.consume(header.len);
            }
            (Operation::Shutdown, State::Established | State::LocalClosed) => {
                self.receive_shutdown(header.flags)?
            }
            (Operation::CreditUpdate, State::Established | State::LocalClosed) => self.wake_writer(),
            (Operation::CreditRequest, State::Established | State::LocalClosed) => {
                self.owed.credit_update = true
            }
            // REQUEST on a connection that exists, anything before RESPONSE.
            _ => return Err(Violation::OutOfOrder),
        }
        Ok(())
    }

    fn receive_payload(&mut self, header: &Header, payload: impl Payload) -> Result<(), Violation> {
        if self.peer_sent_all {
            return Err(Violation::OutOfOrder);
        }
        if header.len as usize > PACKET_PAYLOAD_BYTES_MAX {
            return Err(Violation::Malformed);
        }
        if !self.window.admit(header.len) {
            return Err(Violation::CreditExceeded);
        }
        payload.append_to(&mut self.received, header.len as usize).map_err(|_| Violation::Malformed)?;
        if header.len != 0 {
            self.wake_reader();
        }
        Ok(())
    }

    fn receive_shutdown(&mut self, flags: u32) -> Result<(), Violation> {
        if flags & !(SHUTDOWN_RECEIVE | SHUTDOWN_SEND) != 0 || flags == 0 {
            return Err(Violation::Malformed);
        }
        self.peer_sent_all |= flags & SHUTDOWN_SEND != 0;
        self.peer_takes_no_more |= flags & SHUTDOWN_RECEIVE != 0;
        if self.peer_sent_all && self.peer_takes_no_more {
            self.end(State::PeerClosed);
            self.owed.reset = true;
        } else if self.peer_takes_no_more {
            self.unsent = BytesMut::new();
        }
        self.wake_both();
        Ok(())
    }

    /// Ends the connection from our side: RST leaves.
    pub(crate) fn reset(&mut self) {
        self.end(State::LocalReset);
        self.owed.reset = true;
    }

    /// Ends the connection without a word to the peer, which is gone itself.
    pub(crate) fn lose(&mut self) {
        self.end(State::PeerReset);
    }

    fn end(&mut self, state: State) {
        // The first end is the true one: a RST after an orderly close must not become an error.
        if !matches!(self.state, State::PeerClosed | State::PeerReset | State::LocalReset) {
            let orderly = self.state == State::Established && self.peer_sent_all && self.local_sent_all;
            self.state = if orderly && state == State::PeerReset { State::PeerClosed } else { state };
        }
        self.unsent = BytesMut::new();
        self.owed = Owed::default();
        self.wake_both();
    }

    // --- to the peer ---

    fn can_send_payload(&self) -> bool {
        !self.unsent.is_empty() && self.credit.available() > 0
    }

    fn shutdown_is_due(&self) -> bool {
        self.owed.shutdown && self.unsent.is_empty()
    }

    /// Whether [`Connection::departure`] has something, given room for payload.
    pub(crate) fn has_departure(&self) -> bool {
        let Owed { request, response, reset, credit_update, credit_request, .. } = self.owed;
        if request || response || reset {
            return true;
        }
        matches!(self.state, State::Established | State::LocalClosed)
            && (self.can_send_payload() || self.shutdown_is_due() || credit_update || credit_request)
    }

    /// The next packet, in the order the peer must see them; payload of at most `room` bytes.
    pub(crate) fn departure(&self, room: usize) -> Option<Departure> {
        let plain = |operation| Some(Departure { operation, flags: 0, bytes: 0 });
        if self.owed.reset {
            return plain(Operation::Reset);
        }
        if self.owed.request {
            return plain(Operation::Request);
        }
        if self.owed.response {
            return plain(Operation::Response);
        }
        if !matches!(self.state, State::Established | State::LocalClosed) {
            return None;
        }
        if self.can_send_payload() && room > 0 {
            let credit = self.credit.available() as usize;
            let bytes = self.unsent.len().min(credit).min(room).min(PACKET_PAYLOAD_BYTES_MAX);
            return Some(Departure { operation: Operation::ReadWrite, flags: 0, bytes });
        }
        if self.shutdown_is_due() {
            let both = if self.state == State::LocalClosed { SHUTDOWN_RECEIVE } else { 0 };
            return Some(Departure { operation: Operation::Shutdown, flags: SHUTDOWN_SEND | both, bytes: 0 });
        }
        if self.owed.credit_update {
            return plain(Operation::CreditUpdate);
        }
        if self.owed.credit_request { plain(Operation::CreditRequest) } else { None }
    }

    /// Fills in the credit fields of a header that is about to leave.
    pub(crate) fn stamp(&self, header: &mut Header) {
        self.window.stamp(header);
    }

    /// The bytes that go with `departure`.
    pub(crate) fn payload(&self, departure: &Departure) -> &[u8] {
        &self.unsent[..departure.bytes]
    }

    /// `departure` has left, with a header stamped just before.
    pub(crate) fn departed(&mut self, departure: &Departure) {
        // Every packet carries the credit.
        self.window.told();
        self.owed.credit_update = false;
        match departure.operation {
            Operation::Request => self.owed.request = false,
            Operation::Response => self.owed.response = false,
            Operation::Reset => self.owed.reset = false,
            Operation::Shutdown => {
                self.owed.shutdown = false;
                self.wake_writer();
            }
            Operation::CreditUpdate => {}
            Operation::CreditRequest => self.owed.credit_request = false,
            Operation::ReadWrite => {
                self.credit.spend(departure.bytes as u32);
                self.unsent.advance(departure.bytes);
                trim(&mut self.unsent);
                self.wake_writer();
            }
        }
        self.request_credit_if_dry();
    }

    /// Asks for credit, once, when there are bytes and no credit: a peer need not tell on its own.
    fn request_credit_if_dry(&mut self) {
        let dry = !self.unsent.is_empty() && self.credit.available() == 0;
        if dry && !self.credit_requested && matches!(self.state, State::Established | State::LocalClosed) {
            self.credit_requested = true;
            self.owed.credit_request = true;
        }
    }

    // --- from the owner ---

    /// Accepts what the peer requested. No effect in any other state.
    pub(crate) fn accept(&mut self) {
        if self.state == State::PeerRequested {
            self.state = State::Established;
            self.owed.response = true;
        }
    }

    /// Bytes received that have not been read.
    pub(crate) fn unread_bytes(&self) -> usize {
        self.received.len()
    }

    /// Takes received bytes into `out`: how many, 0 at the end, `None` if there are none yet.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Result<Option<usize>, StreamError> {
        if !self.received.is_empty() || out.is_empty() {
            let bytes = out.len().min(self.received.len());
            self.received.copy_to_slice(&mut out[..bytes]);
            self.window.consume(bytes as u32);
            self.owed.credit_update |= self.state == State::Established && self.window.update_is_due();
            trim(&mut self.received);
            return Ok(Some(bytes));
        }
        match self.state {
            State::PeerReset | State::LocalReset => Err(StreamError::Reset),
            State::PeerClosed | State::LocalClosed => Ok(Some(0)),
            _ if self.peer_sent_all => Ok(Some(0)),
            _ => Ok(None),
        }
    }

    /// Takes at most `room` bytes to send: how many, `None` if there is no room.
    pub(crate) fn write(&mut self, bytes: &[u8], room: usize) -> Result<Option<usize>, StreamError> {
        match self.state {
            State::PeerReset | State::LocalReset => return Err(StreamError::Reset),
            State::PeerClosed | State::LocalClosed => return Err(StreamError::Closed),
            _ if self.local_sent_all || self.peer_takes_no_more => return Err(StreamError::Closed),
            _ => {}
        }
        let taken = bytes.len().min(room);
        if taken == 0 && !bytes.is_empty() {
            return Ok(None);
        }
        self.unsent.extend_from_slice(&bytes[..taken]);
        self.request_credit_if_dry();
        Ok(Some(taken))
    }

    /// The owner writes no more. Whether everything has left, SHUTDOWN included.
    pub(crate) fn shutdown(&mut self) -> bool {
        if !matches!(self.state, State::Established | State::PeerRequested | State::LocalRequested) {
            return true;
        }
        if !self.local_sent_all {
            self.local_sent_all = true;
            self.owed.shutdown = true;
        }
        !self.owed.shutdown
    }

    /// The owner has let go of the stream.
    pub(crate) fn close(&mut self) {
        (self.reader, self.writer) = (None, None);
        self.received = BytesMut::new();
        match self.state {
            State::Established => {
                self.state = State::LocalClosed;
                self.owed.shutdown = true;
                self.owed.credit_update = false;
            }
            State::PeerRequested | State::LocalRequested => self.reset(),
            State::LocalClosed | State::PeerClosed | State::PeerReset | State::LocalReset => {}
        }
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    fn wake_both(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }
}

/// Gives back the memory of an emptied buffer, so that an idle stream costs next to nothing.
fn trim(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > IDLE_BUFFER_BYTES_MAX {
        *buffer = BytesMut::new();
    }
}
