//! Valid inputs of each target, from which its corpus is made: `cargo run -p vamos-fuzz` writes it.

pub mod frame;
pub mod postgres_message;
pub mod ring_and_packet;
pub mod vhost_user_message;
