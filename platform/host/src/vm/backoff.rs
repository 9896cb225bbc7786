//! How long to wait before a failed cell is started again.

use std::time::Duration;

use crate::limits::{CELL_BACKOFF_FIRST, CELL_BACKOFF_MAX, CELL_STABLE_AFTER};

/// Doubles the pause with each failure in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A cell ended by itself after it had lived for `lived`; how long to wait.
    pub(super) fn failed(&mut self, lived: Duration) -> Duration {
        if lived >= CELL_STABLE_AFTER {
            self.failures = 0;
        }
        let pause = CELL_BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(CELL_BACKOFF_MAX);
        self.failures += 1;
        pause
    }

    /// How many failures there were in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_is_slowed_down_and_a_stable_cell_forgiven() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.failed(Duration::ZERO), CELL_BACKOFF_FIRST);
        assert_eq!(backoff.failed(Duration::ZERO), CELL_BACKOFF_FIRST * 2);
        for _ in 0..100 {
            backoff.failed(Duration::ZERO);
        }
        assert_eq!(backoff.failed(Duration::ZERO), CELL_BACKOFF_MAX);
        assert_eq!(backoff.failed(CELL_STABLE_AFTER), CELL_BACKOFF_FIRST);
    }
}
