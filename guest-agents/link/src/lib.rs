//! The guest's side of the channel: opens streams to the host.
//!
//! Two ways there, one type: in a VM, the kernel's vsock driver; as a *process guest*, this very
//! process is the driver, over a memfd that it shares with the device ([`process`]). A process
//! guest needs no VM and runs at native speed.
//!
//! Knows nothing of what is spoken on a stream, and holds no secret: who the host thinks we are
//! depends on the device alone.

mod address;
mod channel;
pub mod limits;
pub mod process;

pub use address::{ChannelAddress, ChannelAddressError};
pub use channel::{Channel, Stream};
pub use process::{AttachError, LinkCounters, ProcessGuest};
