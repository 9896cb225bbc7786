//! Client of paravirtual SQL: many sessions over one link, their requests coalesced into one write.
//!
//! Knows nothing of PostgreSQL, of databases' files or of rings: it speaks frames over a stream that
//! `guest-agents/link` (or a test) opened. Where things are:
//!
//! - `client`, `session`, `cursor`: what callers use;
//! - `link`: what is queued, what is under way, who waits for it; no I/O of its own but the write;
//! - `tasks`: the reader and the writer of a link, and how it gets another stream;
//! - `recovery`, `repeat`: how a session goes on there;
//! - `call`: one request from its sending to its last reply.
//!
//! A request is kept until it is answered, an open transaction until it ends. When the stream is lost the
//! link opens another one ([`Dial`]), resumes its sessions, replays their transactions and sends again what
//! was not answered; the service's records see to it that nothing is done twice. Whoever waits just waits a
//! little longer, unless a transaction has read what has changed since (SQLSTATE 40001).

mod call;
mod client;
mod cursor;
mod dial;
mod error;
pub mod limits;
mod link;
mod outcome;
mod recovery;
mod repeat;
mod session;
mod sessions;
mod statement;
mod tasks;

pub use client::Client;
pub use cursor::{Cursor, Summary};
pub use dial::{Dial, Dialing, Duplex};
pub use error::{ClientError, SqlError};
pub use outcome::{BatchOutcome, Outcome};
pub use session::{CancelHandle, InFlight, Session};
pub use statement::Statement;
pub use vamos_sql_protocol::message::{Column, Transaction};
pub use vamos_sql_protocol::{BlockBuilder, BlockError, Rows, Value, ValueRef};
