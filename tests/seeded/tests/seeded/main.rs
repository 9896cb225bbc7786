//! The harness proves itself: real clients over real rings against real cells, which are killed, cut off and made to
//! fail at named points. Bugs are planted in them; each must be found, and nothing may be found without one.
//!
//! Run as root, because that is who starts cells.

mod bank;
mod bugs;
mod impostor;
mod line;
mod loss;
mod points;
mod random;
mod resumed;
mod stage;

use tokio::sync::{Mutex, MutexGuard};

/// Bugs are planted in the process, and cells share its CPUs: one test at a time.
pub async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// What is wrong, in one line.
pub type Finding = String;
