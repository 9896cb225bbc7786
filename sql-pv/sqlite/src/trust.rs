//! Whether what this process has done may still be relied on. Once not, the process is given up, and nobody is told of
//! anything before that has been done: where it ends the process, the next one has the answers.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const SOUND: u8 = 0;
const BEING_LOST: u8 = 1;
const LOST: u8 = 2;

/// From one look to the next at whether the process is still there: it mostly is not.
const LOOK: Duration = Duration::from_millis(1);

/// Starts as sound.
#[derive(Debug, Default)]
pub(crate) struct Trust(AtomicU8);

impl Trust {
    /// Nothing is to be acknowledged any more. The first to say so gives the process up; the others wait for that.
    pub(crate) fn lose(&self, give_up: impl FnOnce()) {
        if self.0.compare_exchange(SOUND, BEING_LOST, SeqCst, SeqCst).is_ok() {
            give_up();
            self.0.store(LOST, SeqCst);
        } else {
            self.is_lost();
        }
    }

    /// Whether nothing may be acknowledged any more. Does not return while the process is being given up.
    pub(crate) fn is_lost(&self) -> bool {
        loop {
            match self.0.load(SeqCst) {
                SOUND => return false,
                LOST => return true,
                _ => thread::sleep(LOOK),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn nobody_learns_of_it_while_the_process_is_being_given_up() {
        let trust = Trust::default();
        assert!(!trust.is_lost());
        let (begun, begins) = channel();
        let (end, ends) = channel();
        let (learnt, learns) = channel();
        thread::scope(|scope| {
            let trust = &trust;
            scope.spawn(move || {
                trust.lose(|| {
                    begun.send(()).unwrap();
                    ends.recv().unwrap();
                });
            });
            begins.recv().unwrap();
            scope.spawn(move || learnt.send(trust.is_lost()).unwrap());
            assert!(learns.recv_timeout(Duration::from_millis(50)).is_err());
            end.send(()).unwrap();
            assert!(learns.recv().unwrap());
        });
        trust.lose(|| panic!("given up twice"));
    }
}
