//! Starting cells, talking to them, and listening to what they log.

pub mod adopt;
pub mod logs;
pub mod spawn;

use vamos_proto::cell::{FromCell, ToCell};

/// vamosd's end of the private channel to one cell.
pub type CellChannel = vamos_channel::Channel<ToCell, FromCell>;

/// What can be told a cell with, by several tasks.
pub type CellSender = vamos_channel::Sender<ToCell>;
