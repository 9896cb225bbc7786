//! One virtqueue of the device: where it is, whether it runs, and the way in and out of it.
//!
//! Consumed strictly in order; a buffer is given back only when what was in it is owned. A chain
//! that breaks the rules is given back empty and counted. A ring that breaks them (an available
//! index further ahead than the ring is long, a head that is no descriptor) is broken: it is not
//! looked at again until the front-end sets it up anew, so it cannot make the thread spin.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use virtio_queue::{Error as QueueError, Queue, QueueOwnedT, QueueT};

use crate::chain::{Chain, ChainError, Direction};
use crate::limits::QUEUE_ENTRIES_MAX;
use crate::memory::{GuestTable, Memory};

/// Why a ring cannot be set up as asked.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Not a power of two, or beyond [`QUEUE_ENTRIES_MAX`].
    #[error("a ring of {0} entries: a power of two up to {QUEUE_ENTRIES_MAX} is needed")]
    Size(u32),
    /// The change is allowed only before the ring runs.
    #[error("the ring is running")]
    Running,
    /// An address that is in no shared region.
    #[error("ring address {0:#x} is not in shared memory")]
    Address(u64),
    /// Misaligned, or not wholly in guest memory.
    #[error("ring is not in guest memory, or misaligned")]
    Layout,
    /// The used index could not be read.
    #[error("read a ring's used index")]
    Unreadable(#[source] QueueError),
}

/// What [`Ring::pop`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Popped {
    /// Nothing available, or the ring does not run.
    Empty,
    /// A good chain: [`Ring::push_used`] is owed.
    Chain,
    /// A bad chain, already given back.
    Rejected(ChainError),
    /// The ring has just broken.
    Broken,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ring {
    queue: Queue,
    direction: Direction,
    /// Descriptor table, available ring, used ring: addresses of the front-end.
    addresses: Option<[u64; 3]>,
    started: bool,
    enabled: bool,
    broken: bool,
    call: Option<File>,
    err: Option<File>,
    /// A kick fd that the event loop has not taken yet; `Some(None)`: there is none any more.
    new_kick: Option<Option<OwnedFd>>,
    /// Where the ring stopped last.
    stopped_at: Option<u16>,
    /// Begin where the used ring ends, whatever base was given: a predecessor has been there.
    follows_used: bool,
    /// Buffers were given back that the driver was not told of.
    untold: bool,
    /// End of the run of heads that `seen` speaks of.
    batch_end: u16,
    /// Heads taken in the current run, a bit each: the same one twice is a driver's fault.
    seen: Vec<u64>,
}

impl Ring {
    pub(crate) fn new(direction: Direction) -> Result<Self, RingError> {
        Ok(Self {
            queue: Queue::new(QUEUE_ENTRIES_MAX).map_err(|_| RingError::Size(QUEUE_ENTRIES_MAX.into()))?,
            direction,
            addresses: None,
            started: false,
            enabled: false,
            broken: false,
            call: None,
            err: None,
            new_kick: None,
            stopped_at: None,
            follows_used: false,
            untold: false,
            batch_end: 0,
            seen: vec![0; usize::from(QUEUE_ENTRIES_MAX).div_ceil(64)],
        })
    }

    // --- control ---

    pub(crate) fn set_size(&mut self, entries: u32) -> Result<(), RingError> {
        if self.started {
            return Err(RingError::Running);
        }
        let size = u16::try_from(entries).map_err(|_| RingError::Size(entries))?;
        self.queue.try_set_size(size).map_err(|_| RingError::Size(entries))
    }

    /// Takes the addresses of descriptor table, available and used ring, checked if there is memory
    /// to check them against.
    pub(crate) fn set_addresses(&mut self, addresses: [u64; 3], table: &GuestTable) -> Result<(), RingError> {
        self.addresses = Some(addresses);
        if table.is_empty() { Ok(()) } else { self.locate(table) }
    }

    /// Translates the addresses and checks that the whole ring is in guest memory.
    pub(crate) fn locate(&mut self, table: &GuestTable) -> Result<(), RingError> {
        let Some([descriptors, available, used]) = self.addresses else { return Err(RingError::Layout) };
        let at = |address| table.guest_address(address).ok_or(RingError::Address(address));
        let place = (at(descriptors)?, at(available)?, at(used)?);
        let aligned = self.queue.try_set_desc_table_address(place.0).is_ok()
            && self.queue.try_set_avail_ring_address(place.1).is_ok()
            && self.queue.try_set_used_ring_address(place.2).is_ok();
        let ready = self.queue.ready();
        self.queue.set_ready(true);
        let inside = aligned && self.queue.is_valid(&table.memory);
        self.queue.set_ready(ready);
        if inside { Ok(()) } else { Err(RingError::Layout) }
    }

    /// The front-end's next available index. True if it is not where the ring stopped, that is,
    /// if the driver has begun anew.
    pub(crate) fn set_base(&mut self, base: u16) -> Result<bool, RingError> {
        if self.started {
            return Err(RingError::Running);
        }
        self.queue.set_next_avail(base);
        Ok(self.stopped_at.is_some_and(|stopped| stopped != base))
    }

    /// Makes the next start go on where a predecessor stopped, which nobody asked. It took every buffer in
    /// order and gave each back once it was owned, so the used index says it.
    pub(crate) fn follow_used(&mut self) {
        self.follows_used = true;
    }

    /// Starts the ring with `kick`; without one it is looked at only when something else happens.
    pub(crate) fn start(&mut self, kick: Option<OwnedFd>, table: &GuestTable) -> Result<(), RingError> {
        self.locate(table)?;
        let used = self.queue.used_idx(&table.memory, Ordering::Acquire).map_err(RingError::Unreadable)?;
        self.queue.set_next_used(used.0);
        if std::mem::take(&mut self.follows_used) {
            self.queue.set_next_avail(used.0);
        }
        self.queue.set_ready(true);
        self.started = true;
        self.broken = false;
        self.untold = false;
        self.batch_end = self.queue.next_avail();
        self.new_kick = Some(kick);
        Ok(())
    }

    /// Stops the ring; its next available index.
    pub(crate) fn stop(&mut self) -> u16 {
        self.started = false;
        self.queue.set_ready(false);
        self.new_kick = Some(None);
        self.call = None;
        let base = self.queue.next_avail();
        self.stopped_at = Some(base);
        base
    }

    /// Forgets everything: the driver has reset the device.
    pub(crate) fn reset(&mut self) {
        self.stop();
        self.enabled = false;
        self.queue.reset();
        self.addresses = None;
        self.err = None;
        self.stopped_at = None;
    }

    pub(crate) fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    pub(crate) fn set_event_idx(&mut self, enabled: bool) {
        self.queue.set_event_idx(enabled);
    }

    pub(crate) fn set_call(&mut self, call: Option<File>) {
        // UML's is a pipe, everybody else's an eventfd. It must not block when the guest does not
        // listen: a full pipe already says all that there is to say.
        if let Some(file) = &call
            && let Ok(flags) = rustix::fs::fcntl_getfl(file)
        {
            let _ = rustix::fs::fcntl_setfl(file, flags | rustix::fs::OFlags::NONBLOCK);
        }
        self.call = call;
    }

    pub(crate) fn set_err(&mut self, err: Option<File>) {
        self.err = err;
    }

    pub(crate) fn take_new_kick(&mut self) -> Option<Option<OwnedFd>> {
        self.new_kick.take()
    }

    pub(crate) fn is_started(&self) -> bool {
        self.started
    }

    pub(crate) fn runs(&self) -> bool {
        self.started && self.enabled && !self.broken
    }

    /// Marks the ring as broken and tells the front-end, if it wanted to know.
    pub(crate) fn break_down(&mut self) {
        self.broken = true;
        if let Some(err) = &self.err {
            signal(err);
        }
    }

    // --- data ---

    /// Whether there is something to pop, without popping it.
    pub(crate) fn has_available(&self, memory: &Memory) -> bool {
        self.runs()
            && self
                .queue
                .avail_idx(memory, Ordering::Acquire)
                .is_ok_and(|index| index.0 != self.queue.next_avail())
    }

    /// Takes the next available chain into `chain`.
    pub(crate) fn pop(&mut self, memory: &Memory, chain: &mut Chain) -> Popped {
        if !self.runs() {
            return Popped::Empty;
        }
        if self.queue.next_avail() == self.batch_end {
            match self.queue.avail_idx(memory, Ordering::Acquire) {
                Ok(index) if index.0 == self.batch_end => return Popped::Empty,
                Ok(index) => self.batch_end = index.0,
                Err(_) => return self.broke(),
            }
            self.seen.fill(0);
        }
        let next = match self.queue.iter(memory) {
            Ok(mut available) => available.next(),
            // The index is further ahead than the ring is long.
            Err(_) => return self.broke(),
        };
        let Some(descriptors) = next else { return self.broke() };
        let head = descriptors.head_index();
        if head >= self.queue.size() {
            return self.broke();
        }
        let (word, bit) = (usize::from(head / 64), 1u64 << (head % 64));
        let twice = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        let loaded = chain.load(memory, descriptors, self.direction);
        match if twice { Err(ChainError::Truncated) } else { loaded } {
            Ok(()) => Popped::Chain,
            Err(error) => {
                self.push_used(memory, head, 0);
                Popped::Rejected(error)
            }
        }
    }

    fn broke(&mut self) -> Popped {
        self.break_down();
        Popped::Broken
    }

    /// Gives a chain back with `bytes` written into it.
    pub(crate) fn push_used(&mut self, memory: &Memory, head: u16, bytes: u32) {
        match self.queue.add_used(memory, head, bytes) {
            Ok(()) => self.untold = true,
            Err(_) => self.break_down(),
        }
    }

    /// Asks the driver to kick for the next buffer. True if there already is one.
    pub(crate) fn arm(&mut self, memory: &Memory) -> bool {
        self.runs() && self.queue.enable_notification(memory).unwrap_or(false)
    }

    /// Asks the driver not to kick (with EVENT_IDX it does not, unless armed).
    pub(crate) fn disarm(&mut self, memory: &Memory) {
        if self.runs() && self.queue.disable_notification(memory).is_err() {
            self.break_down();
        }
    }

    /// Whether the guest wants an interrupt for what was given back since the last question; `None` if
    /// nothing was. [`Ring::call`] is owed if it does.
    pub(crate) fn wants_call(&mut self, memory: &Memory) -> Option<bool> {
        if !self.untold || !self.started {
            return None;
        }
        self.untold = false;
        Some(self.queue.needs_notification(memory).unwrap_or(true))
    }

    /// Interrupts the guest.
    pub(crate) fn call(&self) {
        if let Some(call) = &self.call {
            signal(call);
        }
    }

    /// Entries.
    pub(crate) fn size(&self) -> u16 {
        self.queue.size()
    }
}

/// Adds 1 to an eventfd, or writes eight bytes into a pipe. A full one needs no more.
fn signal(file: &File) {
    if let Err(error) = rustix::io::write(file, &1u64.to_ne_bytes())
        && error != rustix::io::Errno::AGAIN
    {
        tracing::debug!(%error, "notify the front-end");
    }
}
