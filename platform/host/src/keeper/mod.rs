//! The keeper of vhost-user sessions: relays a front-end's control messages to the VM's cell, refuses what no
//! device of ours can mean, and remembers what a successor of the cell would have to be told.
//!
//! Touches no guest memory: the descriptors of memory and of the data path pass through.

pub mod custody;
pub mod message;
pub mod record;
pub mod relay;
pub mod socket;
