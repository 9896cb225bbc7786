//! What vamosd says to a service manager that started it, and what it gives it to keep: the control plane's listeners,
//! so that who connects while there is no vamosd is answered by the next one. sd_notify(3), sd_listen_fds(3).

use std::os::fd::AsFd;

use sd_notify::NotifyState;
use tracing::{debug, warn};
use vamos_sandbox::inherited::Inherited;

/// vamosd serves. Nothing happens when no service manager wants to know.
pub fn ready(listeners: &Inherited) {
    for (name, fd) in listeners.iter() {
        // What was kept under this name is this one, or of no use any more.
        let dropped = sd_notify::notify(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::FdName(name)]);
        let kept =
            sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &[fd.as_fd()]);
        if let Err(error) = dropped.and(kept) {
            warn!(name, %error, "the service manager does not keep a listener");
        }
    }
    told(&[NotifyState::Ready]);
}

/// Another program follows this one in its process.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => told(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "what time it is"),
    }
}

/// vamosd drains and ends.
pub fn stopping() {
    told(&[NotifyState::Stopping]);
}

fn told(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the service manager cannot be told");
    }
}
