//! Everything vamosd runs: the registry and the VMs, kept in step.
//!
//! A change is made in the registry first and in the running VM second. If the second fails, the registry holds:
//! the VM takes the change over with its next cell.

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
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vamos_proto::cell::{Binding, Counters, Limits, Start};
use vamos_proto::id::{GuestCid, VmId};
use vamos_sandbox::Enforcement;
use vamos_sandbox::cgroup::{CgroupLimits, Hierarchy};

use crate::cell::spawn::Recipe;
use crate::config::Config;
use crate::directories::Directories;
use crate::limits::DRAIN_DEFAULT;
use crate::names::{ServiceKind, ServiceName};
use crate::registry::{BindingRow, Registry, RegistryError, ServiceRow, Terms, VmRow};
use crate::vm::{Status, Vm, VmError};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The registry refuses or fails.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The running VM refuses or fails.
    #[error(transparent)]
    Vm(#[from] VmError),
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
    ending: CancellationToken,
    since: Instant,
}

impl Platform {
    /// Starts a cell for every VM of the registry.
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
                hierarchy.sweep(&instance);
                Some((hierarchy, instance))
            }
            Err(reason) => {
                warn!(reason, "cells run without control groups");
                None
            }
        };
        let platform = Arc::new(Self {
            config,
            directories,
            cgroup,
            registry: Arc::new(Mutex::new(registry)),
            vms: sync::Mutex::default(),
            ending: CancellationToken::new(),
            since: Instant::now(),
        });
        let (rows, bindings) =
            platform.registry(|registry| Ok((registry.vms()?, registry.bindings(None)?))).await?;
        let mut vms = platform.vms.lock().await;
        for row in rows {
            let own = bindings.iter().filter(|binding| binding.vm == row.name).cloned().collect();
            vms.insert(row.name.clone(), Arc::new(platform.run(&row, own)?));
        }
        drop(vms);
        Ok(platform)
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

    /// When this platform was started.
    pub fn since(&self) -> Instant {
        self.since
    }

    async fn registry<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Registry) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, PlatformError> {
        let registry = self.registry.clone();
        // A panic while the lock was held cannot leave the registry half changed: SQLite rolls back.
        let task = spawn_blocking(move || work(&mut registry.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(task.await.map_err(|_| PlatformError::Ending)??)
    }

    fn run(&self, row: &VmRow, bindings: Vec<BindingRow>) -> Result<Vm, PlatformError> {
        let name = row.name.as_str();
        let file = |action, path: &PathBuf| {
            let path = path.clone();
            move |source| PlatformError::File { action, path, source }
        };
        let socket = self.directories.vm_socket(name).map_err(file("create", &self.config.run_dir))?;
        let listener = UnixListener::bind(&socket).map_err(file("bind", &socket))?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).map_err(file("protect", &socket))?;
        Ok(Vm::start(self.recipe(row, bindings), listener, socket))
    }

    fn recipe(&self, row: &VmRow, bindings: Vec<BindingRow>) -> Recipe {
        let cells = &self.config.cells;
        let limits =
            Limits { open_files: cells.open_files, threads: cells.threads, file_bytes: cells.file_bytes };
        let volume = self.directories.volume(row.name.as_str());
        Recipe {
            binary: self.config.cell_binary.clone(),
            vm: row.name.clone(),
            cgroup_limits: CgroupLimits {
                memory_bytes: cells.memory_bytes,
                // The first process, which forks and ends, is counted too.
                tasks: cells.threads + 1,
                cpu_weight: cells.cpu_weight,
            },
            cgroup: self.cgroup.clone(),
            limits,
            start: Start {
                vm: row.name.to_string(),
                volume: volume.display().to_string(),
                generation: row.generation,
                session_secret: row.secret.0.to_vec(),
                cid: row.cid.0,
                uid: row.uid,
                gid: row.uid,
                best_effort: self.config.enforcement == Enforcement::BestEffort,
                limits: Some(limits),
                bindings: bindings.into_iter().map(told).collect(),
                polling_us: cells.polling_us,
            },
            volume,
        }
    }

    /// Creates a VM and starts its cell.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn create_vm(&self, name: VmId, cid: Option<GuestCid>) -> Result<VmView, PlatformError> {
        let mut vms = self.vms.lock().await;
        if self.ending.is_cancelled() {
            return Err(PlatformError::Ending);
        }
        let row = self.registry(move |registry| registry.create_vm(&name, cid, false)).await?;
        let vm = match self.run(&row, Vec::new()) {
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
            status: vms.get(&row.name).map(|vm| vm.status()).unwrap_or_default(),
            socket: self.config.run_dir.join("vms").join(name).join("vhost.sock"),
            volume: self.directories.volume(name),
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
        self.directories.remove_vm_run(name.as_str());
        if purge {
            let path = self.directories.volume(name.as_str());
            match fs::remove_dir_all(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(PlatformError::File { action: "remove", path, source });
                }
                _ => {}
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

    async fn running(&self, name: &VmId) -> Result<Arc<Vm>, PlatformError> {
        let vm = self.vms.lock().await.get(name).cloned();
        vm.ok_or_else(|| RegistryError::Unknown { kind: "VM", name: name.to_string() }.into())
    }

    /// Replaces a VM's cell, giving open streams `drain` to finish, or none.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn replace_cell(&self, name: &VmId, drain: Option<Duration>) -> Result<(), PlatformError> {
        Ok(self.running(name).await?.replace_cell(drain).await?)
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
        let (name, told) = (vm.clone(), service.to_string());
        self.registry(move |registry| registry.unbind(&vm, &service)).await?;
        Ok(self.running(&name).await?.unbind(told).await?)
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
        let mut stopping = JoinSet::new();
        for (name, vm) in std::mem::take(&mut *self.vms.lock().await) {
            self.directories.remove_vm_run(name.as_str());
            stopping.spawn(async move { vm.stop(drain).await });
        }
        stopping.join_all().await;
        if let Some((hierarchy, instance)) = &self.cgroup {
            hierarchy.sweep(instance);
        }
    }
}

/// A binding as its cell is told of it.
fn told(row: BindingRow) -> Binding {
    Binding {
        name: row.service.to_string(),
        kind: row.kind.as_str().into(),
        port: row.port.0,
        door: row.door.into_iter().collect(),
        policy: Some(row.policy),
        quota: Some(row.quota),
    }
}
