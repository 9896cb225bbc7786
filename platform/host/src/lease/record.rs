//! What is written down about who holds a volume, and what follows from seeing it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A vamosd, as others know it: its kernel's boot and its state directory. A vamosd that is started again on the
/// same boot with the same, locked, directory is the same holder; a copy of either elsewhere, or after a reboot, is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The machine's name, for people.
    pub host: String,
    /// Tells holders apart.
    pub identity: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {} ({})", self.host, self.identity)
    }
}

/// What the holder of an epoch says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Who.
    pub holder: Holder,
    /// Counts its renewals.
    pub beat: u64,
    /// It has ended its cell, and nobody writes below this epoch any more.
    pub released: bool,
    /// So had the holder before it: its data may be renamed, and need not be copied.
    pub after_release: bool,
}

/// Somebody else's record that is watched, by the watcher's own clock.
#[derive(Debug)]
pub(super) struct Watch {
    epoch: u64,
    seen: Option<Record>,
    since: Duration,
}

impl Watch {
    /// Looks at what the holder of `epoch` says; for how long it has said just that. Time is whatever the caller's clock
    /// counts: no two machines' clocks are compared.
    pub(super) fn look(
        watch: &mut Option<Self>,
        epoch: u64,
        seen: Option<&Record>,
        now: Duration,
    ) -> Duration {
        match watch {
            Some(watch) if watch.epoch == epoch && watch.seen.as_ref() == seen => {
                now.saturating_sub(watch.since)
            }
            _ => {
                *watch = Some(Self { epoch, seen: seen.cloned(), since: now });
                Duration::ZERO
            }
        }
    }
}
