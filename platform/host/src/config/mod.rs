//! `vamos.toml`: what vamosd is told at its start. All of it is read and every mistake reported before
//! anything is bound or created.

mod edge;
mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Table;
use vamos_proto::id::{GuestCid, VmId};
use vamos_proto::policy::{Policy, Quota};
use vamos_sandbox::Enforcement;

pub use edge::{Certificate, Edge, check_route};
pub use reader::Mistakes;
use vamos_proto::edge::Route;

use crate::limits::{CONFIG_BYTES_MAX, DOOR_SETTING_BYTES_MAX, DOOR_SETTINGS_MAX, LEASE_VALID};
use crate::names::{ServiceKind, ServiceName};
use crate::registry::Volume;
use reader::{Fields, Log};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not TOML: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// The file is TOML, but not a configuration of vamosd.
    #[error("{path} has {} mistakes:\n{mistakes}", .mistakes.0.len())]
    Mistakes {
        /// Which file.
        path: PathBuf,
        /// All of them.
        mistakes: Mistakes,
    },
}

/// Everything vamosd is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The registry and the volumes.
    pub state_dir: PathBuf,
    /// Sockets.
    pub run_dir: PathBuf,
    /// The program of a cell.
    pub cell_binary: PathBuf,
    /// Whether every layer of the sandbox must hold.
    pub enforcement: Enforcement,
    /// Limits of every cell.
    pub cells: Cells,
    /// Who may use the control plane.
    pub control: Control,
    /// How shared volumes are kept from being used twice.
    pub leases: Leases,
    /// What serves HTTP to the world; nothing does without it.
    pub edge: Option<Edge>,
    /// Certificates that it has from the start.
    pub certificates: Vec<Certificate>,
    /// Routes that it has from the start.
    pub routes: Vec<Route>,
    /// Services that exist from the start.
    pub services: Vec<Service>,
    /// VMs that exist from the start.
    pub vms: Vec<Vm>,
    /// Their bindings.
    pub bindings: Vec<Binding>,
}

/// What each cell gets of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cells {
    /// First of the uids, and gids, given to cells.
    pub uid_first: u32,
    /// How many there are.
    pub uid_count: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Descriptors.
    pub open_files: u64,
    /// Largest file in a volume, bytes.
    pub file_bytes: u64,
    /// Share of the processor, 1 to 10,000; 100 is usual.
    pub cpu_weight: u64,
    /// Longest a device polls before it sleeps, microseconds; 0 never polls. A wake-up costs more than this
    /// much of looking (a select of a process guest on two CPUs: 72 us woken, 20 us polled), and a look gives
    /// way to whoever else could run.
    pub polling_us: u64,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            uid_first: 1_000_000,
            uid_count: 65_536,
            memory_bytes: 1 << 30,
            threads: 128,
            open_files: 4096,
            file_bytes: 64 << 30,
            cpu_weight: 100,
            polling_us: 60,
        }
    }
}

/// Who may use the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Control {
    /// Uids allowed on the Unix socket besides root and vamosd's own.
    pub allowed_uids: BTreeSet<u32>,
    /// Also serve TCP, to clients with a certificate.
    pub tcp: Option<Tcp>,
}

/// The TCP listener of the control plane: never without mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Where to listen.
    pub listen: SocketAddr,
    /// vamosd's certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The authority that signs clients' certificates, PEM.
    pub client_authority: PathBuf,
}

/// A declared service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its kind.
    pub kind: ServiceKind,
}

/// A declared VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Its name.
    pub name: VmId,
    /// Its context id, if it matters.
    pub cid: Option<GuestCid>,
    /// Where its durable data is.
    pub volume: Volume,
}

/// How shared volumes are kept from being used twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leases {
    /// How long a lease is valid from each renewal.
    pub valid: Duration,
    /// Leases are in etcd, not in the volumes themselves.
    pub etcd: Option<EtcdMembers>,
}

/// Where etcd is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdMembers {
    /// As `http://HOST:PORT` or `https://HOST:PORT`.
    pub members: Vec<String>,
    /// Authority of their certificates, and this host's certificate and key, PEM.
    pub tls: Option<[PathBuf; 3]>,
}

impl Default for Leases {
    fn default() -> Self {
        Self { valid: LEASE_VALID, etcd: None }
    }
}

/// A declared binding.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// Which VM.
    pub vm: VmId,
    /// Which service.
    pub service: ServiceName,
    /// Settings of the front door in the guest.
    pub door: BTreeMap<String, String>,
    /// What is allowed.
    pub policy: Policy,
    /// How much.
    pub quota: Quota,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`], with every mistake there is.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(CONFIG_BYTES_MAX).read_to_string(&mut text))
            .map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.into(),
            message: error.to_string(),
        })?;
        Self::from_table(&table).map_err(|mistakes| ConfigError::Mistakes { path: path.into(), mistakes })
    }

    fn from_table(table: &Table) -> Result<Self, Mistakes> {
        let log = Log::default();
        let fields = Fields::new(table, "", &log);
        let directory = |name, default: &str| {
            let path = PathBuf::from(fields.text(name).unwrap_or(default));
            if !path.is_absolute() {
                fields.mistake(format_args!("{name} must be an absolute path, not {}", path.display()));
            }
            path
        };
        let config = Self {
            state_dir: directory("state_dir", "/var/lib/vamos"),
            run_dir: directory("run_dir", "/run/vamos"),
            cell_binary: fields.text("cell_binary").map_or_else(beside_vamosd, PathBuf::from),
            enforcement: enforcement(&fields),
            cells: cells(&fields),
            control: control(&fields),
            leases: leases(&fields),
            edge: fields.table("edge").map(edge::edge),
            certificates: fields.tables("certificate").into_iter().filter_map(edge::certificate).collect(),
            routes: fields.tables("route").into_iter().filter_map(edge::route).collect(),
            services: fields.tables("service").into_iter().filter_map(service).collect(),
            vms: fields.tables("vm").into_iter().filter_map(vm).collect(),
            bindings: fields.tables("binding").into_iter().filter_map(binding).collect(),
        };
        config.check_names(&fields);
        fields.end();
        let mistakes = log.into_inner();
        if mistakes.0.is_empty() { Ok(config) } else { Err(mistakes) }
    }

    /// What no single table can tell: names and context ids given twice, bindings to nothing.
    fn check_names(&self, fields: &Fields<'_>) {
        let twice = |what: &str, names: &mut dyn Iterator<Item = String>| {
            let mut seen = BTreeSet::new();
            for name in names {
                if seen.contains(&name) {
                    fields.mistake(format_args!("{what} {name} is declared twice"));
                }
                seen.insert(name);
            }
        };
        twice("service", &mut self.services.iter().map(|service| service.name.to_string()));
        twice("vm", &mut self.vms.iter().map(|vm| vm.name.to_string()));
        twice("cid", &mut self.vms.iter().filter_map(|vm| vm.cid).map(|cid| cid.0.to_string()));
        twice("binding", &mut self.bindings.iter().map(|b| format!("of {} to {}", b.vm, b.service)));
        twice("route", &mut self.routes.iter().map(|route| format!("of {}{}", route.host, route.prefix)));
        twice("certificate", &mut self.certificates.iter().map(|certificate| certificate.name.clone()));
        for Binding { vm, service, .. } in &self.bindings {
            if self.vms.iter().all(|declared| declared.name != *vm) {
                fields.mistake(format_args!("binding of {vm} to {service}: there is no [[vm]] {vm}"));
            }
            if self.services.iter().all(|declared| declared.name != *service) {
                fields
                    .mistake(format_args!("binding of {vm} to {service}: there is no [[service]] {service}"));
            }
        }
    }
}

fn beside_vamosd() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.with_file_name("vamos-cell")
}

fn enforcement(fields: &Fields<'_>) -> Enforcement {
    match fields.text("sandbox") {
        None | Some("strict") => Enforcement::Strict,
        Some("best-effort") => Enforcement::BestEffort,
        Some(other) => {
            fields.mistake(format_args!("sandbox = {other:?} is neither \"strict\" nor \"best-effort\""));
            Enforcement::Strict
        }
    }
}

fn cells(fields: &Fields<'_>) -> Cells {
    let mut cells = Cells::default();
    let Some(table) = fields.table("cells") else { return cells };
    let set = |name, range, value: &mut u64| *value = table.number(name, range).unwrap_or(*value);
    let mut first = u64::from(cells.uid_first);
    let mut count = u64::from(cells.uid_count);
    set("uid_first", 1000..=4_000_000_000, &mut first);
    set("uid_count", 1..=1_000_000, &mut count);
    // Both ranges end well below u32::MAX.
    (cells.uid_first, cells.uid_count) = (first as u32, count as u32);
    set("memory_bytes", 16 << 20..=1 << 50, &mut cells.memory_bytes);
    set("threads", 8..=65_536, &mut cells.threads);
    set("open_files", 64..=1_048_576, &mut cells.open_files);
    set("file_bytes", 1 << 20..=1 << 60, &mut cells.file_bytes);
    set("cpu_weight", 1..=10_000, &mut cells.cpu_weight);
    set("polling_us", 0..=1000, &mut cells.polling_us);
    table.end();
    cells
}

fn control(fields: &Fields<'_>) -> Control {
    let Some(table) = fields.table("control") else { return Control::default() };
    // The range makes the conversion exact.
    let allowed_uids =
        table.numbers("allowed_uids", 0..=u64::from(u32::MAX)).into_iter().map(|uid| uid as u32);
    let control = Control { allowed_uids: allowed_uids.collect(), tcp: table.table("tcp").and_then(tcp) };
    table.end();
    control
}

fn tcp(table: Fields<'_>) -> Option<Tcp> {
    let listen = table.required_text("listen").and_then(|text| {
        text.parse()
            .map_err(|_| table.mistake(format_args!("listen = {text:?} is not an address and a port")))
            .ok()
    });
    let path = |name| table.required_text(name).map(PathBuf::from);
    let paths = (path("certificate"), path("key"), path("client_authority"));
    table.end();
    Some(Tcp { listen: listen?, certificate: paths.0?, key: paths.1?, client_authority: paths.2? })
}

fn leases(fields: &Fields<'_>) -> Leases {
    let Some(table) = fields.table("lease") else { return Leases::default() };
    let valid = table.number("valid_ms", 500..=600_000).map_or(LEASE_VALID, Duration::from_millis);
    let etcd = table.table("etcd").map(|etcd| {
        let members: Vec<_> = etcd.text("members").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        if members.is_empty() {
            etcd.mistake("members is missing: the addresses of etcd, such as \"http://127.0.0.1:2379\", separated by spaces");
        }
        let files = ["authority", "certificate", "key"].map(|name| etcd.text(name).map(PathBuf::from));
        if files.iter().any(Option::is_some) && files.iter().any(Option::is_none) {
            etcd.mistake("authority, certificate and key are given together or not at all");
        }
        let tls = match files {
            [Some(authority), Some(certificate), Some(key)] => Some([authority, certificate, key]),
            _ => None,
        };
        etcd.end();
        EtcdMembers { members, tls }
    });
    table.end();
    Leases { valid, etcd }
}

fn service(table: Fields<'_>) -> Option<Service> {
    let name = table.required_text("name").and_then(|name| checked(&table, ServiceName::new(name)));
    let kind = table.required_text("kind").and_then(|kind| checked(&table, ServiceKind::new(kind)));
    table.end();
    Some(Service { name: name?, kind: kind? })
}

fn vm(table: Fields<'_>) -> Option<Vm> {
    let name = table.required_text("name").and_then(|name| checked(&table, VmId::new(name)));
    let cid = table.number("cid", GuestCid::FIRST.0..=u64::from(u32::MAX) - 1).map(GuestCid);
    let volume = match table.table("volume") {
        None => Volume::Local,
        Some(volume) => {
            let (class, path) =
                (volume.text("class").unwrap_or_default(), volume.text("path").unwrap_or_default());
            volume.end();
            Volume::new(class, path).map_err(|reason| table.mistake(reason)).unwrap_or_default()
        }
    };
    table.end();
    Some(Vm { name: name?, cid, volume })
}

fn binding(table: Fields<'_>) -> Option<Binding> {
    let vm = table.required_text("vm").and_then(|name| checked(&table, VmId::new(name)));
    let service = table.required_text("service").and_then(|name| checked(&table, ServiceName::new(name)));
    let door: BTreeMap<_, _> =
        table.table("door").map(Fields::texts).unwrap_or_default().into_iter().collect();
    if let Err(reason) = check_door(&door) {
        table.mistake(reason);
    }
    let policy = table.table("policy").map(policy).unwrap_or_default();
    let quota = table.table("quota").map(quota).unwrap_or_default();
    table.end();
    Some(Binding { vm: vm?, service: service?, door, policy, quota })
}

/// Whether a front door's settings are few and short enough to be sent to a guest.
///
/// # Errors
/// What is wrong with them.
pub fn check_door(door: &BTreeMap<String, String>) -> Result<(), String> {
    if door.len() > DOOR_SETTINGS_MAX {
        return Err(format!("door has {} settings, {DOOR_SETTINGS_MAX} are possible", door.len()));
    }
    match door.iter().find(|(name, value)| name.len() + value.len() > DOOR_SETTING_BYTES_MAX) {
        Some((name, _)) => {
            Err(format!("door setting {name:?} is longer than {DOOR_SETTING_BYTES_MAX} bytes"))
        }
        None => Ok(()),
    }
}

const A_DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn policy(table: Fields<'_>) -> Policy {
    let time = |name| table.number(name, 1..=A_DAY_MS).unwrap_or_default();
    let policy = Policy {
        read_only: table.truth("read_only").unwrap_or_default(),
        statement_timeout_ms: time("statement_timeout_ms"),
        idle_in_transaction_timeout_ms: time("idle_in_transaction_timeout_ms"),
    };
    table.end();
    policy
}

fn quota(table: Fields<'_>) -> Quota {
    let small = |name| table.number(name, 1..=1_000_000).unwrap_or_default() as u32;
    let quota = Quota {
        max_bytes: table.number("max_bytes", 1 << 20..=1 << 60).unwrap_or_default(),
        max_sessions: small("max_sessions"),
        ops_per_second: small("ops_per_second"),
        bytes_per_second: table.number("bytes_per_second", 1024..=1 << 50).unwrap_or_default(),
    };
    table.end();
    quota
}

fn checked<T, E: std::fmt::Display>(table: &Fields<'_>, value: Result<T, E>) -> Option<T> {
    value.map_err(|error| table.mistake(error)).ok()
}

#[cfg(test)]
mod tests;
