//! `cargo verify`.
