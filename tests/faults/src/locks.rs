//! The locks of a file and the memory that connections share over it, as between the threads of one
//! process. Both are gone when the power is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rusqlite::ffi::SQLITE_SHM_NLOCK;

/// One open file, as a holder of locks.
pub(crate) type Holder = u64;

/// How strongly a file is locked (<https://sqlite.org/lockingv3.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    None,
    Shared,
    Reserved,
    Pending,
    Exclusive,
}

impl Level {
    /// SQLite's number.
    pub(crate) fn from_code(code: i32) -> Self {
        match code {
            0 => Level::None,
            1 => Level::Shared,
            2 => Level::Reserved,
            3 => Level::Pending,
            _ => Level::Exclusive,
        }
    }
}

/// Who holds a file, and how.
#[derive(Debug, Default)]
pub(crate) struct Locks(HashMap<Holder, Level>);

impl Locks {
    fn others(&self, holder: Holder) -> impl Iterator<Item = Level> {
        self.0.iter().filter(move |(other, _)| **other != holder).map(|(_, level)| *level)
    }

    fn held(&self, holder: Holder) -> Level {
        self.0.get(&holder).copied().unwrap_or(Level::None)
    }

    /// Raises a holder's lock; false if others are in the way.
    pub(crate) fn raise(&mut self, holder: Holder, to: Level) -> bool {
        if self.held(holder) >= to {
            return true;
        }
        let highest = self.others(holder).max().unwrap_or(Level::None);
        let (granted, free) = match to {
            Level::None => (to, true),
            Level::Shared => (to, highest < Level::Pending),
            Level::Reserved => (to, highest < Level::Reserved),
            // Waiting for the readers to go, it lets no further one in.
            Level::Pending | Level::Exclusive if highest == Level::Shared => (Level::Pending, false),
            Level::Pending | Level::Exclusive => (to, highest == Level::None),
        };
        if free || granted == Level::Pending {
            self.0.insert(holder, granted);
        }
        free
    }

    /// Lowers a holder's lock.
    pub(crate) fn lower(&mut self, holder: Holder, to: Level) {
        if to == Level::None {
            self.0.remove(&holder);
        } else if self.held(holder) > to {
            self.0.insert(holder, to);
        }
    }

    /// Whether anybody is about to write.
    pub(crate) fn is_reserved(&self) -> bool {
        self.0.values().any(|level| *level >= Level::Reserved)
    }
}

/// Words of one region: SQLite maps 32 KiB at a time.
const REGION_WORDS: usize = 32_768 / 8;

/// A part of the shared memory; it never moves.
pub(crate) type Region = Arc<[AtomicU64; REGION_WORDS]>;

/// The memory that connections to one database share.
#[derive(Default)]
pub(crate) struct SharedMemory {
    regions: Vec<Region>,
    holders: HashMap<Holder, (u8, u8)>,
}

impl SharedMemory {
    /// A region; `None` if it is not there and not to be made.
    pub(crate) fn region(&mut self, holder: Holder, number: usize, extend: bool) -> Option<Region> {
        self.holders.entry(holder).or_default();
        while extend && self.regions.len() <= number {
            self.regions.push(Arc::new([const { AtomicU64::new(0) }; REGION_WORDS]));
        }
        self.regions.get(number).cloned()
    }

    /// Takes locks of the memory, bit by bit; false if others are in the way.
    pub(crate) fn lock(&mut self, holder: Holder, bits: u8, exclusive: bool) -> bool {
        let others = self.holders.iter().filter(|(other, _)| **other != holder);
        let (shared, exclusives) =
            others.fold((0, 0), |(a, b), (_, (shared, exclusive))| (a | shared, b | exclusive));
        let is_free = exclusives & bits == 0 && (!exclusive || shared & bits == 0);
        if is_free {
            let own = self.holders.entry(holder).or_default();
            if exclusive { own.1 |= bits } else { own.0 |= bits }
        }
        is_free
    }

    /// Gives locks back.
    pub(crate) fn unlock(&mut self, holder: Holder, bits: u8) {
        if let Some(own) = self.holders.get_mut(&holder) {
            own.0 &= !bits;
            own.1 &= !bits;
        }
    }

    /// Lets go of the memory; true if nobody has it any more.
    pub(crate) fn leave(&mut self, holder: Holder) -> bool {
        self.holders.remove(&holder);
        self.holders.is_empty()
    }
}

const _: () = assert!(SQLITE_SHM_NLOCK == 8, "a lock is a bit of a byte");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_waits_for_readers_and_lets_no_more_in() {
        let mut locks = Locks::default();
        assert!(locks.raise(1, Level::Shared) && locks.raise(2, Level::Shared));
        assert!(locks.raise(1, Level::Reserved) && locks.is_reserved());
        assert!(!locks.raise(2, Level::Reserved));
        assert!(!locks.raise(1, Level::Exclusive));
        assert!(!locks.raise(3, Level::Shared));
        locks.lower(2, Level::None);
        assert!(locks.raise(1, Level::Exclusive));
        locks.lower(1, Level::Shared);
        assert!(locks.raise(3, Level::Shared) && !locks.is_reserved());
    }

    #[test]
    fn an_exclusive_lock_of_the_memory_excludes() {
        let mut memory = SharedMemory::default();
        assert!(memory.region(1, 0, false).is_none());
        assert!(memory.region(1, 0, true).is_some() && memory.region(2, 0, false).is_some());
        assert!(memory.lock(1, 0b1000, false) && memory.lock(2, 0b1000, false));
        assert!(!memory.lock(1, 0b1000, true));
        memory.unlock(2, 0b1000);
        assert!(memory.lock(1, 0b1001, true) && !memory.lock(2, 1, false));
        assert!(!memory.leave(1) && memory.leave(2));
    }
}
