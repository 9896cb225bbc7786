//! The embedded engine: SQLite with authorizer, limits and group commit.
//!
//! One [`SqliteEngine`] is one database file. Where a statement runs:
//!
//! ```text
//!  autocommit read, known to be quick ──▶ inline   on the caller's thread, small budget
//!  autocommit read ─────────────────────▶ pool     a few threads, started and ended by need
//!  autocommit write ────────────────────▶ writer   one thread: a group of writes, one COMMIT, one fsync
//!  transaction, temporary objects,      ─▶ seat    a thread and a connection of the pool, held by one
//!  open cursor                                     session until it no longer needs them
//! ```
//!
//! Whoever writes holds the `lane`; it is a fair queue, so nothing waits on SQLite's own locks. What a
//! guest may say is decided by the authorizer (default deny), the build's flags and SQLite's limits;
//! how long it may take by deadlines, and by a watchdog for what ignores those.
//!
//! Every write leaves a completion record beside its data (`record`), by which a session that lost its link,
//! or its host process, goes on (`tenure`) without anything being done twice.
//!
//! Knows nothing of frames or links: those are `sql-pv/server`'s.

mod allow;
mod authorizer;
mod bind;
mod config;
mod connection;
mod cursor;
mod damage;
mod engine;
mod facts;
mod fence;
mod guard;
mod hold;
mod inline;
mod lane;
pub mod limits;
mod pool;
mod pragma;
mod record;
mod reflink;
mod run;
mod seam;
mod seat;
mod session;
mod snapshot;
mod sqlstate;
mod state;
mod tenure;
mod text;
mod ticket;
mod trust;
mod watchdog;
mod writer;

pub use config::{GiveUp, SqliteConfig};
pub use engine::{Activity, OpenError, SqliteEngine};
pub use fence::{Fence, FenceClock, Lost};
pub use hold::{DatabaseFiles, Hold};
pub use snapshot::{SnapshotError, snapshot};
