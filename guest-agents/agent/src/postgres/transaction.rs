//! Where a connection stands with transactions, as PostgreSQL has it.
//!
//! ```text
//!            BEGIN                  error
//!    Idle ───────────▶ Open ───────────────────▶ Failed
//!     ▲ ▲  several       │  ◀─── ROLLBACK TO ──────┘ │
//!     │ │  statements    │ COMMIT, ROLLBACK          │ COMMIT, ROLLBACK: both roll back
//!     │ └─ Implicit ◀────┼───────────────────────────┘
//!     └──── the end ─────┘
//! ```
//!
//! SQLite knows no failed transactions: a failed statement is undone alone and the next one may run. So
//! Failed lives here, and the engine's transaction behind it waits to be rolled back.

use pgwire::messages::response::TransactionStatus;
use vamos_sql_client::Transaction as EngineTransaction;

/// A connection's transaction block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Each statement is a transaction of its own.
    Idle,
    /// Several statements that came together are one transaction.
    Implicit,
    /// The client began a transaction.
    Open,
    /// A statement of it failed.
    Failed,
}

/// The block and what the engine has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// What the client sees.
    pub state: State,
    /// Whether the engine has a transaction open: errors such as a full disk end it there at once.
    pub engine_open: bool,
    /// Whether it was begun READ ONLY.
    pub read_only: bool,
}

impl Block {
    /// No transaction.
    pub const IDLE: Block = Block { state: State::Idle, engine_open: false, read_only: false };

    /// As ReadyForQuery tells it.
    pub fn status(&self) -> TransactionStatus {
        match self.state {
            State::Idle | State::Implicit => TransactionStatus::Idle,
            State::Open => TransactionStatus::Transaction,
            State::Failed => TransactionStatus::Error,
        }
    }

    /// A statement failed; `engine` is what the engine said of its transaction.
    pub fn fail(&mut self, engine: Option<EngineTransaction>) {
        if engine == Some(EngineTransaction::None) {
            self.engine_open = false;
        }
        if self.state == State::Open {
            self.state = State::Failed;
        }
    }
}
