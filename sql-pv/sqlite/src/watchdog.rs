//! For statements that nothing interrupts: SQLite looks at its progress handler between virtual machine
//! instructions, and one function call is one instruction. A thread watches over deadlines while there
//! are statements, and gives the process up when one is ignored. Without statements it sleeps.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::GiveUp;
use crate::guard::Guard;

/// Watches over the connections of an engine.
pub(crate) struct Watchdog {
    watched: Mutex<Vec<Weak<Guard>>>,
    /// The thread is looking; otherwise it sleeps until it is woken.
    awake: AtomicBool,
    wake: Condvar,
    asleep: Mutex<bool>,
    closed: AtomicBool,
    grace: Duration,
    give_up: GiveUp,
}

impl Watchdog {
    /// Starts the thread, asleep.
    pub(crate) fn start(grace: Duration, give_up: GiveUp) -> std::io::Result<Arc<Self>> {
        let watchdog = Arc::new(Self {
            watched: Mutex::default(),
            awake: AtomicBool::new(false),
            wake: Condvar::new(),
            asleep: Mutex::new(true),
            closed: AtomicBool::new(false),
            grace,
            give_up,
        });
        let own = watchdog.clone();
        thread::Builder::new()
            .name("sqlite-watchdog".to_owned())
            .stack_size(64 << 10)
            .spawn(move || own.watch())?;
        Ok(watchdog)
    }

    /// Watches over a connection from now on.
    pub(crate) fn add(&self, guard: &Arc<Guard>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|guard| guard.strong_count() > 0);
        watched.push(Arc::downgrade(guard));
    }

    /// Makes sure that somebody is looking; to be called whenever a statement begins.
    pub(crate) fn look_out(&self) {
        if !self.awake.swap(true, SeqCst) {
            self.rouse();
        }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, SeqCst);
        self.rouse();
    }

    fn rouse(&self) {
        *self.asleep.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.wake.notify_all();
    }

    fn watch(&self) {
        let every = (self.grace / 4).clamp(Duration::from_millis(10), Duration::from_millis(500));
        while !self.closed.load(SeqCst) {
            self.awake.store(false, SeqCst);
            if !self.is_busy() && !self.awake.load(SeqCst) {
                let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
                while *asleep {
                    asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
                }
                *asleep = true;
                continue;
            }
            self.awake.store(true, SeqCst);
            thread::sleep(every);
            if self.is_ignored() {
                self.give_up.call("a statement ignores its interruption");
                // Whoever configured an action that returns is asked once, not for ever.
                return;
            }
        }
    }

    fn guards(&self) -> Vec<Arc<Guard>> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.iter().filter_map(Weak::upgrade).collect()
    }

    /// A paused statement counts: nobody rouses this thread when it goes on.
    fn is_busy(&self) -> bool {
        self.guards().iter().any(|guard| guard.is_busy())
    }

    fn is_ignored(&self) -> bool {
        let now = Instant::now();
        let mut running = self.guards().into_iter().filter_map(|guard| guard.ticket());
        running.any(|ticket| now >= ticket.deadline() + self.grace)
    }
}
