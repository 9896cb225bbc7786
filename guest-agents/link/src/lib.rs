//! The guest side of the channel: opens streams to the host's services.
//!
//! A [`Channel`] is either the VM's own vsock device, through the guest's kernel, or a *process
//! guest*: this process is itself the vhost-user front-end and driver, over a memfd with real
//! rings. Both give the same [`Stream`]; nothing here knows what is said on it.

mod address;
mod channel;
pub mod limits;
pub mod process_guest;

pub use address::{AddressError, ChannelAddress};
pub use channel::{Channel, Stream};
pub use process_guest::ProcessGuest;
