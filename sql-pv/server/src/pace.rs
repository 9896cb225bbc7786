//! A token bucket: how fast a binding's requests are taken off its links.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Allows a number of operations per second, and as many at once after a second of silence.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Pace {
    /// A bucket that starts full. `per_second` of 0 counts as 1.
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, bucket: Mutex::new(Bucket { tokens: per_second, filled: Instant::now() }) }
    }

    /// Takes a token, which may be one of the future: then says how long to wait before the next.
    pub(crate) fn take(&self) -> Option<Duration> {
        let mut bucket = self.bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        let gained = now.duration_since(bucket.filled).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + gained).min(self.per_second) - 1.0;
        bucket.filled = now;
        (bucket.tokens < 0.0).then(|| Duration::from_secs_f64(-bucket.tokens / self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_is_free_and_then_it_costs() {
        let pace = Pace::new(100);
        assert!((0..100).all(|_| pace.take().is_none()));
        let wait = (0..50).filter_map(|_| pace.take()).last().unwrap();
        assert!(wait > Duration::from_millis(300) && wait <= Duration::from_millis(500), "{wait:?}");
    }
}
