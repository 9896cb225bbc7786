//! Snapshots of a VM's volume: taking one while the VM runs, putting it in the volume's place, and making another VM's
//! volume of it.
//!
//! A snapshot's files are out of the reach of cells, in `snapshots/VM/NAME` of the state directory. Which snapshot a volume
//! is to be made from is in the registry, with another generation of the VM, before a file is touched: a vamosd that is
//! killed does it again before the VM has another cell ([`volume::Remaking`]).

mod shelf;
pub mod volume;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::spawn_blocking;
use vamos_proto::id::VmId;

use crate::migration::MigrationError;
use crate::names::SnapshotName;
use crate::platform::{Platform, PlatformError, VmView};
use crate::registry::{Restoration, SnapshotRow, VmRow, Volume};
use shelf::Shelf;

/// Why a snapshot is not taken, or not used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file of the volume or of the snapshot.
    #[error("{action} {}: {source}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its host could be another one tomorrow.
    #[error(
        "the volume of VM {0} is shared, and snapshots are one host's; take them of a volume of class local"
    )]
    Shared(VmId),
    /// The cell has put something else there.
    #[error("{} is no copy of a database", .0.display())]
    NoCopy(PathBuf),
}

fn failed(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> SnapshotError {
    move |source| SnapshotError::File { action, path: path.into(), source }
}

impl Platform {
    /// Copies a VM's databases as they are at one instant, while it runs.
    ///
    /// # Errors
    /// [`PlatformError`]; nothing of the attempt is left.
    pub async fn take_snapshot(&self, vm: &VmId, name: SnapshotName) -> Result<SnapshotRow, PlatformError> {
        let _one_at_a_time = self.snapshots().lock().await;
        let row = self.here_to_stay(vm).await?;
        let (wanted, asked) = (vm.clone(), name.clone());
        self.registry(move |registry| registry.may_take(&wanted, &asked)).await?;
        let names: Vec<_> =
            self.bindings(Some(vm.clone())).await?.into_iter().map(|binding| binding.service).collect();
        let (shelf, volume) = (self.shelf(vm, &name), self.volume_of(vm));
        let copied = self.running(vm).await?.snapshot().await;
        let taken = spawn_blocking(move || {
            let taken = copied.map_err(PlatformError::from).and_then(|()| Ok(shelf.take(&volume, &names)?));
            if taken.is_err() {
                shelf::leave_nothing(&volume, &names);
            }
            taken
        });
        taken.await.map_err(|_| PlatformError::Ending)??;
        let taken = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let row = SnapshotRow { vm: vm.clone(), name, generation: row.generation, taken };
        let noted = row.clone();
        self.registry(move |registry| registry.add_snapshot(&noted)).await?;
        Ok(row)
    }

    /// A VM's snapshots, oldest first.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn snapshots_of(&self, vm: &VmId) -> Result<Vec<SnapshotRow>, PlatformError> {
        self.row(vm).await?;
        let vm = vm.clone();
        self.registry(move |registry| registry.snapshots(&vm)).await
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn remove_snapshot(&self, vm: &VmId, name: SnapshotName) -> Result<(), PlatformError> {
        let _one_at_a_time = self.snapshots().lock().await;
        let shelf = self.shelf(vm, &name);
        let vm = vm.clone();
        self.registry(move |registry| registry.remove_snapshot(&vm, &name)).await?;
        spawn_blocking(move || shelf.clear()).await.map_err(|_| PlatformError::Ending)??;
        Ok(())
    }

    /// Puts a snapshot in the place of a VM's volume. The VM is another one from then on: sessions of before are
    /// refused. A front-end stays attached.
    ///
    /// # Errors
    /// [`PlatformError`]; a volume that cannot be made now is made when the cause is mended, and the VM says so.
    pub async fn restore_vm(
        self: &Arc<Self>,
        vm: &VmId,
        name: SnapshotName,
    ) -> Result<VmView, PlatformError> {
        let _one_at_a_time = self.snapshots().lock().await;
        self.here_to_stay(vm).await?;
        let running = self.running(vm).await?;
        let (asked, from) = (vm.clone(), Restoration { source: vm.clone(), snapshot: name });
        let row = self.registry(move |registry| registry.begin_restoration(&asked, &from)).await?;
        let bindings = self.bindings(Some(vm.clone())).await?;
        running.renew(self.recipe_of(&row, bindings).await?).await?;
        running.started().await;
        self.vm(vm.clone()).await
    }

    /// Makes another VM, with the bindings of the first, of a snapshot.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn clone_vm(
        self: &Arc<Self>,
        vm: &VmId,
        new: VmId,
        name: SnapshotName,
    ) -> Result<VmView, PlatformError> {
        let _one_at_a_time = self.snapshots().lock().await;
        self.here_to_stay(vm).await?;
        let volume = self.volume_of(&new);
        if volume.exists() {
            return Err(MigrationError::VolumeExists(volume).into());
        }
        let (clone, from) = (new.clone(), Restoration { source: vm.clone(), snapshot: name });
        self.registry(move |registry| registry.clone_vm(&clone, &from)).await?;
        self.serve(&new).await?;
        self.vm(new).await
    }

    /// A VM that is on this host and does not leave it.
    async fn here_to_stay(&self, vm: &VmId) -> Result<VmRow, PlatformError> {
        if self.is_leaving(vm).await {
            return Err(MigrationError::Leaving(vm.clone()).into());
        }
        self.running(vm).await?;
        let row = self.row(vm).await?;
        match row.volume {
            Volume::Local => Ok(row),
            _ => Err(SnapshotError::Shared(vm.clone()).into()),
        }
    }

    fn shelf(&self, vm: &VmId, name: &SnapshotName) -> Shelf {
        Shelf::new(self.directories().snapshots(vm.as_str()), name.as_str())
    }
}
