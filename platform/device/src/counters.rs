//! What a device counts, for the operator and for tests: totals, never reset, cheap to read from any thread.

use std::sync::atomic::{AtomicU64, Ordering};

use vamos_vsock::MuxCounters;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A device's counters; one writer, the ring thread.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        /// [`Counters`] at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct CounterSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The counters now.
            pub fn snapshot(&self) -> CounterSnapshot {
                CounterSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Wake-ups by the guest: kicks that came while the device was awake anyway count as one.
    kicks_received,
    /// Interrupts given to the guest.
    calls_sent,
    /// Batches of packets found without a kick, because the guest had been told not to send one.
    kicks_suppressed,
    /// Batches of buffers returned without an interrupt, because the guest had asked for none.
    calls_suppressed,
    /// Packets from the guest.
    packets_received,
    /// Packets to the guest.
    packets_sent,
    /// Payload from the guest, bytes.
    bytes_received,
    /// Payload to the guest, bytes.
    bytes_sent,
    /// Streams established.
    streams_opened,
    /// Streams that ended without an orderly close.
    streams_reset,
    /// Streams on the wire now.
    streams_open,
    /// Broken chains, rings and packets, and control messages refused.
    protocol_errors,
    /// vhost-user messages handled.
    control_messages,
    /// Broken chains and rings alone, part of `protocol_errors`.
    ring_errors,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        // One writer: no read-modify-write needed.
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    pub(crate) fn ring_error(&self) {
        Self::add(&self.ring_errors, 1);
        Self::add(&self.protocol_errors, 1);
    }

    /// Takes over what the streams counted since `before`.
    pub(crate) fn advance(&self, before: &MuxCounters, now: &MuxCounters, streams_open: usize) {
        Self::add(&self.packets_received, now.packets_received - before.packets_received);
        Self::add(&self.packets_sent, now.packets_sent - before.packets_sent);
        Self::add(&self.bytes_received, now.bytes_received - before.bytes_received);
        Self::add(&self.bytes_sent, now.bytes_sent - before.bytes_sent);
        Self::add(&self.streams_opened, now.streams_opened - before.streams_opened);
        Self::add(&self.streams_reset, now.streams_reset - before.streams_reset);
        Self::add(&self.protocol_errors, now.violations - before.violations);
        self.streams_open.store(streams_open as u64, Ordering::Relaxed);
    }
}
