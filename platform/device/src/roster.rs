//! The streams a guest believes in, written down in memory that outlives this process, so that a
//! successor can reset them: the guest would wait for ever on a stream that nobody knows.
//!
//! A memfd that vamosd made and hands to each device of a VM in turn: an array of 64-bit words, a
//! stream each, host port in the upper half, guest port in the lower, 0 for none. The first
//! [`VM_STREAMS_MAX`] words are the streams of the table that is alive, by their place in it; the rest
//! are a predecessor's until their RSTs are in the ring. Words change one at a time, a stream is
//! written before the guest can have an answer and struck out after its end is in the ring, so that the
//! process may be killed between any two instructions.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::fstat;
use vamos_proto::cell::ROSTER_BYTES;
use vamos_proto::id::VsockPort;
use vamos_vsock::Mux;
use vamos_vsock::limits::VM_STREAMS_MAX;
use vm_memory::mmap::{MmapRegion, MmapRegionError};
use vm_memory::{FileOffset, VolatileMemory};

const WORD_BYTES: usize = size_of::<u64>();
const WORDS: usize = ROSTER_BYTES / WORD_BYTES;

const _: () = assert!(WORDS > 2 * VM_STREAMS_MAX);

/// Why memory cannot be used as a roster.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// Not a file that can be asked.
    #[error("inspect the roster's memory")]
    Inspect(#[source] rustix::io::Errno),
    /// Too short.
    #[error("a roster of {0} bytes, {ROSTER_BYTES} are needed")]
    Size(i64),
    /// The kernel would not map it.
    #[error("map the roster")]
    Map(#[source] MmapRegionError),
}

/// See the module.
#[derive(Debug)]
pub struct Roster {
    region: MmapRegion<()>,
    /// [`Mux::wire_changes`] that are written down.
    written: u64,
    /// Words beyond the table's that are not 0.
    inherited: usize,
}

impl Roster {
    /// Takes over the memory with what a predecessor left in it.
    ///
    /// # Errors
    /// [`RosterError`].
    pub fn new(memory: OwnedFd) -> Result<Self, RosterError> {
        let size = fstat(&memory).map_err(RosterError::Inspect)?.st_size;
        if size < ROSTER_BYTES as i64 {
            return Err(RosterError::Size(size));
        }
        let file = FileOffset::new(File::from(memory), 0);
        let region = MmapRegion::from_file(file, ROSTER_BYTES).map_err(RosterError::Map)?;
        let mut roster = Self { region, written: 0, inherited: 0 };
        roster.inherit();
        Ok(roster)
    }

    /// Moves the last table's streams out of the way of the next one's. Killed half-way, the successor
    /// finds some twice and resets them twice, which a guest does not notice.
    fn inherit(&mut self) {
        // Those that are already out of the way come first, so that none is written over before it has moved.
        let places = (VM_STREAMS_MAX..WORDS).chain(0..VM_STREAMS_MAX);
        let known: Vec<u64> = places.map(|word| self.get(word)).filter(|&word| word != 0).collect();
        let room = WORDS - VM_STREAMS_MAX;
        for (place, &word) in known.iter().take(room).enumerate() {
            self.set(VM_STREAMS_MAX + place, word);
        }
        (0..VM_STREAMS_MAX).for_each(|word| self.set(word, 0));
        (known.len()..room).for_each(|place| self.set(VM_STREAMS_MAX + place, 0));
        self.inherited = known.len().min(room);
    }

    /// Host and guest port of each stream of a predecessor.
    pub(crate) fn inherited(&self) -> Vec<(VsockPort, VsockPort)> {
        (VM_STREAMS_MAX..VM_STREAMS_MAX + self.inherited).map(|word| ports(self.get(word))).collect()
    }

    /// Writes down what has changed.
    pub(crate) fn update(&mut self, mux: &Mux) {
        if self.inherited > 0 && !mux.has_strays() {
            (VM_STREAMS_MAX..VM_STREAMS_MAX + self.inherited).for_each(|word| self.set(word, 0));
            self.inherited = 0;
        }
        if self.written == mux.wire_changes() {
            return;
        }
        self.written = mux.wire_changes();
        for (place, stream) in mux.wire().enumerate().take(VM_STREAMS_MAX) {
            let word = stream.map_or(0, word_of);
            if self.get(place) != word {
                self.set(place, word);
            }
        }
    }

    fn get(&self, word: usize) -> u64 {
        self.word(word).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn set(&self, word: usize, value: u64) {
        if let Some(word) = self.word(word) {
            word.store(value, Ordering::Release);
        }
    }

    fn word(&self, word: usize) -> Option<&AtomicU64> {
        self.region.get_atomic_ref(word * WORD_BYTES).ok()
    }
}

fn word_of((host, guest): (VsockPort, VsockPort)) -> u64 {
    u64::from(host.0) << 32 | u64::from(guest.0)
}

fn ports(word: u64) -> (VsockPort, VsockPort) {
    (VsockPort((word >> 32) as u32), VsockPort(word as u32))
}
