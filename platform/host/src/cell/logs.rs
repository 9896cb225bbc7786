//! What a cell logs, made harmless: read from a pipe so that the cell never writes to anything of ours, cut into
//! lines of bounded length, escaped, and limited in number. What exceeds the limit is counted, not kept.

use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tracing::{info, warn};
use vamos_proto::id::VmId;

use crate::limits::{LOG_BURST_LINES_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_PER_SECOND_MAX};

/// Logs what comes out of a VM's cell until it ends.
pub async fn relay(vm: VmId, pipe: pipe::Receiver) {
    relay_as(vm.as_str(), pipe).await;
}

/// Logs what comes out of `pipe` until its other end closes.
pub async fn relay_as(of: &str, mut pipe: pipe::Receiver) {
    let (mut lines, mut budget) = (Lines::default(), Budget::new(Instant::now()));
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut piece).await {
        lines.feed(&piece[..count], |line| match budget.take(Instant::now()) {
            Verdict::Log { dropped: 0 } => info!(target: "cell", vm = of, "{line}"),
            Verdict::Log { dropped } => {
                warn!(target: "cell", vm = of, dropped, "lines beyond the limit were dropped");
                info!(target: "cell", vm = of, "{line}");
            }
            Verdict::Drop => {}
        });
    }
    let dropped = budget.dropped;
    if dropped > 0 {
        warn!(target: "cell", vm = of, dropped, "lines beyond the limit were dropped");
    }
}

/// Cuts bytes into lines, each at most [`LOG_LINE_BYTES_MAX`] bytes before escaping.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    cut: bool,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], mut log: impl FnMut(&str)) {
        for &byte in bytes {
            if byte == b'\n' {
                log(&escaped(&self.line, self.cut));
                self.line.clear();
                self.cut = false;
            } else if self.line.len() < LOG_LINE_BYTES_MAX {
                self.line.push(byte);
            } else {
                self.cut = true;
            }
        }
    }
}

/// Control characters, and bytes that are not UTF-8, in a form that no terminal or log reader acts on.
fn escaped(line: &[u8], cut: bool) -> String {
    let mut text = String::with_capacity(line.len());
    for c in String::from_utf8_lossy(line).chars() {
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    if cut {
        text.push_str(" [cut]");
    }
    text
}

enum Verdict {
    Log { dropped: u64 },
    Drop,
}

/// A token bucket of lines.
#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Instant,
    dropped: u64,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { tokens: f64::from(LOG_BURST_LINES_MAX), at: now, dropped: 0 }
    }

    fn take(&mut self, now: Instant) -> Verdict {
        let earned = now.duration_since(self.at).as_secs_f64() * f64::from(LOG_LINES_PER_SECOND_MAX);
        self.tokens = (self.tokens + earned).min(f64::from(LOG_BURST_LINES_MAX));
        self.at = now;
        if self.tokens < 1.0 {
            self.dropped += 1;
            return Verdict::Drop;
        }
        self.tokens -= 1.0;
        Verdict::Log { dropped: std::mem::take(&mut self.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn t24_a_line_is_escaped_and_cut() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        lines.feed(b"first\x1b[2J\r\xff\nsec", |line| seen.push(line.to_string()));
        lines.feed(b"ond\n", |line| seen.push(line.to_string()));
        lines.feed(&vec![b'x'; 3 * LOG_LINE_BYTES_MAX], |_| panic!("no line has ended"));
        lines.feed(b"\n", |line| seen.push(line.to_string()));
        assert_eq!(seen[0], "first\\u{1b}[2J\\r\u{fffd}");
        assert_eq!(seen[1], "second");
        assert_eq!(seen[2].len(), LOG_LINE_BYTES_MAX + " [cut]".len());
    }

    #[test]
    fn t24_a_flood_is_counted_not_kept() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let flood = (0..1_000_000).filter(|_| matches!(budget.take(start), Verdict::Log { .. })).count();
        assert_eq!(flood, LOG_BURST_LINES_MAX as usize);
        let second = start + Duration::from_secs(1);
        let Verdict::Log { dropped } = budget.take(second) else { panic!("a second earns lines") };
        assert_eq!(dropped, 1_000_000 - u64::from(LOG_BURST_LINES_MAX));
    }
}
