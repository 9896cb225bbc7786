//! The write lane of a database: whoever writes holds it, and those who wait get it in the order of
//! their coming.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vamos_sql_server::SqlError;

use crate::sqlstate;
use crate::ticket::Ticket;

/// The right to write; dropping it lets the next one write.
pub(crate) type Turn = OwnedSemaphorePermit;

/// The queue of those who want to write.
#[derive(Debug)]
pub(crate) struct Lane(Arc<Semaphore>);

impl Lane {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Waits for the lane as long as the request may last.
    pub(crate) async fn turn(&self, ticket: &Ticket) -> Result<Turn, SqlError> {
        tokio::select! {
            biased;
            turn = self.0.clone().acquire_owned() => turn.map_err(|_| sqlstate::shutting_down()),
            () = ticket.stopped() => Err(sqlstate::lane_not_available(ticket)),
        }
    }

    /// Waits for the lane, blocking the thread. `None` when the engine is going away.
    pub(crate) fn block(&self) -> Option<Turn> {
        futures::executor::block_on(self.0.clone().acquire_owned()).ok()
    }

    /// Lets nobody wait any longer.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}
