//! `cargo demo`.
