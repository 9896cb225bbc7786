//! The lease of a volume that several hosts can reach: exactly one vamosd may run the VM's cell on it.
//!
//! ```text
//!  claim ──▶ WAITING ── released, or unchanged for longer than any validity ──▶ HELD ──renew──▶ HELD
//!               ▲                                                                 │ a higher epoch exists
//!               └────────────── its cell has ended ────────────── LOST ◀──────────┘
//! ```
//!
//! A holder writes its beat first and looks for a higher epoch second; if there is none, the lease is valid for
//! [`Terms::ttl`] from before the beat. A taker claims the next epoch after a beat that has not changed for longer than
//! that, and then looks once more: a holder whose look came before the claim has beaten before it, and is given its
//! time. Durations alone are compared, each by one machine's own clock that counts through sleep; nobody's idea
//! of the date matters.
//!
//! Hosts that share an etcd keep their leases there ([`etcd`]), which does the watching for them.
//!
//! Knows nothing of cells: who holds the lease ends them first.

pub mod etcd;
pub mod file;
mod record;
pub mod volume;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::task::spawn_blocking;

pub use record::{Holder, Record};

/// Why a lease cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The volume's directory.
    #[error("{action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No member of etcd does what it is asked.
    #[error("etcd at {place}: {reason}")]
    Etcd {
        /// Where; the last one that was asked.
        place: String,
        /// Why not.
        reason: String,
    },
    /// The thread that was to use it is gone.
    #[error("vamosd is ending")]
    Ending,
    /// Something in the volume is not what a cell leaves there.
    #[error("{} in the volume {reason}; move it away", .path.display())]
    Foreign {
        /// What.
        path: PathBuf,
        /// Why it cannot be taken over.
        reason: &'static str,
    },
}

/// How long a lease lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// From before a beat.
    pub ttl: Duration,
}

impl Terms {
    /// How long a beat must be unchanged before its holder is held to be gone: a quarter more, for clocks that
    /// do not run alike.
    pub fn patience(self) -> Duration {
        self.ttl + self.ttl / 4
    }
}

/// What became of an attempt to have the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is ours; to be renewed before it is used.
    Ours {
        /// The epoch.
        epoch: u64,
        /// The holder before has ended its cell.
        after_release: bool,
    },
    /// Another has it; try again.
    Others {
        /// Under which epoch.
        epoch: u64,
        /// Who; `None` if it did not live to say so.
        holder: Option<Holder>,
    },
}

/// What became of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Valid for [`Terms::ttl`] from before the call.
    Valid,
    /// There is a higher epoch: another holds the volume.
    Lost,
}

/// A lease in one of the two ways.
#[derive(Debug)]
pub enum Lease {
    /// Files in the volume; `None` while a thread has it.
    File(Option<file::FileLease>),
    /// A key in etcd.
    Etcd(etcd::EtcdLease),
}

impl Lease {
    /// Tries to have the lease; to be repeated while it is another's.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn claim(&mut self) -> Result<Claim, LeaseError> {
        match self {
            Self::File(lease) => on_a_thread(lease, |lease| lease.claim(since_boot())).await,
            Self::Etcd(lease) => lease.claim().await,
        }
    }

    /// Renews the lease that is held.
    ///
    /// # Errors
    /// [`LeaseError`]; it is valid for as long as it was.
    pub async fn renew(&mut self) -> Result<Renewal, LeaseError> {
        match self {
            Self::File(lease) => on_a_thread(lease, file::FileLease::renew).await,
            Self::Etcd(lease) => lease.renew().await,
        }
    }

    /// Gives the lease up: the cell has ended.
    ///
    /// # Errors
    /// [`LeaseError`]: others will have to wait.
    pub async fn release(&mut self) -> Result<(), LeaseError> {
        match self {
            Self::File(lease) => on_a_thread(lease, file::FileLease::release).await,
            Self::Etcd(lease) => lease.release().await,
        }
    }

    /// What is known of earlier epochs is of no use to anybody.
    pub async fn forget_old(&mut self) {
        if let Self::File(lease) = self {
            let _ = on_a_thread(lease, |lease| {
                lease.forget_old();
                Ok(())
            })
            .await;
        }
    }
}

/// A shared file system may take its time.
async fn on_a_thread<T: Send + 'static>(
    lease: &mut Option<file::FileLease>,
    work: impl FnOnce(&mut file::FileLease) -> Result<T, LeaseError> + Send + 'static,
) -> Result<T, LeaseError> {
    let mut own = lease.take().ok_or(LeaseError::Ending)?;
    let worked = spawn_blocking(move || (work(&mut own), own)).await;
    let (outcome, own) = worked.map_err(|_| LeaseError::Ending)?;
    *lease = Some(own);
    outcome
}

/// The clock leases are counted by: since the machine's boot, sleep included. Nobody can set it.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // Neither is ever negative.
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Who this vamosd is; `instance` names its state directory on this boot of the machine.
///
/// # Errors
/// As reading `/proc`.
pub fn own_identity(instance: &str) -> io::Result<Holder> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Ok(Holder { host, identity: format!("{}/{instance}", boot.trim()) })
}
