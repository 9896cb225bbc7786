//! The guest's end of paravirtual HTTP: the edge's requests come on streams that the guest has opened, and go to a
//! server that knows nothing of it.
//!
//! [`serve`] answers what comes on one stream by any `tower` service: a Rust server takes requests so, with no socket at
//! all. [`Forward`] is the service that hands them to another server, as it is, over loopback or a Unix socket.

mod fastcgi;
mod forward;
mod gather;
pub mod limits;
mod pool;
mod serve;
mod upgrade;
mod upstream;
mod whole;

pub use forward::Forward;
pub use serve::{Drain, serve};
pub use upstream::{Upstream, UpstreamError};

use http::HeaderName;

/// Says why there is an answer that is not the server's own.
pub const REASON: HeaderName = HeaderName::from_static("vamos-reason");
