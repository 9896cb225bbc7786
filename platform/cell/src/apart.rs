//! Work that would hold up the device: on a thread of its own, which ends with it. What cannot be started for want of a
//! thread is told, as what fails is.

use std::thread;

use tokio::sync::oneshot;

use crate::limits::APART_STACK_BYTES;

/// Runs it and waits for what it comes to.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (done, outcome) = oneshot::channel();
    let thread = thread::Builder::new().name("cell-work".to_owned()).stack_size(APART_STACK_BYTES);
    // Whoever asked may have gone.
    let started = thread.spawn(move || drop(done.send(work())));
    started.map_err(|error| format!("start a thread: {error}"))?;
    outcome.await.unwrap_or_else(|_| Err("it panicked; the log says where".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn outcomes_and_panics_are_told() {
        assert_eq!(apart(|| Ok(7)).await, Ok(7));
        assert_eq!(apart(|| Err::<(), _>("no".to_owned())).await, Err("no".to_owned()));
        assert!(
            apart(|| -> Result<(), String> { panic!("on purpose") }).await.unwrap_err().contains("panicked")
        );
    }
}
