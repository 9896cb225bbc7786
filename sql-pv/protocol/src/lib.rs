//! Paravirtual SQL on the wire: kinds of frames, their bodies, values and packed row blocks.
//!
//! No I/O, no engine, no session logic: those are `sql-pv/client` and `sql-pv/server`.

pub mod block;
pub mod kind;
pub mod limits;
pub mod value;

/// Generated bodies of the frames; `proto/sql.proto` documents every field.
#[allow(missing_docs, reason = "generated from sql.proto, which documents every field")]
pub mod message {
    include!(concat!(env!("OUT_DIR"), "/vamos.sql.v1.rs"));
}

pub use block::{BlockBuilder, BlockError, Rows};
pub use kind::Kind;
pub use value::{Value, ValueRef};

/// Version of paravirtual SQL this build speaks.
pub const PROTOCOL: u32 = 1;
