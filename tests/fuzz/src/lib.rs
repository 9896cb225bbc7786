//! Fuzz targets: what reads bytes that a guest, a client or a VMM wrote, and what must hold for any bytes.
//!
//! A target is a plain function. `tests/replay.rs` runs each over its corpus and over seeded mutations
//! of it; `libfuzzer/` runs the same functions under `cargo fuzz`. A target panics when something
//! that must hold does not.

pub mod frame;
pub mod mutation;
pub mod postgres_message;
pub mod ring_and_packet;
pub mod seeds;
pub mod vhost_user_message;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of its corpus and of its `cargo fuzz` target.
    pub name: &'static str,
    /// Reads any bytes; panics if what must hold does not.
    pub run: fn(&[u8]),
    /// Valid inputs, from which the corpus is made.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", run: frame::run, seeds: seeds::frame::seeds },
    Target { name: "postgres_message", run: postgres_message::run, seeds: seeds::postgres_message::seeds },
    Target { name: "ring_and_packet", run: ring_and_packet::run, seeds: seeds::ring_and_packet::seeds },
    Target {
        name: "vhost_user_message",
        run: vhost_user_message::run,
        seeds: seeds::vhost_user_message::seeds,
    },
];
