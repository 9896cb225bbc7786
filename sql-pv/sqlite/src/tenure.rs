//! Who is a session at the moment. A session goes on elsewhere only when everything that was under way in
//! it here has ended: then what its records say of a request is final.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use vamos_seam::{Bug, errs};
use vamos_sql_server::SqlError;

use crate::sqlstate;
use crate::ticket::Ticket;

/// The keys of the sessions that live in this process.
#[derive(Debug, Default)]
pub(crate) struct Tenures {
    held: Mutex<HashSet<u64>>,
    freed: Notify,
}

/// The right to act as a session. Shared by the session and all it has under way; the next one may come
/// when the last of them is gone.
#[derive(Debug)]
pub(crate) struct Tenure {
    key: u64,
    of: Arc<Tenures>,
}

impl Tenures {
    fn held(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Becomes the session, if nobody is.
    pub(crate) fn begin(self: &Arc<Self>, key: u64) -> Option<Arc<Tenure>> {
        (self.held().insert(key) || errs(Bug::TenureUnawaited))
            .then(|| Arc::new(Tenure { key, of: self.clone() }))
    }

    /// Becomes the session as soon as nobody is.
    pub(crate) async fn succeed(
        self: &Arc<Self>,
        key: u64,
        ticket: &Ticket,
    ) -> Result<Arc<Tenure>, SqlError> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Before the look: a session that ends after it is heard of.
            freed.as_mut().enable();
            if let Some(tenure) = self.begin(key) {
                return Ok(tenure);
            }
            tokio::select! {
                () = freed => {}
                () = ticket.stopped() => return Err(sqlstate::session_busy()),
            }
        }
    }
}

impl Tenure {
    /// The session's key.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.of.held().remove(&self.key);
        self.of.freed.notify_waiters();
    }
}
