//! What a connection's callbacks (authorizer, progress handler, functions) share with those who run
//! statements on it.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use vamos_sql_server::SqlError;

use crate::damage::Damage;
use crate::ticket::Ticket;

/// On whose behalf statements are being prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// The engine's own: everything is allowed.
    Engine = 0,
    /// A guest's single statement.
    Guest = 1,
    /// A guest on a connection of its own: transactions too.
    Seated = 2,
    /// A guest's VACUUM and nothing else.
    Vacuum = 3,
}

/// What the authorizer saw in a statement.
pub(crate) mod seen {
    /// Anything at all: the statement was really prepared, not found.
    pub(crate) const PREPARED: u32 = 1;
    /// Makes or drops a temporary object.
    pub(crate) const TEMP: u32 = 1 << 1;
    /// Makes, changes or drops an object of the database.
    pub(crate) const SCHEMA: u32 = 1 << 2;
    /// Changes the database, not only temporary tables.
    pub(crate) const WRITES: u32 = 1 << 3;
    /// Inserts.
    pub(crate) const INSERTS: u32 = 1 << 4;
    /// Depends on what the session did last (`changes()` and the like).
    pub(crate) const HISTORY: u32 = 1 << 5;
}

/// What functions like `changes()` tell a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) last_insert_rowid: i64,
    pub(crate) changes: i64,
    pub(crate) total_changes: i64,
}

/// A guest's statement while the engine runs one of its own.
pub(crate) struct Paused {
    mode: Mode,
    under_way: UnderWay,
    looks: i64,
}

/// What a guest has under way on a connection.
#[derive(Debug, Clone)]
enum UnderWay {
    Nothing,
    Statement(Arc<Ticket>),
    /// A statement that waits for one of the engine's own, whose end no deadline brings.
    Paused,
}

/// Shared by a connection and its callbacks.
#[derive(Debug)]
pub(crate) struct Guard {
    mode: AtomicU8,
    seen: AtomicU32,
    refusal: Mutex<Option<String>>,
    /// Of the database, if it is one.
    damage: Option<Arc<Damage>>,
    under_way: Mutex<UnderWay>,
    /// Looks the statement may still live through.
    looks: AtomicI64,
    pub(crate) last_insert_rowid: AtomicI64,
    pub(crate) changes: AtomicI64,
    pub(crate) total_changes: AtomicI64,
}

impl Guard {
    pub(crate) fn new() -> Self {
        Self::with(None)
    }

    /// For a connection to the database that `damage` is about.
    pub(crate) fn of(damage: Arc<Damage>) -> Self {
        Self::with(Some(damage))
    }

    fn with(damage: Option<Arc<Damage>>) -> Self {
        Self {
            damage,
            mode: AtomicU8::new(Mode::Engine as u8),
            seen: AtomicU32::new(0),
            refusal: Mutex::new(None),
            under_way: Mutex::new(UnderWay::Nothing),
            looks: AtomicI64::new(i64::MAX),
            last_insert_rowid: AtomicI64::new(0),
            changes: AtomicI64::new(0),
            total_changes: AtomicI64::new(0),
        }
    }

    /// Refuses to serve a damaged database.
    pub(crate) fn refuse_damaged(&self) -> Result<(), SqlError> {
        self.damage.as_ref().map_or(Ok(()), |damage| damage.refuse())
    }

    /// A statement has come upon damage; what to tell of it, if it really is.
    pub(crate) fn damaged(&self, code: i32) -> Option<SqlError> {
        self.damage.as_ref()?.noticed(code)
    }

    pub(crate) fn mode(&self) -> Mode {
        match self.mode.load(Relaxed) {
            0 => Mode::Engine,
            2 => Mode::Seated,
            3 => Mode::Vacuum,
            _ => Mode::Guest,
        }
    }

    pub(crate) fn enter(&self, mode: Mode) {
        self.mode.store(mode as u8, Relaxed);
    }

    pub(crate) fn see(&self, bits: u32) {
        self.seen.fetch_or(bits, Relaxed);
    }

    /// What was seen since the last call.
    pub(crate) fn take_seen(&self) -> u32 {
        self.seen.swap(0, Relaxed)
    }

    /// Remembers what was refused, for the error's text.
    pub(crate) fn refuse(&self, what: String) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    pub(crate) fn take_refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Begins a statement that `looks` looks at the clock may interrupt.
    pub(crate) fn begin(&self, ticket: Arc<Ticket>, looks: i64) {
        self.set(UnderWay::Statement(ticket), looks);
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.set(UnderWay::Nothing, i64::MAX);
    }

    fn set(&self, under_way: UnderWay, looks: i64) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = under_way;
        self.looks.store(looks, Relaxed);
    }

    fn under_way(&self) -> UnderWay {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the engine's own statements run in the midst of a guest's; [`resume`](Self::resume) goes on.
    pub(crate) fn pause(&self) -> Paused {
        let paused =
            Paused { mode: self.mode(), under_way: self.under_way(), looks: self.looks.load(Relaxed) };
        self.enter(Mode::Engine);
        let nothing = matches!(paused.under_way, UnderWay::Nothing);
        self.set(if nothing { UnderWay::Nothing } else { UnderWay::Paused }, i64::MAX);
        paused
    }

    /// Goes on with what was paused.
    pub(crate) fn resume(&self, paused: Paused) {
        self.enter(paused.mode);
        self.set(paused.under_way, paused.looks);
    }

    /// The ticket of the statement that is running.
    pub(crate) fn ticket(&self) -> Option<Arc<Ticket>> {
        match self.under_way() {
            UnderWay::Statement(ticket) => Some(ticket),
            UnderWay::Nothing | UnderWay::Paused => None,
        }
    }

    /// Whether a statement is under way, be it paused.
    pub(crate) fn is_busy(&self) -> bool {
        !matches!(self.under_way(), UnderWay::Nothing)
    }

    /// Why the statement under way should stop.
    pub(crate) fn stop(&self) -> Option<SqlError> {
        self.ticket().and_then(|ticket| ticket.stop())
    }

    /// Called by SQLite every so many instructions; true interrupts.
    pub(crate) fn look(&self) -> bool {
        self.looks.fetch_sub(1, Relaxed) <= 0 || self.stop().is_some()
    }

    /// Sets what functions like `changes()` answer.
    pub(crate) fn recall(&self, history: History) {
        self.last_insert_rowid.store(history.last_insert_rowid, Relaxed);
        self.changes.store(history.changes, Relaxed);
        self.total_changes.store(history.total_changes, Relaxed);
    }
}
