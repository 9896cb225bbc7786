//! virtio-vsock as a state machine: packets, credit, connection states, and the table of connections.
//!
//! Knows nothing of rings, guest memory, vhost-user, sockets or a runtime: packets come in as
//! [`Header`] and [`Payload`], packets go out through a closure, and streams are polled with the
//! standard library's `Context`. Both ends of a device use it: `platform/device` as the host, and
//! a process guest (`guest-agents/link`) as the guest.
//!
//! What a hostile peer can name is bounded in [`limits`]; what it does wrong is a [`Violation`].

pub mod connection;
pub mod credit;
pub mod limits;
pub mod mux;
pub mod protocol;
mod stream;

pub use connection::{Payload, PayloadError, StreamError};
pub use mux::{Mux, MuxConfig, MuxCounters, Received, StreamId, Transmitted, Violation};
pub use protocol::{Header, Operation};
