//! How long the cell may write its volume: as long as its vamosd said last. One whose time is over waits: its vamosd may be
//! dead and followed by another, which renews the lease; or may have lost it, and then ends the cell.

use rustix::time::{ClockId, clock_gettime};
use vamos_proto::cell::Start;
use vamos_sqlite::Fence;

/// The fence of all databases of the volume.
pub(crate) fn fence(start: &Start) -> Fence {
    if !start.leased {
        return Fence::always();
    }
    let fence = Fence::lapsed(since_boot);
    fence.renew(start.lease_until);
    fence
}

/// `CLOCK_BOOTTIME`, nanoseconds.
pub(crate) fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    // Neither part of the time since a start is negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
