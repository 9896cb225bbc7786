//! One request under way: a place to wait for its replies.

use std::future::poll_fn;
use std::sync::Arc;

use crate::error::ClientError;
use crate::link::{Link, Request};
use crate::sessions::{Reply, SessionRef};

/// A request that was sent. Dropping it drops its replies; what the request opened is closed.
pub(crate) struct Pending {
    link: Arc<Link>,
    session: SessionRef,
    sequence: u64,
}

impl Pending {
    /// Sends a request; nothing waits here.
    pub(crate) fn send<M: prost::Message>(
        link: &Arc<Link>,
        request: Request<'_, M>,
    ) -> Result<Self, ClientError> {
        let session = request.session;
        let sequence = link.send(request)?;
        Ok(Self { link: Arc::clone(link), session, sequence })
    }

    /// The request's number in its session.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The next reply; an Error reply is an error.
    pub(crate) async fn reply(&mut self) -> Result<Reply, ClientError> {
        match poll_fn(|cx| self.link.poll_reply(self.session, self.sequence, cx)).await? {
            Reply::Error(error) => Err(ClientError::Sql(error)),
            reply => Ok(reply),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.link.abandon(self.session, self.sequence);
    }
}
