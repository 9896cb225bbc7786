//! What a statement is, asked where it would run.

use std::sync::Arc;

use vamos_sql_server::SqlError;
use vamos_sql_server::engine::Description;

use super::Shared;
use crate::facts::Facts;
use crate::pool::{self, ReadReply};
use crate::seat::{Outcome, Request};
use crate::ticket::{Lost, Ticket};

impl Shared {
    pub(super) async fn describe(
        self: Arc<Self>,
        ticket: Arc<Ticket>,
        facts: Arc<Facts>,
    ) -> Result<Description, SqlError> {
        let is_seated = self.state().seat.is_some();
        if is_seated {
            return match self.ask(&ticket, Request::Describe { facts }, None).await? {
                Outcome::Described(description) => Ok(description),
                _ => Err(Lost::Executor.into()),
            };
        }
        match self.pooled(&ticket, &facts, pool::What::Describe).await? {
            ReadReply::Described(description) => description,
            ReadReply::Page(Err(error)) => Err(error),
            _ => Err(Lost::Executor.into()),
        }
    }
}
