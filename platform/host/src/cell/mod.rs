//! Starting cells, talking to them, and listening to what they log.

pub mod channel;
pub mod logs;
pub mod spawn;
