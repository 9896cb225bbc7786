//! Who may interrupt whom: the keys of the open connections.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vamos_sql_client::CancelHandle;

/// Bytes of a key, as protocol 3.0 has it.
const KEY_BYTES: usize = 4;

/// The open connections of one door, by the process id each was told.
#[derive(Default)]
pub struct Cancels {
    last_pid: AtomicI32,
    open: Mutex<HashMap<i32, ([u8; KEY_BYTES], CancelHandle)>>,
}

/// One connection's entry; it is gone with it.
pub struct Registration {
    cancels: Arc<Cancels>,
    /// The process id the client is told.
    pub pid: i32,
    /// The key the client is told.
    pub key: i32,
}

impl Cancels {
    /// A process id for a new connection.
    pub fn pid(&self) -> i32 {
        // Wraps after two billion connections; a process id is never negative or zero.
        self.last_pid.fetch_add(1, Ordering::Relaxed).rem_euclid(i32::MAX) + 1
    }

    /// Registers a connection under a fresh random key.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn register(self: &Arc<Self>, pid: i32, handle: CancelHandle) -> std::io::Result<Registration> {
        let mut key = [0; KEY_BYTES];
        let mut filled = 0;
        while filled < key.len() {
            filled += rustix::rand::getrandom(&mut key[filled..], rustix::rand::GetRandomFlags::empty())?;
        }
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(pid, (key, handle));
        Ok(Registration { cancels: Arc::clone(self), pid, key: i32::from_be_bytes(key) })
    }

    /// Interrupts what that connection has under way, if the key is the right one; says nothing either
    /// way, and takes as long for a wrong key as for a right one.
    pub fn cancel(&self, pid: i32, key: &[u8]) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let none = [0; KEY_BYTES];
        let known = open.get(&pid);
        let expected = known.map_or(&none, |(key, _)| key);
        let matches = equal(expected, key);
        if let (Some((_, handle)), true) = (known, matches) {
            handle.cancel();
        }
    }
}

/// Compares every byte, whatever the first ones say.
fn equal(expected: &[u8; KEY_BYTES], given: &[u8]) -> bool {
    let length = usize::from(given.len() != KEY_BYTES) as u8;
    let difference = expected.iter().enumerate().fold(length, |difference, (at, byte)| {
        black_box(difference | (byte ^ given.get(at).copied().unwrap_or(0)))
    });
    black_box(difference) == 0
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.cancels.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_key_is_equal() {
        assert!(equal(&[1, 2, 3, 4], &[1, 2, 3, 4]));
        for wrong in [&[1, 2, 3][..], &[1, 2, 3, 4, 0], &[0, 2, 3, 4], &[1, 2, 3, 5], &[]] {
            assert!(!equal(&[1, 2, 3, 4], wrong), "{wrong:?}");
        }
    }
}
