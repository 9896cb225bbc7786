//! HTTP messages as the packages of `http-pv` hand them to each other: `http`'s requests and responses with one
//! type of body, and which of their fields end at a hop.

mod body;
pub mod hop;

pub use body::{Body, BodyError};
