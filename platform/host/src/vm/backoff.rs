//! How long to wait before a failed cell is started again.

use std::time::Duration;

use crate::limits::{CELL_BACKOFF_FIRST, CELL_BACKOFF_MAX, CELL_RESTARTS_AT_ONCE_MAX, CELL_STABLE_AFTER};

/// No pause for the first failures in a row, then one that doubles with each.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A cell ended by itself after it had lived for `lived`; how long to wait.
    pub(crate) fn failed(&mut self, lived: Duration) -> Duration {
        if lived >= CELL_STABLE_AFTER {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        match self.failures.checked_sub(CELL_RESTARTS_AT_ONCE_MAX + 1) {
            None => Duration::ZERO,
            Some(more) => CELL_BACKOFF_FIRST.saturating_mul(1 << more.min(16)).min(CELL_BACKOFF_MAX),
        }
    }

    /// How many failures there were in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_is_slowed_down_and_a_stable_cell_forgiven() {
        let mut backoff = Backoff::default();
        for _ in 0..CELL_RESTARTS_AT_ONCE_MAX {
            assert_eq!(backoff.failed(Duration::ZERO), Duration::ZERO);
        }
        assert_eq!(backoff.failed(Duration::ZERO), CELL_BACKOFF_FIRST);
        assert_eq!(backoff.failed(Duration::ZERO), CELL_BACKOFF_FIRST * 2);
        for _ in 0..100 {
            backoff.failed(Duration::ZERO);
        }
        assert_eq!(backoff.failed(Duration::ZERO), CELL_BACKOFF_MAX);
        assert_eq!(backoff.failed(CELL_STABLE_AFTER), Duration::ZERO);
        assert_eq!(backoff.failures(), 1);
    }
}
