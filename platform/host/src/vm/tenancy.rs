//! A VM's right to its volume, where that is shared: asked for before there is a cell, renewed while there is one, given
//! back when there is none any more.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use vamos_proto::id::VmId;

use crate::cell::spawn::StartError;
use crate::lease::{Claim, Lease, LeaseError, Renewal, Terms, since_boot, volume};
use crate::limits::LEASE_TURNS;

/// The right to one shared volume.
#[derive(Debug)]
pub struct Tenancy {
    vm: VmId,
    volume: PathBuf,
    uid: u32,
    lease: Arc<Mutex<Lease>>,
    terms: Terms,
    /// Until when the volume is held, by the clock of leases.
    until: Option<Duration>,
    due: Instant,
    renewing: Option<JoinHandle<Renewed>>,
}

/// When a renewal was asked for, and what it came to.
type Renewed = (Duration, Result<Renewal, LeaseError>);

async fn renew(lease: Arc<Mutex<Lease>>) -> Renewed {
    let mut lease = lease.lock().await;
    // It is valid from before the question.
    let asked = since_boot();
    (asked, lease.renew().await)
}

impl Tenancy {
    /// The right of `vm`, whose cell is `uid`, to `volume`.
    pub(crate) fn new(vm: VmId, volume: PathBuf, uid: u32, lease: Lease, terms: Terms) -> Self {
        let lease = Arc::new(Mutex::new(lease));
        Self { vm, volume, uid, lease, terms, until: None, due: Instant::now(), renewing: None }
    }

    /// Between one attempt, or renewal, and the next.
    pub(super) fn pause(&self) -> Duration {
        self.terms.ttl / LEASE_TURNS
    }

    /// Until when the cell may write.
    pub(super) fn until(&self) -> Option<Duration> {
        self.until
    }

    /// Asks for the volume, once; the directory in which a cell may work.
    ///
    /// # Errors
    /// [`StartError::Waiting`] while it is another host's.
    pub(super) async fn claim(&mut self) -> Result<PathBuf, StartError> {
        self.until = None;
        let unknown = |error: LeaseError| StartError::Waiting(error.to_string());
        let shown = self.volume.display();
        let (epoch, after_release) = match self.lease.lock().await.claim().await.map_err(unknown)? {
            Claim::Ours { epoch, after_release } => (epoch, after_release),
            Claim::Others { epoch, holder } => {
                let by = holder
                    .map_or_else(|| "a host that did not say who it is".to_owned(), |by| by.to_string());
                return Err(StartError::Waiting(format!(
                    "volume {shown} is held by {by}, lease epoch {epoch}; it is taken over when that host ends the VM or \
                     does not renew its lease"
                )));
            }
        };
        // Valid before anything is touched, and again after what may take long.
        self.renew_now().await?;
        let (path, uid) = (self.volume.clone(), self.uid);
        let taken = spawn_blocking(move || {
            let place = volume::take_over(&path, epoch, after_release, uid)?;
            volume::forget_old(&path, epoch);
            Ok(place)
        });
        let place = taken.await.map_err(|gone| StartError::Ended(gone.to_string()))?.map_err(unknown)?;
        self.renew_now().await?;
        self.lease.lock().await.forget_old().await;
        info!(vm = %self.vm, volume = %self.volume.display(), epoch, after_release, "holds the volume");
        Ok(place)
    }

    async fn renew_now(&mut self) -> Result<(), StartError> {
        let (asked, outcome) = renew(Arc::clone(&self.lease)).await;
        match outcome.map_err(|error| StartError::Waiting(error.to_string()))? {
            Renewal::Valid => self.until = Some(asked + self.terms.ttl),
            Renewal::Lost => return Err(StartError::Waiting("the volume's lease was lost at once".into())),
        }
        self.due = Instant::now() + self.pause();
        Ok(())
    }

    /// Renews the lease when it is time, and says until when it holds, or that it is lost. Safe to drop and call again.
    pub(super) async fn renewed(&mut self) -> Renewal {
        loop {
            if self.renewing.is_none() {
                sleep_until(self.due).await;
                self.renewing = Some(tokio::spawn(renew(Arc::clone(&self.lease))));
            }
            let Some(renewing) = &mut self.renewing else { continue };
            let outcome = renewing.await;
            self.renewing = None;
            self.due = Instant::now() + self.pause();
            match outcome {
                Ok((asked, Ok(renewal))) => {
                    self.until = (renewal == Renewal::Valid).then_some(asked + self.terms.ttl);
                    return renewal;
                }
                Ok((_, Err(error))) => {
                    warn!(vm = %self.vm, %error, "the volume's lease is not renewed; the cell waits when it lapses")
                }
                Err(gone) => warn!(vm = %self.vm, error = %gone, "the volume's lease is not renewed"),
            }
        }
    }

    /// Gives the volume back: there is no cell.
    pub(super) async fn release(&mut self) {
        if let Some(renewing) = self.renewing.take() {
            let _ = renewing.await;
        }
        self.until = None;
        if let Err(error) = self.lease.lock().await.release().await {
            warn!(vm = %self.vm, %error, "the volume is not given back: other hosts wait until the lease lapses");
        }
    }
}
