//! A disk that loses power, fills up and fails, under the real engine, and the checks of what it kept.
//!
//! ```text
//!  workload ──▶ SqliteEngine ──▶ SQLite ──▶ vfs ──▶ disk: what is seen, and a log of what reached it
//!     │ what was asked and answered, when                     │ a cut: replay up to a point
//!     ▼                                                        ▼
//!  history ────────────────▶ check ◀──── plain SQLite ◀──── an image of what survived
//! ```
//!
//! The VFS is the process's default, so that the engine under test is the one that ships: it has no
//! switch for tests. Knows nothing of frames and links: sessions are called as `sql-pv/server` calls them.

pub mod check;
pub mod content;
pub mod disk;
pub mod fault;
pub mod history;
mod locks;
pub mod memory;
mod open_file;
pub mod power;
pub mod random;
pub mod replay;
pub mod script;
pub mod session;
pub mod vfs;
pub mod workload;
