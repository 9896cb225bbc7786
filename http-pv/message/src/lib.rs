//! HTTP messages as the packages of `http-pv` hand them to each other: `http`'s requests and responses with one
//! type of body, which of their fields end at a hop, and which part of a representation answers a request.

mod body;
pub mod hop;
pub mod part;

pub use body::{Body, BodyError};
