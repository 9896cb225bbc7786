//! The VM lab: guests, images and the commands `cargo demo`, `cargo verify` and `cargo bench-*`.
