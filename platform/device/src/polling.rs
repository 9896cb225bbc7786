//! How long the ring thread keeps looking at the ring after work, before it asks for a kick and
//! sleeps. A wake-up costs the guest an exit and both sides a context switch; a look costs nothing
//! but the CPU, so it pays only when the next packet comes soon. The window is learned from how
//! soon packets did come; an idle ring is never polled.

use std::time::{Duration, Instant};

use crate::limits::POLLING_CPUS_MIN;

/// Whether the ring thread may spin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polling {
    /// Never: every packet to a sleeping device is one kick.
    Off,
    /// After work, for a learned time of at most `max`, giving way to every other thread that could
    /// run; never on hosts of one CPU.
    Adaptive {
        /// Longest time to spin after the last packet.
        max: Duration,
    },
}

/// The learned window.
#[derive(Debug)]
pub(crate) struct Window {
    max: Duration,
    /// Spin this long after work; zero: sleep at once.
    current: Duration,
    /// When the ring last ran dry.
    dry_since: Option<Instant>,
    /// Packets in a row that came within `max` of the ring running dry.
    soon: u32,
}

/// Gaps in a row that must have been short before spinning is tried.
const SOON_BEFORE_SPINNING: u32 = 8;

impl Window {
    pub(crate) fn new(polling: Polling) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
        let max = match polling {
            Polling::Adaptive { max } if cpus >= POLLING_CPUS_MIN => max,
            Polling::Adaptive { .. } | Polling::Off => Duration::ZERO,
        };
        Self { max, current: Duration::ZERO, dry_since: None, soon: 0 }
    }

    /// A packet has come.
    pub(crate) fn work(&mut self, now: Instant) {
        if self.max.is_zero() {
            return;
        }
        let Some(gap) = self.dry_since.take().map(|since| now.duration_since(since)) else { return };
        if gap > self.max {
            (self.soon, self.current) = (0, Duration::ZERO);
            return;
        }
        self.soon = self.soon.saturating_add(1);
        if self.soon >= SOON_BEFORE_SPINNING {
            // Twice what was needed, approached gently.
            self.current = ((self.current * 3 + gap * 2) / 4).min(self.max);
        }
    }

    /// The ring is dry: until when to spin, if at all.
    pub(crate) fn dry(&mut self, now: Instant) -> Option<Instant> {
        if self.max.is_zero() {
            return None;
        }
        let since = *self.dry_since.get_or_insert(now);
        let until = since + self.current;
        (until > now).then_some(until)
    }

    /// Spinning found nothing.
    pub(crate) fn missed(&mut self) {
        self.current /= 2;
        self.soon = 0;
    }

    /// Whether spinning is possible at all.
    pub(crate) fn is_off(&self) -> bool {
        self.max.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(max: u64) -> Window {
        Window { max: Duration::from_micros(max), current: Duration::ZERO, dry_since: None, soon: 0 }
    }

    #[test]
    fn spins_only_after_packets_have_come_soon_and_stops_when_they_no_longer_do() {
        let (mut window, mut now) = (window(100), Instant::now());
        for packet in 0..20 {
            let until = window.dry(now);
            assert_eq!(until.is_some(), packet > SOON_BEFORE_SPINNING - 1, "packet {packet}");
            now += Duration::from_micros(20);
            window.work(now);
        }
        let until = window.dry(now).unwrap();
        assert!(until <= now + Duration::from_micros(100));
        now += Duration::from_millis(5);
        window.work(now);
        assert_eq!(window.dry(now), None, "one long pause ends it");
    }

    #[test]
    fn misses_shrink_the_window_to_nothing() {
        let (mut window, mut now) = (window(100), Instant::now());
        for _ in 0..20 {
            window.dry(now);
            now += Duration::from_micros(30);
            window.work(now);
        }
        assert!(window.dry(now).is_some());
        for _ in 0..40 {
            window.missed();
        }
        assert!(window.current < Duration::from_nanos(1));
    }

    #[test]
    fn off_is_off() {
        let mut window = Window::new(Polling::Off);
        assert!(window.is_off());
        for _ in 0..100 {
            assert_eq!(window.dry(Instant::now()), None);
            window.work(Instant::now());
        }
    }
}
