//! Policy of a database, as plain values.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::fence::Fence;
use crate::limits;

/// What to do when the process can no longer be trusted to serve: a statement that cannot be
/// interrupted, a sync that failed, a commit whose outcome is unknown. A cell passes its abort. Should it
/// return, the engine acknowledges nothing more.
#[derive(Clone)]
pub struct GiveUp(Arc<dyn Fn(&str) + Send + Sync>);

impl GiveUp {
    /// Calls `action` with the reason.
    pub fn new(action: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(action))
    }

    pub(crate) fn call(&self, reason: &str) {
        (self.0)(reason);
    }
}

impl fmt::Debug for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GiveUp")
    }
}

/// Policy of a database.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// Largest database file, bytes; a write beyond it fails with SQLSTATE 53100.
    pub database_bytes_max: u64,
    /// Refuse every statement that writes; SQLSTATE 25006.
    pub read_only: bool,
    /// A statement's time, waiting included; SQLSTATE 57014.
    pub statement_deadline: Duration,
    /// How long a transaction or an open cursor may be left alone; SQLSTATE 25P03.
    pub idle_in_transaction_max: Duration,
    /// How long a statement may ignore its deadline before `give_up` is called.
    pub watchdog_grace: Duration,
    /// Called when a statement cannot be interrupted, or a sync or commit has failed. The default only logs.
    pub give_up: GiveUp,
    /// Whether the volume is still ours; asked before anything is committed or acknowledged.
    pub fence: Fence,
    /// Threads for autocommit reads, at least 1.
    pub readers_max: usize,
    /// Transactions, sessions with temporary objects and open cursors at a time.
    pub seats_max: usize,
    /// Memory SQLite may have in the whole process, bytes; SQLSTATE 53200.
    pub heap_bytes_max: i64,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            database_bytes_max: limits::DATABASE_BYTES_MAX,
            read_only: false,
            statement_deadline: limits::STATEMENT_DEADLINE,
            idle_in_transaction_max: limits::IDLE_IN_TRANSACTION_MAX,
            watchdog_grace: limits::WATCHDOG_GRACE,
            give_up: GiveUp::new(|reason| tracing::error!(reason, "would give up, but nobody said how")),
            fence: Fence::always(),
            readers_max: limits::READERS_MAX,
            seats_max: limits::SEATS_MAX,
            heap_bytes_max: limits::HEAP_BYTES_MAX,
        }
    }
}
