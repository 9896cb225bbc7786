//! Says in the log what a guest did wrong, without letting it fill the disk: of each kind the
//! first, the second, the fourth, the eighth and so on. Counters have the exact number.

use vamos_proto::id::GuestCid;
use vamos_vsock::Violation;

use crate::chain::ChainError;

/// See the module.
#[derive(Debug)]
pub(crate) struct Audit {
    cid: GuestCid,
    packets: u64,
    chains: u64,
    rings: u64,
}

impl Audit {
    pub(crate) fn new(cid: GuestCid) -> Self {
        Self { cid, packets: 0, chains: 0, rings: 0 }
    }

    pub(crate) fn packet(&mut self, violation: Violation) {
        self.packets += 1;
        if self.packets.is_power_of_two() {
            tracing::warn!(cid = self.cid.0, total = self.packets, %violation, "guest sent a bad packet");
        }
    }

    pub(crate) fn chain(&mut self, error: ChainError) {
        self.chains += 1;
        if self.chains.is_power_of_two() {
            tracing::warn!(cid = self.cid.0, total = self.chains, %error, "guest made a bad descriptor chain available");
        }
    }

    pub(crate) fn ring(&mut self, what: &'static str) {
        self.rings += 1;
        if self.rings.is_power_of_two() {
            tracing::warn!(cid = self.cid.0, total = self.rings, "{what}: it waits to be set up anew");
        }
    }
}
