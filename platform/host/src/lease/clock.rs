//! The clock of leases: it is never set, and goes on while the machine sleeps.

use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since this machine was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// Time from `earlier` to this one; none if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// What time it is.
#[derive(Debug, Clone)]
pub enum Clock {
    /// `CLOCK_BOOTTIME`.
    Machine,
    /// As somebody says: for tests.
    Told(Arc<AtomicU64>),
}

impl Clock {
    /// Now.
    pub fn now(&self) -> Moment {
        match self {
            Self::Machine => {
                let now = clock_gettime(ClockId::Boottime);
                // Neither part of the time since a start is negative.
                Moment(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs())
            }
            Self::Told(now) => Moment(now.load(Ordering::SeqCst)),
        }
    }
}
