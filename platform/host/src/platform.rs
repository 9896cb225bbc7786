//! Everything vamosd runs: the registry and the VMs, kept in step.
//!
//! A change is made in the registry first and in the running VM second. If the second fails, the registry holds:
//! the VM takes the change over with its next cell.

mod published;
mod recipe;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::sync;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vamos_proto::cell::Counters;
use vamos_proto::control::VmState;
use vamos_proto::id::{GuestCid, VmId};
use vamos_sandbox::cgroup::Hierarchy;

use crate::cell::adopt::{Adopted, adopt};
use crate::cell::spawn::Recipe;
use crate::config::Config;
use crate::directories::Directories;
use crate::edge::{Edge, EdgeError};
use crate::limits::{DRAIN_DEFAULT, EDGE_START_MAX, UPGRADE_WAIT_MAX};
use crate::migration::MigrationError;
use crate::migration::source::Departures;
use crate::names::{ServiceKind, ServiceName};
use crate::registry::{BindingRow, Custody, Registry, RegistryError, ServiceRow, Terms, VmRow, Volume};
use crate::snapshot::SnapshotError;
use crate::vm::tenancy::Tenancy;
use crate::vm::{Status, Vm, VmError};
use recipe::{edge_recipe, told};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The registry refuses or fails.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The running VM refuses or fails.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// A migration does not go on.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// A snapshot is not taken or used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The edge refuses or fails.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// A directory or socket.
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
    /// vamosd is ending.
    #[error("vamosd is shutting down")]
    Ending,
}

/// A VM as the registry and its supervisor know it.
#[derive(Debug, Clone)]
pub struct VmView {
    /// What was registered.
    pub row: VmRow,
    /// What it is doing.
    pub status: Status,
    /// Where a VMM connects.
    pub socket: PathBuf,
    /// Its directory.
    pub volume: PathBuf,
}

/// The platform of one host.
#[derive(Debug)]
pub struct Platform {
    config: Config,
    directories: Directories,
    cgroup: Option<(Hierarchy, String)>,
    registry: Arc<Mutex<Registry>>,
    vms: sync::Mutex<BTreeMap<VmId, Arc<Vm>>>,
    /// Serves HTTP to the world, if this host does.
    edge: Option<Edge>,
    /// Held while routes or certificates change.
    edge_changes: sync::Mutex<()>,
    departures: Departures,
    /// Held while a snapshot is taken, used or removed.
    snapshots: sync::Mutex<()>,
    ending: CancellationToken,
    upgrade: sync::Notify,
    since: Instant,
}

impl Platform {
    /// Collects the cells that an earlier vamosd has left behind, and starts one for every other VM of the
    /// registry.
    ///
    /// # Errors
    /// [`PlatformError`]: the registry cannot be read or a socket not be made. A cell that does not start is
    /// no error: its VM says so, and the others serve.
    pub async fn start(
        config: Config,
        directories: Directories,
        registry: Registry,
    ) -> Result<Arc<Self>, PlatformError> {
        let cgroup = match Hierarchy::find() {
            Ok(hierarchy) => {
                let file = |source| PlatformError::File {
                    action: "look up",
                    path: config.state_dir.clone(),
                    source,
                };
                let instance = directories.instance().map_err(file)?;
                Some((hierarchy, instance))
            }
            Err(reason) => {
                warn!(reason, "cells run without control groups");
                None
            }
        };
        let edge = match edge_recipe(&config, &directories, cgroup.as_ref()) {
            Some(recipe) => {
                let first = published::configure(registry.routes()?, registry.certificates()?);
                Some(Edge::start(recipe, first).await?)
            }
            None => None,
        };
        let platform = Arc::new(Self {
            edge,
            edge_changes: sync::Mutex::default(),
            config,
            directories,
            cgroup,
            registry: Arc::new(Mutex::new(registry)),
            vms: sync::Mutex::default(),
            departures: Departures::default(),
            snapshots: sync::Mutex::default(),
            ending: CancellationToken::new(),
            upgrade: sync::Notify::new(),
            since: Instant::now(),
        });
        let (rows, bindings) =
            platform.registry(|registry| Ok((registry.vms()?, registry.bindings(None)?))).await?;
        let (mut recipes, mut tenancies) = (Vec::new(), Vec::new());
        for row in rows.iter().filter(|row| matches!(row.custody, Custody::Here(_))) {
            let own = bindings.iter().filter(|binding| binding.vm == row.name).cloned().collect();
            recipes.push(platform.recipe_of(row, own).await?);
            tenancies.push(platform.tenancy(row)?);
        }
        let adopted = platform.collect(&recipes).await;
        let mut vms = platform.vms.lock().await;
        for ((recipe, tenancy), adopted) in recipes.into_iter().zip(tenancies).zip(adopted) {
            vms.insert(recipe.vm.clone(), Arc::new(platform.run((recipe, tenancy), adopted)?));
        }
        drop(vms);
        if let Some(edge) = &platform.edge {
            // One that does not start is tried again, and the VMs serve meanwhile.
            let _ = timeout(EDGE_START_MAX, edge.started()).await;
        }
        Ok(platform)
    }

    /// The cells that live; what is left of dead and unwanted ones is removed.
    async fn collect(&self, recipes: &[Recipe]) -> Vec<Option<Adopted>> {
        let each = recipes.iter().map(|recipe| async move {
            adopt(recipe).await.unwrap_or_else(|error| {
                warn!(vm = %recipe.vm, error = %chain(&error), "the cell of an earlier vamosd is not collected");
                None
            })
        });
        let adopted = futures::future::join_all(each).await;
        let living: Vec<&str> = recipes
            .iter()
            .zip(&adopted)
            .filter(|(_, adopted)| adopted.is_some())
            .map(|(recipe, _)| recipe.vm.as_str())
            // Not a VM's, but in use.
            .chain(self.edge.as_ref().map(|_| crate::edge::CGROUP))
            .collect();
        if let Some((hierarchy, instance)) = &self.cgroup {
            hierarchy.sweep(instance, &living);
        }
        for name in self.directories.vm_runs() {
            if !living.contains(&name.as_str()) {
                self.directories.remove_vm_run(&name);
            }
        }
        adopted
    }

    /// Waits until every VM's first cell has started or failed.
    pub async fn settled(&self) {
        let vms = self.vms.lock().await.clone();
        for (name, vm) in &vms {
            let status = vm.started().await;
            info!(vm = %name, state = ?status.state, "VM is up");
        }
    }

    /// The token that is cancelled when vamosd is to end.
    pub fn ending(&self) -> CancellationToken {
        self.ending.clone()
    }

    /// Asks for vamosd to be followed by the program that is now in its place.
    pub fn upgrade(&self) {
        self.upgrade.notify_one();
    }

    /// Waits until somebody has asked for that.
    pub async fn upgrade_wanted(&self) {
        self.upgrade.notified().await;
    }

    /// Waits until no VM is between two cells: a front-end that has none then would be lost with this vamosd.
    /// Whether that came to be within [`UPGRADE_WAIT_MAX`].
    pub async fn is_steady(&self) -> bool {
        let vms: Vec<_> = self.vms.lock().await.values().cloned().collect();
        let each = vms.iter().map(|vm| vm.steady());
        timeout(UPGRADE_WAIT_MAX, futures::future::join_all(each)).await.is_ok()
    }

    /// When this platform was started.
    pub fn since(&self) -> Instant {
        self.since
    }

    pub(crate) async fn registry<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Registry) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, PlatformError> {
        let registry = self.registry.clone();
        // A panic while the lock was held cannot leave the registry half changed: SQLite rolls back.
        let task = spawn_blocking(move || work(&mut registry.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(task.await.map_err(|_| PlatformError::Ending)??)
    }

    fn run(
        &self,
        (recipe, tenancy): (Recipe, Option<Tenancy>),
        adopted: Option<Adopted>,
    ) -> Result<Vm, PlatformError> {
        let needs = (tenancy, self.edge.as_ref().map(Edge::links));
        let name = recipe.vm.as_str();
        let file = |action, path: &PathBuf| {
            let path = path.clone();
            move |source| PlatformError::File { action, path, source }
        };
        let socket = self.directories.vm_socket(name).map_err(file("create", &self.config.run_dir))?;
        if let Some(adopted) = adopted {
            return Ok(Vm::go_on(recipe, needs, adopted, socket));
        }
        let listener = UnixListener::bind(&socket).map_err(file("bind", &socket))?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).map_err(file("protect", &socket))?;
        Ok(Vm::start(recipe, needs, listener, socket))
    }

    /// Creates a VM and starts its cell.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn create_vm(
        &self,
        name: VmId,
        cid: Option<GuestCid>,
        volume: Volume,
    ) -> Result<VmView, PlatformError> {
        let mut vms = self.vms.lock().await;
        if self.ending.is_cancelled() {
            return Err(PlatformError::Ending);
        }
        let create = move |registry: &mut Registry| {
            registry.atomically(|registry| {
                registry.create_vm(&name, cid, false)?;
                registry.place_volume(&name, &volume)?;
                registry.vm(&name)
            })
        };
        let row = self.registry(create).await?;
        let tenancy = self.tenancy(&row)?;
        let vm = match self.run((self.recipe(&row, Vec::new()), tenancy), None) {
            Ok(vm) => vm,
            Err(error) => {
                let name = row.name;
                self.registry(move |registry| registry.delete_vm(&name, false)).await?;
                return Err(error);
            }
        };
        let vm = Arc::new(vm);
        vms.insert(row.name.clone(), vm.clone());
        drop(vms);
        vm.started().await;
        Ok(self.view(row, &*self.vms.lock().await))
    }

    /// One VM.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn vm(&self, name: VmId) -> Result<VmView, PlatformError> {
        let row = self.registry(move |registry| registry.vm(&name)).await?;
        Ok(self.view(row, &*self.vms.lock().await))
    }

    /// Every VM.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn vms(&self) -> Result<Vec<VmView>, PlatformError> {
        let rows = self.registry(|registry| registry.vms()).await?;
        let vms = self.vms.lock().await;
        Ok(rows.into_iter().map(|row| self.view(row, &vms)).collect())
    }

    fn view(&self, row: VmRow, vms: &BTreeMap<VmId, Arc<Vm>>) -> VmView {
        let name = row.name.as_str();
        VmView {
            status: vms.get(&row.name).map_or_else(|| elsewhere(&row.custody), |vm| vm.status()),
            socket: self.config.run_dir.join("vms").join(name).join("vhost.sock"),
            volume: row.volume.path().cloned().unwrap_or_else(|| self.directories.volume(name)),
            row,
        }
    }

    /// Ends a VM and forgets it; with `purge` removes its volume.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn delete_vm(&self, name: VmId, purge: bool) -> Result<(), PlatformError> {
        let wanted = name.clone();
        self.registry(move |registry| registry.vm(&wanted)).await?;
        let running = self.vms.lock().await.remove(&name);
        if let Some(vm) = running {
            vm.stop(DRAIN_DEFAULT).await;
        }
        if let Some(edge) = &self.edge {
            edge.unlink(name.clone()).await;
        }
        self.directories.remove_vm_run(name.as_str());
        if purge {
            let all = [self.directories.volume(name.as_str()), self.directories.snapshots(name.as_str())];
            for path in all {
                match fs::remove_dir_all(&path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(PlatformError::File { action: "remove", path, source });
                    }
                    _ => {}
                }
            }
        }
        self.registry(move |registry| registry.delete_vm(&name, purge)).await
    }

    /// The counters of a VM's device.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn stats(&self, name: &VmId) -> Result<Counters, PlatformError> {
        Ok(self.running(name).await?.stats().await?)
    }

    pub(crate) async fn running(&self, name: &VmId) -> Result<Arc<Vm>, PlatformError> {
        let vm = self.vms.lock().await.get(name).cloned();
        match vm {
            Some(vm) => Ok(vm),
            None => Err(self.not_here(&self.row(name).await?)),
        }
    }

    /// Why a VM that is registered is not served.
    pub(crate) fn not_here(&self, vm: &VmRow) -> PlatformError {
        RegistryError::Elsewhere { vm: vm.name.clone(), now: vm.custody.clone() }.into()
    }

    /// A VM as registered.
    pub(crate) async fn row(&self, name: &VmId) -> Result<VmRow, PlatformError> {
        let name = name.clone();
        self.registry(move |registry| registry.vm(&name)).await
    }

    /// Writes down where a VM is.
    pub(crate) async fn keep_custody(&self, name: &VmId, custody: Custody) -> Result<(), PlatformError> {
        let name = name.clone();
        self.registry(move |registry| registry.keep_custody(&name, &custody)).await
    }

    /// One snapshot at a time.
    pub(crate) fn snapshots(&self) -> &sync::Mutex<()> {
        &self.snapshots
    }

    /// VMs that leave.
    pub(crate) fn departures(&self) -> &Departures {
        &self.departures
    }

    /// Where everything is.
    pub(crate) fn directories(&self) -> &Directories {
        &self.directories
    }

    /// A VM's directory.
    pub(crate) fn volume_of(&self, name: &VmId) -> PathBuf {
        self.directories.volume(name.as_str())
    }

    /// Starts a cell for a VM that is on this host, unless it has one.
    pub(crate) async fn serve(&self, name: &VmId) -> Result<(), PlatformError> {
        let (row, bindings) = (self.row(name).await?, self.bindings(Some(name.clone())).await?);
        let recipe = self.recipe_of(&row, bindings).await?;
        let mut vms = self.vms.lock().await;
        if self.ending.is_cancelled() {
            return Err(PlatformError::Ending);
        }
        if vms.contains_key(name) {
            return Ok(());
        }
        let vm = Arc::new(self.run((recipe, self.tenancy(&row)?), None)?);
        vms.insert(name.clone(), vm.clone());
        drop(vms);
        vm.started().await;
        Ok(())
    }

    /// Ends a VM's cell at once; whether the volume was held until then.
    pub(crate) async fn stop_serving(&self, name: &VmId) -> Result<bool, PlatformError> {
        let running = self.vms.lock().await.remove(name);
        let held = match running {
            Some(vm) => match vm.depart().await {
                Ok(held) => held,
                Err(error) => {
                    // It may have a cell still: whoever tries again finds it.
                    self.vms.lock().await.insert(name.clone(), vm);
                    return Err(error.into());
                }
            },
            None => false,
        };
        self.directories.remove_vm_run(name.as_str());
        Ok(held)
    }

    /// Replaces a VM's cell, giving open streams `drain` to finish, or none.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn replace_cell(&self, name: &VmId, drain: Option<Duration>) -> Result<(), PlatformError> {
        Ok(self.running(name).await?.replace_cell(drain).await?)
    }

    /// Replaces a VM's cell at once, and waits until the next one serves.
    ///
    /// # Errors
    /// [`PlatformError`]; a cell that does not start is none: its VM says so.
    pub async fn renew_cell(&self, name: &VmId) -> Result<(), PlatformError> {
        let vm = self.running(name).await?;
        vm.replace_cell(None).await?;
        vm.started().await;
        Ok(())
    }

    /// Registers a service.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn register_service(
        &self,
        name: ServiceName,
        kind: ServiceKind,
    ) -> Result<ServiceRow, PlatformError> {
        self.registry(move |registry| registry.register_service(&name, kind, false)).await
    }

    /// Every service.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn services(&self) -> Result<Vec<ServiceRow>, PlatformError> {
        self.registry(|registry| registry.services()).await
    }

    /// Removes a service nobody is bound to.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn remove_service(&self, name: ServiceName) -> Result<(), PlatformError> {
        self.registry(move |registry| registry.remove_service(&name)).await
    }

    /// Binds a service to a VM, or changes the terms, while it runs.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn bind(
        &self,
        vm: VmId,
        service: ServiceName,
        terms: Terms,
    ) -> Result<BindingRow, PlatformError> {
        self.may_change(&vm).await?;
        let name = vm.clone();
        let row = self.registry(move |registry| registry.bind(&vm, &service, &terms, false)).await?;
        self.running(&name).await?.bind(told(row.clone())).await?;
        Ok(row)
    }

    /// Ends a binding; its data stays in the volume.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn unbind(&self, vm: VmId, service: ServiceName) -> Result<(), PlatformError> {
        self.may_change(&vm).await?;
        let (name, told) = (vm.clone(), service.to_string());
        self.registry(move |registry| registry.unbind(&vm, &service)).await?;
        Ok(self.running(&name).await?.unbind(told).await?)
    }

    /// Whether a VM is here to stay.
    async fn may_change(&self, vm: &VmId) -> Result<(), PlatformError> {
        if self.is_leaving(vm).await {
            return Err(MigrationError::Leaving(vm.clone()).into());
        }
        self.running(vm).await.map(drop)
    }

    /// Every binding, or those of one VM.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn bindings(&self, vm: Option<VmId>) -> Result<Vec<BindingRow>, PlatformError> {
        self.registry(move |registry| {
            vm.as_ref().map(|vm| registry.vm(vm)).transpose()?;
            registry.bindings(vm.as_ref())
        })
        .await
    }

    /// Drains and ends every cell, and removes what is in the run directory.
    pub async fn stop(&self, drain: Duration) {
        self.ending.cancel();
        // Its clients first: they are answered by the VMs.
        if let Some(edge) = &self.edge {
            edge.stop(drain).await;
        }
        let mut stopping = JoinSet::new();
        for (name, vm) in std::mem::take(&mut *self.vms.lock().await) {
            self.directories.remove_vm_run(name.as_str());
            stopping.spawn(async move { vm.stop(drain).await });
        }
        stopping.join_all().await;
        if let Some((hierarchy, instance)) = &self.cgroup {
            hierarchy.sweep(instance, &[]);
        }
    }
}

/// What there is to say of a VM that has no cell.
fn elsewhere(custody: &Custody) -> Status {
    let state = match custody {
        Custody::Here(_) => return Status::default(),
        Custody::Arriving { .. } => VmState::Arriving,
        Custody::Away { .. } => VmState::Away,
    };
    Status { state, detail: custody.to_string(), ..Status::default() }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
