//! Client of paravirtual SQL: many sessions over one link, their requests coalesced into one write.
//!
//! Knows nothing of PostgreSQL, of databases' files or of rings: it speaks frames over a stream that
//! `guest-agents/link` (or a test) opened. Where things are:
//!
//! - `client`, `session`, `cursor`: what callers use;
//! - `link`: what is queued, what is under way, who waits for it; no I/O of its own but the write;
//! - `tasks`: the reader and the writer of a link;
//! - `call`: one request from its sending to its last reply.
//!
//! A request and its session's identity are kept until the request is answered, so that a lost link
//! can be continued on another one; until that exists, a lost link fails every waiting request with
//! [`ClientError::LinkLost`].

mod call;
mod client;
mod cursor;
mod error;
pub mod limits;
mod link;
mod outcome;
mod session;
mod sessions;
mod statement;
mod tasks;

pub use client::Client;
pub use cursor::{Cursor, Summary};
pub use error::{ClientError, SqlError};
pub use outcome::{BatchOutcome, Outcome};
pub use session::{CancelHandle, InFlight, Session};
pub use statement::Statement;
pub use vamos_sql_protocol::message::{Column, Transaction};
pub use vamos_sql_protocol::{BlockBuilder, BlockError, Rows, Value, ValueRef};
