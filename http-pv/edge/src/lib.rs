//! The parts of `vamos-edge`, the host process that serves HTTP to the world for all VMs.
//!
//! A request is routed by its host and path to a target, a VM's `http` binding, and sent over one of the streams that
//! the guest's agent keeps open (`upstream`). The edge keeps nothing that could not be lost: neither a route, which
//! vamosd tells it, nor an answer.

pub mod access_log;
pub mod forwarded;
mod life;
pub mod limits;
mod link;
mod object;
pub mod routes;
mod shared;
mod site;
pub mod upstream;
mod worker;

pub use life::live;
pub use object::OBJECT;
