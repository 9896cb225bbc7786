//! A request on its way through the engine: its deadline, whether the client took it back, and whether
//! it has been begun.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use vamos_sql_server::engine::Cancel;
use vamos_sql_server::{SqlError, sqlstate};

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// One request.
#[derive(Debug)]
pub(crate) struct Ticket {
    deadline: Instant,
    allowed: Duration,
    cancelled: AtomicBool,
    state: AtomicU8,
    woken: Notify,
}

impl Ticket {
    pub(crate) fn new(allowed: Duration) -> Self {
        Self {
            deadline: Instant::now() + allowed,
            allowed,
            cancelled: AtomicBool::new(false),
            state: AtomicU8::new(WAITING),
            woken: Notify::new(),
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Why it should stop, if it should.
    pub(crate) fn stop(&self) -> Option<SqlError> {
        if self.cancelled.load(Relaxed) {
            Some(SqlError::cancelled())
        } else if Instant::now() >= self.deadline {
            let message = format!("the statement took longer than {:?}", self.allowed);
            Some(
                SqlError::new(sqlstate::QUERY_CANCELED, message)
                    .hint("Make it do less, or ask for a longer limit."),
            )
        } else {
            None
        }
    }

    /// Takes it up for execution; false if it has been withdrawn meanwhile.
    pub(crate) fn begin(&self) -> bool {
        self.state.compare_exchange(WAITING, BEGUN, AcqRel, Acquire).is_ok()
    }

    /// Puts it back to be executed elsewhere.
    pub(crate) fn put_back(&self) {
        let _ = self.state.compare_exchange(BEGUN, WAITING, AcqRel, Acquire);
    }

    /// Takes it out of the queue; false if it has been begun.
    fn withdraw(&self) -> bool {
        self.state.compare_exchange(WAITING, WITHDRAWN, AcqRel, Acquire).is_ok()
    }

    /// Ends when the request should stop.
    pub(crate) async fn stopped(&self) {
        let woken = self.woken.notified();
        if self.cancelled.load(Relaxed) {
            return;
        }
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep_until(self.deadline.into()) => {}
        }
    }

    /// The outcome that whoever executes the request sends. A request that should stop is withdrawn if
    /// it has not been begun; otherwise its execution notices by itself.
    pub(crate) async fn outcome<T>(&self, mut receiver: oneshot::Receiver<T>) -> Result<T, Lost> {
        tokio::select! {
            biased;
            outcome = &mut receiver => return outcome.map_err(|_| Lost::Executor),
            () = self.stopped() => {}
        }
        if self.withdraw() {
            return Err(Lost::Stopped(self.stop().unwrap_or_else(SqlError::cancelled)));
        }
        receiver.await.map_err(|_| Lost::Executor)
    }
}

/// Why there is no outcome.
#[derive(Debug)]
pub(crate) enum Lost {
    /// It was stopped before it was begun.
    Stopped(SqlError),
    /// Its executor went away without a word.
    Executor,
}

impl From<Lost> for SqlError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Stopped(error) => error,
            Lost::Executor => SqlError::new(
                sqlstate::CONNECTION_FAILURE,
                "what the statement ran on was given up; its outcome is unknown",
            ),
        }
    }
}

impl Cancel for Ticket {
    fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
        self.woken.notify_one();
    }
}
