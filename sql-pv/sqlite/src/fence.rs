//! The fence of a leased volume: whether this process may still write to it, and may say that it did.
//!
//! Whoever holds the lease says until when ([`Fence::renew`]). The engine asks before a COMMIT and a checkpoint
//! begin, and again after the sync and before any reply leaves. A lease that has lapsed is waited for: nothing is
//! done and nothing acknowledged until it is renewed, for then nobody else had it meanwhile. One that is lost
//! ([`Fence::lose`]) is never had again: the process is given up, and what it has not acknowledged is the next
//! holder's to have or not.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::FENCE_LOOK_EVERY;

/// A clock that counts on while the machine sleeps and that nobody can set, nanoseconds.
pub type FenceClock = fn() -> u64;

/// The volume is another's now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease of the volume is lost")]
pub struct Lost;

/// See the module. Clones are one fence.
#[derive(Clone)]
pub struct Fence(Arc<State>);

struct State {
    clock: FenceClock,
    /// By the clock; `u64::MAX`: no lease is needed.
    valid_until: AtomicU64,
    lost: AtomicBool,
    turn: Mutex<()>,
    changed: Condvar,
}

impl Fence {
    /// For a volume that nobody else can have.
    pub fn always() -> Self {
        Self::with(|| 0, u64::MAX)
    }

    /// For a leased volume; the lease has lapsed until it is renewed.
    pub fn lapsed(clock: FenceClock) -> Self {
        Self::with(clock, 0)
    }

    fn with(clock: FenceClock, valid_until: u64) -> Self {
        Self(Arc::new(State {
            clock,
            valid_until: AtomicU64::new(valid_until),
            lost: AtomicBool::new(false),
            turn: Mutex::new(()),
            changed: Condvar::new(),
        }))
    }

    /// The lease holds until `valid_until` by the fence's clock.
    pub fn renew(&self, valid_until: u64) {
        let _turn = self.turn();
        self.0.valid_until.store(valid_until, SeqCst);
        self.0.changed.notify_all();
    }

    /// The lease is another's, for good.
    pub fn lose(&self) {
        let _turn = self.turn();
        self.0.lost.store(true, SeqCst);
        self.0.changed.notify_all();
    }

    /// Whether the lease holds at this moment.
    pub fn holds(&self) -> bool {
        let valid_until = self.0.valid_until.load(SeqCst);
        !self.0.lost.load(SeqCst) && (valid_until == u64::MAX || (self.0.clock)() < valid_until)
    }

    /// Waits until the lease holds, blocking the thread.
    ///
    /// # Errors
    /// [`Lost`]: it never will.
    pub(crate) fn wait(&self) -> Result<(), Lost> {
        self.wait_until(None).map(drop)
    }

    /// The same for a limited time; whether it holds.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) fn wait_for(&self, limit: Duration) -> Result<bool, Lost> {
        self.wait_until(Some(Instant::now() + limit))
    }

    fn wait_until(&self, end: Option<Instant>) -> Result<bool, Lost> {
        if self.holds() {
            return Ok(true);
        }
        let mut turn = self.turn();
        loop {
            if self.0.lost.load(SeqCst) {
                return Err(Lost);
            }
            if self.holds() {
                return Ok(true);
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(false);
            }
            // A renewal wakes; the look is for the end alone.
            turn =
                self.0.changed.wait_timeout(turn, FENCE_LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("holds", &self.holds()).finish()
    }
}
