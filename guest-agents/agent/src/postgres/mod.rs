//! The PostgreSQL front door: unmodified PostgreSQL clients speak to paravirtual SQL.
//!
//! Follow a statement: [`door`] (a client connects) → `startup` → `connection` (a message a turn) →
//! `simple` or `extended` → `execute` → `vamos_sql_client`; its rows come back through `result` and
//! `value`. What text means here is `vamos_sql_dialect::postgres`'s; nothing in this folder looks into a
//! statement but to find out types (`infer`) and the command tag (`tag`).
//!
//! Requests are parsed by [`frontend`] (which says why not by `pgwire`), replies are `pgwire`'s messages,
//! rows excepted, which are unpacked straight from their block into the client's buffer.

mod cancel;
mod connection;
mod copy;
pub mod door;
pub mod error;
mod execute;
mod extended;
mod float;
pub mod frontend;
mod infer;
mod numeric;
mod parameter;
mod prepared;
mod result;
mod simple;
pub mod startup;
mod tag;
mod time;
mod transaction;
mod value;
pub mod wire;
