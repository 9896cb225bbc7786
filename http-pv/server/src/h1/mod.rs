//! HTTP/1.1 and 1.0.

mod answer;
mod chunked;
mod content;
mod head;
mod input;

pub(crate) mod connection;
pub(crate) mod refusal;
