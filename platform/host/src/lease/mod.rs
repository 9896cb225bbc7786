//! Who may run a VM on a volume that several hosts can reach: exactly one, who holds its lease.
//!
//! A lease has an epoch, which only grows. Its holder renews it; whoever waits watches it on a clock of its own that no
//! operator sets, and claims the next epoch when it has not been renewed for longer than it can be valid. A cell commits
//! and acknowledges only while its lease is valid: one that was stopped, or whose host lost the volume, holds back, and
//! ends when it hears that it lost it. What it had under way by then goes to files that nobody uses any more: each epoch
//! has a directory of its own ([`place`]).
//!
//! Two ways of keeping one: files in the volume ([`file`]), and etcd, for hosts that share one ([`etcd`]).

pub mod clock;
pub mod etcd;
pub mod file;
pub mod place;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clock::Moment;

/// Who holds a lease, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Of one state directory, for good.
    pub id: String,
    /// For people.
    pub name: String,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}

/// A lease that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub epoch: u64,
    /// The holder may act until then.
    pub until: Moment,
    /// Whether the one before gave its lease back, so that its cell is dead.
    pub clean: bool,
}

/// What asking for a lease came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is ours.
    Held(Held),
    /// It is another's.
    Taken {
        /// Whose.
        by: Host,
        /// Which.
        epoch: u64,
    },
}

/// What renewing one came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The holder may act until then.
    Until(Moment),
    /// Another holds a later one.
    Lost,
}

/// Why nothing is known of a lease now.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The volume.
    #[error("{action} {}: {source}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The volume is not there, or not what it should be.
    #[error("volume {}: {reason}", .path.display())]
    Volume {
        /// Which.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// No member of etcd does what it is asked.
    #[error("etcd at {place}: {reason}")]
    Etcd {
        /// Where; the last one that was asked.
        place: String,
        /// Why not.
        reason: String,
    },
}

fn failed(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> LeaseError {
    move |source| LeaseError::File { action, path: path.into(), source }
}

/// A lease on one volume, in one of the two ways.
#[derive(Debug)]
pub enum Lease {
    /// Files in the volume.
    File(file::FileLease),
    /// A key in etcd.
    Etcd(etcd::EtcdLease),
}

impl Lease {
    /// Asks for the lease, once; to be repeated while it is another's.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn claim(&mut self) -> Result<Claim, LeaseError> {
        match self {
            Self::File(lease) => lease.claim().await,
            Self::Etcd(lease) => lease.claim().await,
        }
    }

    /// Renews the lease that is held.
    ///
    /// # Errors
    /// [`LeaseError`]; it may be lost or not.
    pub async fn renew(&mut self) -> Result<Renewal, LeaseError> {
        match self {
            Self::File(lease) => lease.renew().await,
            Self::Etcd(lease) => lease.renew().await,
        }
    }

    /// Gives the lease back: nothing of ours acts on the volume any more.
    ///
    /// # Errors
    /// [`LeaseError`]; others wait until it lapses.
    pub async fn release(&mut self) -> Result<(), LeaseError> {
        match self {
            Self::File(lease) => lease.release().await,
            Self::Etcd(lease) => lease.release().await,
        }
    }

    /// Longest a lease may be held without being renewed.
    pub fn valid_for(&self) -> Duration {
        match self {
            Self::File(lease) => lease.valid_for(),
            Self::Etcd(lease) => lease.valid_for(),
        }
    }
}
