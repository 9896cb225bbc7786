//! Sessions, cursors and flow control of paravirtual SQL, for any engine.
//!
//! One link (a [`vamos_service::ByteStream`]) carries many sessions. This crate cuts it into frames,
//! keeps each session's requests in order, runs different sessions side by side and packs the
//! replies of all of them into as few writes as possible. It knows neither an engine (those
//! implement [`engine::Engine`]) nor vsock.
//!
//! Follow a statement: [`service`] (a stream arrives) → `link` (bytes to frames, one write a pass) →
//! [`session`] (order, state) → `request/execute.rs` (parse, apply, reply) → [`engine`].

pub mod engine;
mod error;
pub mod limits;
mod link;
mod pace;
mod reply;
mod request;
pub mod service;
pub mod session;
mod statements;

pub use error::{SqlError, sqlstate};
pub use service::{SqlConfig, SqlService};
