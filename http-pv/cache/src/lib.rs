//! A shared cache of HTTP answers (RFC 9111, with RFC 5861's stale ones), for servers that others must not share
//! anything with: each has a [`Scope`] of its own, with room of its own.
//!
//! Several requests for one URL that is not kept become one. It is a cache: removing all of it at any time changes only
//! speed.

mod directives;
mod fetch;
mod fill;
pub mod limits;
mod scope;
mod stored;

pub use fetch::{Clock, Origin, fetch};
pub use scope::{Purge, Scope, ScopeStats};
