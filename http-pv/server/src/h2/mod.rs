//! HTTP/2 (RFC 9113), with WebSocket as of RFC 8441. Frames and streams are the `h2` crate's; what a request means, what a
//! client may cost, and which frames come at all is looked at here.

mod answer;
mod content;
mod exchange;
mod gate;
mod heads;
mod request;

pub(crate) mod connection;
