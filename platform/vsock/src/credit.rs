//! Credit (virtio 1.3, 5.10.6.3 "Buffer Space Management"): how much each side may still send.
//!
//! All counters wrap at 2^32 and only their differences mean anything. A peer's counters are
//! input: a window that shrank below what is in flight, or a `fwd_cnt` ahead of what was sent, is
//! a credit of zero, never a negative one.

use crate::protocol::Header;

/// What we may still send: the peer's window, as far as it has told us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendCredit {
    /// Bytes sent so far (`tx_cnt`).
    sent: u32,
    peer_alloc: u32,
    peer_forwarded: u32,
}

impl SendCredit {
    /// No credit; both ends' counters at `start`, which is 0 for every real connection.
    pub fn new(start: u32) -> Self {
        Self { sent: start, peer_alloc: 0, peer_forwarded: start }
    }

    /// Takes what the peer says in `header`.
    pub fn learn(&mut self, header: &Header) {
        self.peer_alloc = header.buf_alloc;
        self.peer_forwarded = header.fwd_cnt;
    }

    /// Bytes that may be sent now.
    pub fn available(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.peer_forwarded);
        self.peer_alloc.saturating_sub(in_flight)
    }

    /// Counts `bytes` as sent; at most [`SendCredit::available`].
    pub fn spend(&mut self, bytes: u32) {
        debug_assert!(bytes <= self.available(), "sent {bytes} bytes with credit for {}", self.available());
        self.sent = self.sent.wrapping_add(bytes);
    }
}

/// What the peer may still send: our window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveWindow {
    /// Our `buf_alloc`, bytes; constant for a connection's life.
    alloc: u32,
    /// Bytes received so far (`rx_cnt`).
    received: u32,
    /// Bytes the stream's owner has consumed so far: our `fwd_cnt`.
    forwarded: u32,
    /// The `fwd_cnt` the peer was last told.
    told: u32,
}

impl ReceiveWindow {
    /// An empty window of `alloc` bytes; both ends' counters at `start`.
    pub fn new(alloc: u32, start: u32) -> Self {
        Self { alloc, received: start, forwarded: start, told: start }
    }

    /// Bytes of window this is.
    pub fn alloc(&self) -> u32 {
        self.alloc
    }

    /// Counts `bytes` as received, if the peer had credit for them by what it was last told.
    #[must_use]
    pub fn admit(&mut self, bytes: u32) -> bool {
        let in_flight = self.received.wrapping_sub(self.told);
        if bytes > self.alloc.saturating_sub(in_flight) {
            return false;
        }
        self.received = self.received.wrapping_add(bytes);
        true
    }

    /// Counts `bytes` as consumed by the stream's owner.
    pub fn consume(&mut self, bytes: u32) {
        debug_assert!(bytes <= self.received.wrapping_sub(self.forwarded), "consumed more than was received");
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// Whether the peer should hear of consumed bytes without waiting for a packet that goes its
    /// way anyway: once they are half the window, so that a sender never runs dry and a bulk
    /// transfer costs two updates a window.
    pub fn update_is_due(&self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= self.alloc / 2
    }

    /// Writes the window into a header that is about to leave.
    pub fn stamp(&self, header: &mut Header) {
        header.buf_alloc = self.alloc;
        header.fwd_cnt = self.forwarded;
    }

    /// The header stamped last has left.
    pub fn told(&mut self) {
        self.told = self.forwarded;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{HEADER_BYTES, Header};
    use proptest::prelude::*;

    fn says(buf_alloc: u32, fwd_cnt: u32) -> Header {
        Header { buf_alloc, fwd_cnt, ..Header::decode(&[0; HEADER_BYTES]) }
    }

    #[test]
    fn a_window_shrunk_below_what_is_in_flight_is_no_credit() {
        let mut credit = SendCredit::new(0);
        credit.learn(&says(1000, 0));
        credit.spend(600);
        credit.learn(&says(500, 0));
        assert_eq!(credit.available(), 0);
        credit.learn(&says(500, 200));
        assert_eq!(credit.available(), 100);
    }

    #[test]
    fn a_peer_that_consumed_more_than_was_sent_gets_nothing() {
        let mut credit = SendCredit::new(0);
        credit.learn(&says(u32::MAX - 1, 1));
        assert_eq!(credit.available(), 0, "in flight is -1 modulo 2^32");
        credit.learn(&says(u32::MAX, u32::MAX));
        assert_eq!(credit.available(), u32::MAX - 1);
    }

    proptest! {
        /// Against a model in which nothing wraps: two ends, any schedule, any start.
        #[test]
        fn counters_wrap_without_a_trace(start: u32, alloc in 1u32..100_000, steps in proptest::collection::vec((0u32..50_000, 0u32..50_000, any::<bool>()), 1..200)) {
            let (mut credit, mut window) = (SendCredit::new(start), ReceiveWindow::new(alloc, start));
            let (mut sent, mut consumed, mut told) = (0u64, 0u64, 0u64);
            let mut header = says(0, 0);
            window.stamp(&mut header);
            credit.learn(&header);
            for (send, consume, tell) in steps {
                prop_assert_eq!(u64::from(credit.available()), u64::from(alloc) - (sent - told));
                let send = send.min(credit.available());
                credit.spend(send);
                prop_assert!(window.admit(send));
                sent += u64::from(send);
                let mut over = window;
                prop_assert!(!over.admit(credit.available() + 1), "one byte more than the credit");
                let consume = consume.min((sent - consumed) as u32);
                window.consume(consume);
                consumed += u64::from(consume);
                if tell || window.update_is_due() {
                    window.stamp(&mut header);
                    window.told();
                    credit.learn(&header);
                    told = consumed;
                }
            }
        }
    }
}
