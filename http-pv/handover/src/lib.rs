//! How a cell hands its guest's streams, and objects of its volume, to the edge.
//!
//! The two are joined by a socket of messages, the VM's link, which vamosd gives to both. A guest's agent opens
//! streams ahead of any request; each gets a Unix stream, whose other end goes over the link. What is said on it is
//! between the agent and the edge: the cell copies bytes.

pub mod limits;
mod link;
mod object;
mod service;

pub use link::{LinkError, LinkSocket};
pub use object::{Objects, open};
pub use service::{Edge, HttpService};
