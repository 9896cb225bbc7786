//! COPY: rows of text or CSV between the client and a table, streamed.
//!
//! What comes in becomes packed batches, a bounded number of them under way, all in one transaction.
//! What goes out is a cursor's rows, fetched as the client takes them.

mod csv;
mod field;
mod inbound;
mod lines;
mod outbound;
mod text;

use tokio::io::{AsyncRead, AsyncWrite};
use vamos_sql_dialect::postgres::{Copy, Direction};

use super::connection::{Connection, Failure};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Runs a COPY to its completion.
    pub(super) async fn copy(&mut self, copy: &Copy) -> Result<(), Failure> {
        let rows = match copy.direction {
            Direction::In => self.copy_in(copy).await?,
            Direction::Out => self.copy_out(copy).await?,
        };
        self.complete(format!("COPY {rows}"));
        Ok(())
    }
}
