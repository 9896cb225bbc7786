//! vamos-agent: front doors inside the guest.
//!
//! The agent says `hello` to the host and opens a door for every service bound to its VM: unmodified
//! clients speak to the door as they would to a local server, and each request travels over the VM's
//! device to the host. It holds no data and no secret, and decides nothing about access: who the guest is,
//! the host knows from the device.

pub mod databases;
pub mod hello;
mod http;
pub mod limits;
pub mod postgres;
pub mod run;
pub mod shell;
pub mod shutdown;
pub mod table;
