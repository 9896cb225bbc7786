//! Passive health: a target that fails again and again is passed over for a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{EJECTION_FIRST, EJECTION_MAX, FAILURES_MAX};

/// What a target did lately.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Passed over until then.
    until: Option<Instant>,
    /// How long that was.
    pause: Duration,
}

impl Health {
    /// Whether requests should go there.
    pub fn is_healthy(&self) -> bool {
        self.ejected_until().is_none()
    }

    /// Until when they should not, if they should not now.
    pub fn ejected_until(&self) -> Option<Instant> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.until.filter(|until| *until > Instant::now())
    }

    /// It answered.
    pub fn succeeded(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// It could not be reached, or said that its server could not.
    pub fn failed(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        let now = Instant::now();
        if state.failures >= FAILURES_MAX && state.until.is_none_or(|until| until <= now) {
            state.pause = (state.pause * 2).clamp(EJECTION_FIRST, EJECTION_MAX);
            state.until = Some(now + state.pause);
        }
    }
}
