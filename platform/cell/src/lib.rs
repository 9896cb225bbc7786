//! The parts of `vamos-cell`, the host process that serves exactly one VM.
//!
//! Composition only: the device is `platform/device`'s, the walls are `platform/sandbox`'s, what is said on a
//! stream is a service's. The cell decides which service answers on which port, and does what vamosd says
//! on the control channel. It takes nothing the guest says for an identity.

mod accept;
mod apart;
pub mod confine;
mod hello;
mod keepsake;
mod lease;
mod life;
pub mod limits;
mod serve;
mod sql;

/// The cell's end of its channel to vamosd.
pub type Control = vamos_channel::Channel<vamos_proto::cell::FromCell, vamos_proto::cell::ToCell>;

pub use life::live;
pub use serve::{ServeError, serve};
