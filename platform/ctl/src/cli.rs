//! What can be typed: subcommands and their options, nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use vamos_proto::edge::Target;

/// Operates a VAMOS host: VMs, services, and who may use what.
///
/// Exit codes: 0 done, 1 vamosd refused or failed, 2 wrong usage, 3 vamosd could not be reached.
#[derive(Debug, Parser)]
#[command(name = "vamosctl", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub endpoint: Endpoint,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// Where vamosd listens.
#[derive(Debug, Args)]
pub struct Endpoint {
    /// vamosd's control socket.
    #[arg(
        long,
        global = true,
        env = "VAMOS_SOCKET",
        default_value = "/run/vamos/control.sock",
        value_name = "PATH"
    )]
    pub socket: PathBuf,
    /// Connect over TCP with mutual TLS instead; needs --ca, --cert and --key.
    #[arg(long, global = true, value_name = "HOST:PORT", requires_all = ["ca", "cert", "key"])]
    pub tcp: Option<String>,
    /// Certificate authority of vamosd's certificate, PEM.
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// This client's certificate, PEM.
    #[arg(long, global = true, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// This client's private key, PEM.
    #[arg(long, global = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

impl Endpoint {
    /// Another host's control plane, with the same certificates.
    pub fn to(&self, host: &str) -> Self {
        let is_path = host.starts_with('/');
        Self {
            socket: PathBuf::from(host),
            tcp: (!is_path).then(|| host.to_owned()),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Virtual machines.
    #[command(subcommand)]
    Vm(Vm),
    /// Services.
    #[command(subcommand)]
    Service(Service),
    /// Which VM may use which service.
    #[command(subcommand)]
    Binding(Binding),
    /// Which requests of the world go to which VM.
    #[command(subcommand)]
    Route(Route),
    /// Certificates of the hosts that are served over TLS.
    #[command(subcommand)]
    Certificate(Certificate),
    /// What the edge has counted, by VM and binding.
    Edge,
    /// Remove answers from the cache: of one URL, with one tag, or all of a VM's.
    Purge {
        vm: String,
        /// Only what this service has answered.
        service: Option<String>,
        /// As https://example.org/path?query.
        #[arg(long, conflicts_with_all = ["tag", "all"])]
        url: Option<String>,
        /// That the server has given by Cache-Tag or Surrogate-Key.
        #[arg(long, conflicts_with = "all")]
        tag: Option<String>,
        #[arg(long, required_unless_present_any = ["url", "tag"])]
        all: bool,
    },
    /// Let open streams finish, then replace the cell of a VM, or of every VM.
    Drain {
        /// The VM; all when left out.
        vm: Option<String>,
        /// How long streams may take to finish, such as 30s.
        #[arg(long, value_name = "TIME")]
        deadline: Option<humantime::Duration>,
    },
    /// Throw away all host-side state of a VM that is not in its volume.
    Discard {
        /// The VM.
        vm: String,
    },
    /// Move a VM to another host, with its volume and, when QEMU's monitors are given, with its running guest.
    ///
    /// Sessions go on. Run again after an interruption, it goes on where it was.
    Migrate(Box<Migrate>),
    /// Have vamosd followed by the program that is now in its place, then replace the cells one by one.
    Upgrade,
    /// Drain every cell and end vamosd.
    Shutdown,
    /// Examine the host vamosd runs on.
    Doctor,
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// Verbs of `vm`.
#[derive(Debug, Subcommand)]
pub enum Vm {
    /// Register a VM: it gets a volume, a socket and a cell.
    Create {
        /// 1 to 63 of a-z, 0-9 and '-', starting with a letter.
        name: String,
        /// Guest context id; allotted when left out.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        cid: u64,
        /// Where its durable data is: local (shipped when the VM moves), shared (a directory that is the same on every
        /// host, under a lease) or remote (nothing is in the volume).
        #[arg(long, default_value = "local", value_name = "CLASS")]
        volume_class: String,
        /// The directory of a shared volume.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "PATH")]
        volume_path: String,
    },
    /// List the VMs.
    List,
    /// Everything about one VM.
    Show { name: String },
    /// End a VM's cell and forget the VM; its volume stays.
    Delete {
        name: String,
        /// Remove the volume with everything in it, too.
        #[arg(long)]
        purge: bool,
    },
    /// The counters of a VM's device.
    Stats {
        name: String,
        /// Print again after this time, such as 1s, until interrupted.
        #[arg(long, value_name = "TIME")]
        every: Option<humantime::Duration>,
    },
    /// Copy a VM's databases as they are at one instant, while it runs.
    ///
    /// Without --qmp, take the VMM's own snapshot under the same name while the guest is paused.
    Snapshot {
        name: String,
        /// The snapshot's name: 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-'.
        snapshot: String,
        #[command(flatten)]
        guest: GuestState,
    },
    /// List the snapshots of a VM.
    Snapshots { name: String },
    /// Remove a snapshot.
    RemoveSnapshot { name: String, snapshot: String },
    /// Put a snapshot in the place of a VM's volume. Sessions of before are refused from then on.
    Restore {
        name: String,
        snapshot: String,
        #[command(flatten)]
        guest: GuestState,
    },
    /// Make another VM, with the same bindings, of a snapshot.
    Clone {
        name: String,
        /// The new VM.
        new: String,
        /// The snapshot; one is taken, and removed again, when left out.
        #[arg(long, value_name = "NAME")]
        snapshot: Option<String>,
    },
    /// Print the VMM options that attach a VM's device.
    AttachArgs {
        name: String,
        #[arg(long, value_enum)]
        vmm: Vmm,
        /// Guest memory, as QEMU writes it; it must equal the VM's -m.
        #[arg(long, default_value = "512M", value_name = "SIZE")]
        memory: String,
        /// For a QEMU that awaits the VM from another host.
        #[arg(long)]
        incoming: bool,
    },
}

/// Where a guest's own state is, for a snapshot of volume and guest together.
#[derive(Debug, Args)]
pub struct GuestState {
    /// Monitor (QMP, a Unix socket) of the QEMU that runs the guest; to restore, of one that awaits it, started with
    /// `vm attach-args --incoming`.
    #[arg(long, value_name = "PATH", requires = "vm_state")]
    pub qmp: Option<PathBuf>,
    /// File with the guest's state.
    #[arg(long, value_name = "FILE", requires = "qmp")]
    pub vm_state: Option<PathBuf>,
}

/// Options of `migrate`.
#[derive(Debug, Args)]
pub struct Migrate {
    /// The VM.
    pub vm: String,
    /// The other host's control plane: the path of its socket, or HOST:PORT for TCP with the certificates of this
    /// command.
    #[arg(long, value_name = "HOST")]
    pub to: String,
    /// Monitor (QMP, a Unix socket) of the QEMU that runs the VM. Without it, whoever runs the VM attaches it at the
    /// other host.
    #[arg(long, value_name = "PATH", requires_all = ["to_qmp", "migrate_uri"])]
    pub qmp: Option<PathBuf>,
    /// Monitor of the QEMU that awaits it, started with `vm attach-args --incoming`.
    #[arg(long, value_name = "PATH", requires = "qmp")]
    pub to_qmp: Option<PathBuf>,
    /// Where that one is to listen for the guest's memory, as QEMU writes it: tcp:HOST:PORT or unix:PATH.
    #[arg(long, value_name = "URI", requires = "qmp")]
    pub migrate_uri: Option<String>,
    /// Fastest QEMU may move the memory, bytes per second; QEMU's own when left out.
    #[arg(long, value_name = "BYTES")]
    pub bandwidth: Option<u64>,
    /// Leave the first QEMU as it is afterwards, stopped; it is ended otherwise.
    #[arg(long)]
    pub keep_source: bool,
}

/// Verbs of `service`.
#[derive(Debug, Subcommand)]
pub enum Service {
    /// Register a service.
    Register {
        name: String,
        /// Kind of the service.
        #[arg(long, default_value = "sql")]
        kind: String,
    },
    /// List the services.
    List,
    /// Remove a service to which no VM is bound.
    Remove { name: String },
}

/// Verbs of `route`.
#[derive(Debug, Subcommand)]
pub enum Route {
    /// Add a route, or change the one of the same host and prefix.
    Set(Box<SetRoute>),
    /// Remove a route.
    Remove {
        host: String,
        #[arg(default_value = "/")]
        prefix: String,
    },
    /// List the routes.
    List,
}

/// Options of `route set`.
#[derive(Debug, Args)]
pub struct SetRoute {
    /// A host's name, "*.example.org" for the names one label below, or "*" for what no other route names.
    pub host: String,
    /// VM/SERVICE, or VM/SERVICE=WEIGHT; several share the requests.
    #[arg(required = true, value_name = "VM/SERVICE", value_parser = target)]
    pub to: Vec<Target>,
    /// Only paths below this, by whole segments.
    #[arg(long, default_value = "/")]
    pub prefix: String,
    /// Answer what comes without TLS with a redirect.
    #[arg(long)]
    pub https_only: bool,
    /// Largest body of a request, bytes.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub request_bytes_max: u64,
    /// Room for answers that may be kept, of each target, bytes; nothing is kept without.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub cache_bytes: u64,
}

/// Verbs of `certificate`.
#[derive(Debug, Subcommand)]
pub enum Certificate {
    /// Add a certificate, or replace the one of this name. No connection is lost.
    Set {
        name: String,
        /// The chain, the host's own certificate first, PEM.
        #[arg(long, value_name = "FILE")]
        chain: PathBuf,
        /// The key, PEM.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Remove a certificate.
    Remove { name: String },
    /// List the certificates.
    List,
}

/// Verbs of `binding`.
#[derive(Debug, Subcommand)]
pub enum Binding {
    /// Make a service available to a VM, or change how.
    Bind(Box<Bind>),
    /// Take a service away from a VM; its data stays in the volume.
    Unbind { vm: String, service: String },
    /// List the bindings of one VM, or all.
    List { vm: Option<String> },
}

/// Options of `binding bind`; what is left out is the platform's default.
#[derive(Debug, Args)]
pub struct Bind {
    pub vm: String,
    pub service: String,
    /// Setting of the front door inside the guest, such as postgres=127.0.0.1:5432; repeatable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub door: Vec<(String, String)>,
    /// Refuse every statement that writes.
    #[arg(long)]
    pub read_only: bool,
    /// Longest one statement may run, such as 30s.
    #[arg(long, value_name = "TIME")]
    pub statement_timeout: Option<humantime::Duration>,
    /// Longest a transaction may stay open without a statement.
    #[arg(long, value_name = "TIME")]
    pub idle_in_transaction_timeout: Option<humantime::Duration>,
    /// Largest size of the data, bytes.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub max_bytes: u64,
    /// Sessions open at once.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub max_sessions: u32,
    /// Requests per second, sustained.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub ops_per_second: u32,
    /// Bytes per second from the guest, sustained.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub bytes_per_second: u64,
}

/// A virtual machine monitor whose options are known.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Vmm {
    /// QEMU 7.2 and later, any accelerator.
    Qemu,
    /// User-mode Linux.
    Uml,
}

fn target(text: &str) -> Result<Target, String> {
    let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
    let weight = weight.parse().map_err(|_| format!("{weight:?} is not a weight"))?;
    match name.split_once('/') {
        Some((vm, binding)) => Ok(Target { vm: vm.to_owned(), binding: binding.to_owned(), weight }),
        None => Err(format!("{text:?} is not VM/SERVICE")),
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn tcp_needs_its_certificates() {
        assert!(Cli::try_parse_from(["vamosctl", "--tcp", "h:1", "vm", "list"]).is_err());
        let whole = ["vamosctl", "--tcp", "h:1", "--ca", "a", "--cert", "b", "--key", "c", "vm", "list"];
        assert!(Cli::try_parse_from(whole).is_ok());
    }

    #[test]
    fn doors_are_pairs() {
        assert_eq!(name_and_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(name_and_value("=b").is_err());
        assert!(name_and_value("a").is_err());
    }
}
