//! The end of the agent, as a value that everyone holds.

use tokio::sync::watch;

/// Says when to stop; held by whoever has something to stop.
#[derive(Debug, Clone)]
pub struct Shutdown {
    begun: watch::Receiver<bool>,
}

/// Begins the shutdown; kept by the one who decides.
#[derive(Debug)]
pub struct Trigger {
    begun: watch::Sender<bool>,
}

/// A shutdown that has not begun.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger { begun: sender }, Shutdown { begun: receiver })
}

impl Trigger {
    /// Begins it. What holds a [`Shutdown`] ends soon.
    pub fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// Waits until nobody holds the [`Shutdown`] any more.
    pub async fn done(&self) {
        self.begun.closed().await;
    }
}

impl Shutdown {
    /// For those who look by themselves: becomes true when it begins.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.begun.clone()
    }

    /// Waits until it begins. A trigger that is gone is a shutdown too.
    pub async fn begun(&mut self) {
        // An error says that the trigger is gone.
        let _ = self.begun.wait_for(|begun| *begun).await;
    }
}
