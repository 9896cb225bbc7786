//! Starting cells, talking to them, and listening to what they log.

pub mod adopt;
pub mod channel;
pub mod logs;
pub mod spawn;
