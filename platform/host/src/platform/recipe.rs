//! How a VM's cell is started: what the registry and the configuration say, put together.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use rustix::process::{Resource, getrlimit};
use vamos_proto::cell::{Binding, Limits, Start};
use vamos_proto::edge as edge_proto;
use vamos_sandbox::Enforcement;
use vamos_sandbox::cgroup::{CgroupLimits, Hierarchy};

use super::{Platform, PlatformError};
use crate::cell::spawn::Recipe;
use crate::config::Config;
use crate::directories::Directories;
use crate::edge;
use crate::lease::etcd::{Etcd, EtcdLease};
use crate::lease::file::FileLease;
use crate::lease::{Lease, Terms, own_identity};
use crate::limits::EDGE_THREADS_BESIDES;
use crate::registry::{BindingRow, Restoration, VmRow, Volume};
use crate::snapshot::volume::Remaking;
use crate::vm::tenancy::Tenancy;

impl Platform {
    /// How a VM's cell is started as things are.
    pub(crate) async fn recipe_of(
        &self,
        row: &VmRow,
        bindings: Vec<BindingRow>,
    ) -> Result<Recipe, PlatformError> {
        let name = row.name.clone();
        let restoration = self.registry(move |registry| registry.restoration(&name)).await?;
        Ok(Recipe {
            remaking: restoration.map(|from| self.remaking(row, &from)),
            ..self.recipe(row, bindings)
        })
    }

    /// A VM's right to its volume, if others could have it.
    pub(super) fn tenancy(&self, row: &VmRow) -> Result<Option<Tenancy>, PlatformError> {
        let Volume::Shared(path) = &row.volume else { return Ok(None) };
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| PlatformError::File { action, path, source }
        };
        let instance = self.directories.instance().map_err(failed("look up", &self.config.state_dir))?;
        let own = own_identity(&instance).map_err(failed("read", Path::new("/proc")))?;
        let terms = Terms { ttl: self.config.leases.valid };
        let lease = match &self.config.leases.etcd {
            None => Lease::File(Some(FileLease::new(path, own, terms))),
            Some(etcd) => {
                let read = |path: &PathBuf| fs::read(path).map_err(failed("read", path));
                let tls = match &etcd.tls {
                    Some([authority, certificate, key]) => {
                        Some([read(authority)?, read(certificate)?, read(key)?])
                    }
                    None => None,
                };
                let etcd = Etcd { members: etcd.members.clone(), tls };
                Lease::Etcd(EtcdLease::new(etcd, path.display().to_string(), own, terms))
            }
        };
        Ok(Some(Tenancy::new(row.name.clone(), path.clone(), row.uid, lease, terms)))
    }

    fn remaking(&self, row: &VmRow, from: &Restoration) -> Remaking {
        let (registry, vm) = (self.registry.clone(), row.name.clone());
        let done = move || registry.lock().unwrap_or_else(PoisonError::into_inner).end_restoration(&vm);
        Remaking {
            from: self.directories.snapshots(from.source.as_str()).join(from.snapshot.as_str()),
            volume: self.volume_of(&row.name),
            uid: row.uid,
            done: Arc::new(done),
        }
    }

    pub(super) fn recipe(&self, row: &VmRow, bindings: Vec<BindingRow>) -> Recipe {
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
                leased: matches!(row.volume, Volume::Shared(_)),
                // Known when it is held.
                lease_until: 0,
                cid: row.cid.0,
                uid: row.uid,
                gid: row.uid,
                best_effort: self.config.enforcement == Enforcement::BestEffort,
                limits: Some(limits),
                bindings: bindings.into_iter().map(told).collect(),
                polling_us: cells.polling_us,
            },
            rendezvous: self.directories.rendezvous(row.name.as_str()),
            remaking: None,
            volume,
        }
    }
}

/// How the edge is started, if the configuration wants one.
pub(super) fn edge_recipe(
    config: &Config,
    directories: &Directories,
    cgroup: Option<&(Hierarchy, String)>,
) -> Option<edge::Recipe> {
    let wanted = config.edge.as_ref()?;
    let plain = wanted.listen.iter().map(|address| (*address, false));
    let tls = wanted.listen_tls.iter().map(|address| (*address, true));
    // The first that no cell has.
    let uid = config.cells.uid_first + config.cells.uid_count;
    let directory = directories.edge();
    let threads = u64::from(wanted.workers) + EDGE_THREADS_BESIDES;
    Some(edge::Recipe {
        binary: wanted.binary.clone().unwrap_or_else(|| config.cell_binary.with_file_name("vamos-edge")),
        access_log: wanted.access_log.clone().unwrap_or_else(|| directories.access_log()),
        rendezvous: directories.edge_rendezvous(),
        listen: plain.chain(tls).collect(),
        start: edge_proto::Start {
            uid,
            gid: uid,
            directory: directory.display().to_string(),
            best_effort: config.enforcement == Enforcement::BestEffort,
            limits: Some(Limits {
                // What this vamosd may not have it cannot give.
                open_files: wanted.open_files.min(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)),
                threads,
                file_bytes: config.cells.file_bytes,
            }),
            listeners: Vec::new(),
            workers: wanted.workers,
            cache_memory_bytes: 0,
            cache_disk_bytes: 0,
        },
        cgroup_limits: CgroupLimits {
            memory_bytes: wanted.memory_bytes,
            tasks: threads + 1,
            cpu_weight: config.cells.cpu_weight,
        },
        cgroup: cgroup.cloned(),
        directory,
    })
}

/// A binding as its cell is told of it.
pub(super) fn told(row: BindingRow) -> Binding {
    Binding {
        name: row.service.to_string(),
        kind: row.kind.as_str().into(),
        port: row.port.0,
        door: row.door.into_iter().collect(),
        policy: Some(row.policy),
        quota: Some(row.quota),
    }
}
