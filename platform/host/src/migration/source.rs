//! The side that a VM leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_blocking;
use tracing::{info, warn};
use vamos_proto::id::VmId;

use super::departure::{Copied, Piece};
use super::{MigrationError, failed};
use crate::limits::MIGRATION_PIECES_MAX;
use crate::platform::{Platform, PlatformError};
use crate::registry::{BindingRow, Custody, Token, VmRow, Volume};

/// VMs that leave and are still here, by name; not durable: with this vamosd such a migration ends.
pub(crate) type Departures = Mutex<BTreeMap<VmId, Departure>>;

/// One VM that leaves.
#[derive(Debug)]
pub(crate) struct Departure {
    token: Token,
    to: String,
    /// What has been copied while the VM runs.
    copied: Option<Copied>,
}

/// What another host must know of a VM.
#[derive(Debug, Clone)]
pub struct Departing {
    /// The migration.
    pub token: Token,
    /// The VM.
    pub vm: VmRow,
    /// What it may use.
    pub bindings: Vec<BindingRow>,
}

/// The pieces of a volume as they are read, or why no more come.
pub type Pieces = mpsc::Receiver<Result<Piece, PlatformError>>;

impl Platform {
    /// Begins a migration to `to`, or takes up one that froze the VM and was interrupted.
    ///
    /// # Errors
    /// [`PlatformError`]; among them a VM that has no cell.
    pub async fn leave(&self, name: &VmId, to: String) -> Result<Departing, PlatformError> {
        // What is told of the VM is what it is: a restore would make it another one.
        let _no_restore = self.snapshots().lock().await;
        let vm = self.row(name).await?;
        let bindings = self.bindings(Some(name.clone())).await?;
        let token = match &vm.custody {
            Custody::Away { token, .. } => *token,
            Custody::Arriving { .. } => return Err(self.not_here(&vm)),
            Custody::Here(_) => {
                let mut departures = self.departures().lock().await;
                let token = self.registry(|registry| registry.mint()).await?;
                if ships(&vm) {
                    self.running(name).await?.hold().await?;
                }
                departures.insert(name.clone(), Departure { token, to, copied: None });
                token
            }
        };
        Ok(Departing { token, vm, bindings })
    }

    /// Whether the VM is leaving and still here.
    pub(crate) async fn is_leaving(&self, name: &VmId) -> bool {
        self.departures().lock().await.contains_key(name)
    }

    /// The volume, while it is written to. The last piece is followed by the end of the channel, an error by it too.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn export(self: &Arc<Self>, name: &VmId, token: Token) -> Result<Pieces, PlatformError> {
        let vm = self.row(name).await?;
        match vm.custody {
            // Frozen by an interrupted attempt: everything comes with `freeze`.
            Custody::Away { token: known, .. } if known == token => return Ok(mpsc::channel(1).1),
            Custody::Here(_) => {}
            _ => return Err(self.not_here(&vm)),
        }
        self.leaving(name, token).await?;
        if !ships(&vm) {
            return Ok(mpsc::channel(1).1);
        }
        let (volume, platform, name) = (self.volume_of(name), self.clone(), name.clone());
        Ok(reading(move |sink| {
            let copied = Copied::online(&volume, sink)?;
            let mut departures = platform.departures().blocking_lock();
            if let Some(departure) = departures.get_mut(&name).filter(|departure| departure.token == token) {
                departure.copied = copied;
            }
            Ok(())
        }))
    }

    /// Ends the VM's cell for good, and gives the rest of the volume; all of it, if an earlier attempt has frozen it.
    ///
    /// # Errors
    /// [`PlatformError`]; [`MigrationError::Replaced`] when the copy is void, and the VM goes on here.
    pub async fn freeze(self: &Arc<Self>, name: &VmId, token: Token) -> Result<Pieces, PlatformError> {
        let vm = self.row(name).await?;
        let (volume, ships) = (self.volume_of(name), ships(&vm));
        match vm.custody {
            Custody::Here(_) => {}
            Custody::Away { token: known, .. } if known == token => {
                self.stop_serving(name).await?;
                if !ships {
                    return Ok(mpsc::channel(1).1);
                }
                return Ok(reading(move |sink| {
                    let Some(mut copied) = Copied::online(&volume, sink)? else { return Ok(()) };
                    copied.rest(sink).map(drop)
                }));
            }
            _ => return Err(self.not_here(&vm)),
        }
        let departure = {
            let mut departures = self.departures().lock().await;
            match departures.get(name) {
                Some(departure) if departure.token == token => departures.remove(name),
                _ => None,
            }
        };
        let other = || MigrationError::OtherToken(name.clone());
        let Departure { to, copied, .. } = departure.ok_or_else(other)?;
        // Before anything else: a vamosd that is killed now does not serve the VM again by itself.
        self.keep_custody(name, Custody::Away { token, to }).await?;
        let held = self.stop_serving(name).await?;
        if !ships {
            info!(vm = %name, "frozen: its cell has ended, and its volume is given back");
            return Ok(mpsc::channel(1).1);
        }
        let Some(mut copied) = copied.filter(|_| held) else {
            warn!(vm = %name, "the copy of the volume is void: its cell was replaced meanwhile");
            self.keep_custody(name, Custody::Here(None)).await?;
            self.serve(name).await?;
            return Err(MigrationError::Replaced(name.clone()).into());
        };
        info!(vm = %name, "frozen: it is served nowhere now");
        Ok(reading(move |sink| copied.rest(sink).map(drop)))
    }

    /// Serves the VM here again.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn stay(&self, name: &VmId, token: Token) -> Result<(), PlatformError> {
        let vm = self.row(name).await?;
        match vm.custody {
            Custody::Away { token: known, .. } if known == token => {
                self.keep_custody(name, Custody::Here(None)).await?;
                self.serve(name).await
            }
            Custody::Here(_) => {
                let mut departures = self.departures().lock().await;
                if departures.get(name).is_some_and(|departure| departure.token == token) {
                    departures.remove(name);
                    self.running(name).await?.release().await?;
                }
                Ok(())
            }
            _ => Err(MigrationError::OtherToken(name.clone()).into()),
        }
    }

    /// Forgets a VM that the target has, and removes its volume. One that `vamos.toml` names stays known as away.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn forget(&self, name: &VmId, token: Token) -> Result<(), PlatformError> {
        let vm = match self.row(name).await {
            // Forgotten by an attempt whose answer was lost.
            Err(PlatformError::Registry(crate::registry::RegistryError::Unknown { .. })) => return Ok(()),
            vm => vm?,
        };
        match vm.custody {
            Custody::Away { token: known, .. } if known == token => {}
            _ => return Err(MigrationError::OtherToken(name.clone()).into()),
        }
        let volume = self.volume_of(name);
        match std::fs::remove_dir_all(&volume) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("remove", volume)(error).into());
            }
            _ => {}
        }
        if !vm.declared {
            // They were this host's.
            let snapshots = self.directories().snapshots(name.as_str());
            match std::fs::remove_dir_all(&snapshots) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed("remove", snapshots)(error).into());
                }
                _ => {}
            }
            let name = name.clone();
            self.registry(move |registry| registry.delete_vm(&name, true)).await?;
        }
        Ok(())
    }

    async fn leaving(&self, name: &VmId, token: Token) -> Result<(), PlatformError> {
        match self.departures().lock().await.get(name) {
            Some(departure) if departure.token == token => Ok(()),
            _ => Err(MigrationError::OtherToken(name.clone()).into()),
        }
    }
}

/// Whether the volume goes along: one that is shared is there already, and given back when the cell has ended.
fn ships(vm: &VmRow) -> bool {
    vm.volume == Volume::Local
}

/// Reads on a thread that may block, as fast as the pieces are taken.
fn reading(
    work: impl FnOnce(&mut dyn FnMut(Piece) -> bool) -> Result<(), MigrationError> + Send + 'static,
) -> Pieces {
    let (sender, pieces) = mpsc::channel(MIGRATION_PIECES_MAX);
    spawn_blocking(move || {
        let mut sink = |piece| sender.blocking_send(Ok(piece)).is_ok();
        if let Err(error) = work(&mut sink) {
            // Whoever read may have gone.
            let _ = sender.blocking_send(Err(error.into()));
        }
    });
    pieces
}
