//! vamosd under test: started with a generated `vamos.toml` in the run directory, asked by vamosctl.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::disk::{self, Ballast, Disk};
use crate::lab::Lab;
use crate::limits::{CONTROL_CALL_MAX, GUEST_BOOT_MAX, HOST_START_MAX};
use crate::process::{Process, last_lines_of, output_within};
use crate::vm::{Boot, Guest, Move, Vm, Vmm};

/// The agent's name, under `/usr/bin` in guests.
const AGENT: &str = "vamos-agent";

/// From one look for a cell to the next.
const CELL_LOOK: Duration = Duration::from_millis(20);

/// Name of vamosd's state directory in its own.
const STATE: &str = "state";

/// Starts the agent in a guest and waits until its doors are open.
const START_AGENT: &str = "vamos-agent run >/run/agent.log 2>&1 &\n\
    for try in $(seq 300); do grep -q 'vamos-agent: ready' /run/agent.log && exit 0; sleep 0.1; done\n\
    cat /run/agent.log >&2; exit 1";

/// A VM and what it is bound to.
#[derive(Debug, Clone)]
struct Binding {
    vm: String,
    service: String,
    kind: &'static str,
    settings: String,
}

impl Binding {
    fn new(vm: &str, service: &str, kind: &'static str, settings: &str) -> Self {
        Self { vm: vm.to_owned(), service: service.to_owned(), kind, settings: settings.to_owned() }
    }
}

/// What vamosd is told: VMs and who is bound to what.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    vms: Vec<String>,
    bindings: Vec<Binding>,
    settings: String,
    published: String,
    own_network: bool,
    disk: Option<Disk>,
}

impl HostConfig {
    /// Nothing declared.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a VM.
    #[must_use]
    pub fn vm(mut self, name: &str) -> Self {
        self.vms.push(name.to_owned());
        self
    }

    /// Binds a VM to an SQL service, which is declared with it.
    #[must_use]
    pub fn bind(self, vm: &str, service: &str) -> Self {
        self.bind_with(vm, service, "")
    }

    /// As [`HostConfig::bind`], with more lines of TOML for the binding: its policy and quota.
    #[must_use]
    pub fn bind_with(mut self, vm: &str, service: &str, settings: &str) -> Self {
        self.bindings.push(Binding::new(vm, service, "sql", settings));
        self
    }

    /// Publishes a server of a VM's guest, under the host `SERVICE.example`: `door` says where in the guest it is, as
    /// settings of TOML; `route` is more of the route. There is an edge then, on a port of loopback that [`Host::edge`] tells.
    #[must_use]
    pub fn publish(mut self, vm: &str, service: &str, door: &str, route: &str) -> Self {
        if self.published.is_empty() {
            self.published = "[edge]\nlisten = \"127.0.0.1:0\"\n".to_owned();
        }
        let _ = write!(
            self.published,
            "[[route]]\nhost = \"{service}.example\"\nto = \"{vm}/{service}\"\n{route}\n"
        );
        self.bindings.push(Binding::new(vm, service, "http", &format!("door = {{ {door} }}")));
        self
    }

    /// More lines of TOML for the whole.
    #[must_use]
    pub fn settings(mut self, settings: &str) -> Self {
        self.settings.push_str(settings);
        self.settings.push('\n');
        self
    }

    /// In a network namespace of its own.
    #[must_use]
    pub fn own_network(mut self) -> Self {
        self.own_network = true;
        self
    }

    /// With its state on a disk of its own. Takes root.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disk = Some(disk);
        self
    }

    fn toml(&self, directory: &Path) -> String {
        let mut text = format!(
            "state_dir = \"{0}/{STATE}\"\nrun_dir = \"{0}/run\"\n{1}",
            directory.display(),
            self.settings
        );
        // Without root some layers cannot be had: vamosd says which.
        if !rustix::process::geteuid().is_root() {
            text += "sandbox = \"best-effort\"\n";
        }
        for vm in &self.vms {
            let _ = write!(text, "[[vm]]\nname = \"{vm}\"\n");
        }
        let services = self.bindings.iter().map(|binding| (&binding.service, binding.kind));
        for (service, kind) in services.collect::<BTreeSet<_>>() {
            let _ = write!(text, "[[service]]\nname = \"{service}\"\nkind = \"{kind}\"\n");
        }
        for Binding { vm, service, settings, .. } in &self.bindings {
            let _ = write!(text, "[[binding]]\nvm = \"{vm}\"\nservice = \"{service}\"\n{settings}\n");
        }
        text + &self.published
    }
}

/// Transitions between a guest and its host since the VM was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transitions {
    /// Notifications from the guest.
    pub kicks: u64,
    /// Interrupts to the guest.
    pub calls: u64,
}

impl Transitions {
    /// All that happened since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        (self.kicks + self.calls).saturating_sub(earlier.kicks + earlier.calls)
    }
}

/// A running vamosd. Dropped, it and its cells are gone.
#[derive(Debug)]
pub struct Host {
    lab: Lab,
    process: Process,
    directory: PathBuf,
    own_network: bool,
}

impl Host {
    pub(crate) fn start(lab: &Lab, config: &HostConfig) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("host-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(lab.run().path())
            .context("making vamosd's directory")?
            .keep();
        if let Some(disk) = config.disk {
            disk::mount(&directory.join(STATE), disk)?;
        }
        let config_path = directory.join("vamos.toml");
        fs::write(&config_path, config.toml(&directory)).context("writing vamos.toml")?;
        let process = Self::launch(lab, &directory, config.own_network)?;
        let mut host = Self { lab: lab.clone(), process, directory, own_network: config.own_network };
        host.await_ready()?;
        Ok(host)
    }

    fn launch(lab: &Lab, directory: &Path, own_network: bool) -> Result<Process> {
        let log = File::options().create(true).append(true).open(directory.join("vamosd.log"));
        let log = log.context("creating vamosd's log")?;
        let vamosd = &lab.artifacts().vamosd;
        let mut command = match own_network {
            false => Command::new(vamosd),
            true => Command::new("unshare"),
        };
        if own_network {
            command.args(["--net", "--"]).arg(vamosd);
        }
        command
            .arg("--config")
            .arg(directory.join("vamos.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        Process::start("vamosd", command, lab.run())
    }

    /// Kills vamosd, which its cells outlive, and starts another that collects them.
    ///
    /// # Errors
    /// When that one does not come up.
    pub fn crash(&mut self) -> Result<()> {
        self.process.kill();
        self.process = Self::launch(&self.lab, &self.directory, self.own_network)?;
        self.await_ready()
    }

    fn await_ready(&mut self) -> Result<()> {
        let stdout = self.process.child().stdout.take().context("vamosd has no standard output")?;
        let (sender, ready) = channel();
        std::thread::spawn(move || {
            // Reads to the end: a full pipe would stop vamosd.
            for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
                let _ = sender.send(line);
            }
        });
        loop {
            match ready.recv_timeout(HOST_START_MAX) {
                Ok(line) if line.trim() == "vamosd: ready" => return Ok(()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("vamosd is not ready within {HOST_START_MAX:?}:\n{}", self.log_end())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("vamosd ended at its start:\n{}", self.log_end())
                }
            }
        }
    }

    /// Where the edge listens.
    ///
    /// # Errors
    /// There is none.
    pub fn edge(&self) -> Result<SocketAddr> {
        let status = self.ctl_json(&["edge"])?;
        let address = status["listeners"][0].as_str().context("no listener in vamosctl edge")?;
        Ok(address.parse()?)
    }

    /// Boots a guest as one of the declared VMs and starts the agent in it.
    ///
    /// # Errors
    /// When the guest does not boot, or the agent opens no doors.
    pub fn boot(&self, name: &str, guest: &Guest) -> Result<Vm> {
        let vm = self.boot_bare(name, guest)?;
        vm.run(START_AGENT)
            .with_context(|| format!("starting the agent\nvamosd's log:\n{}", self.log_end()))?;
        Ok(vm)
    }

    /// Boots a guest, agent and all, but leaves the agent to the caller.
    ///
    /// # Errors
    /// When the guest does not boot.
    pub fn boot_bare(&self, name: &str, guest: &Guest) -> Result<Vm> {
        let attach = self.attach_args(name, guest)?;
        let image = self.lab.image(guest.vmm)?;
        let accelerator = match guest.vmm {
            Vmm::Qemu => self.lab.accelerator()?.option(),
            Vmm::Uml => "",
        };
        let guest = guest.clone().file(format!("/usr/bin/{AGENT}"), self.lab.artifacts().guest(AGENT));
        let disk = self.disk(&guest)?;
        let (guest, image, attach, disk) = (&guest, &*image, &attach[..], disk.as_deref());
        let boot = Boot { name, guest, image, attach, disk, accelerator, limit: GUEST_BOOT_MAX };
        Vm::boot(&boot, self.lab.run()).with_context(|| format!("vamosd's log:\n{}", self.log_end()))
    }

    fn disk(&self, guest: &Guest) -> Result<Option<PathBuf>> {
        guest.has_debian.then(|| self.lab.debian()).transpose()
    }

    /// Moves a running guest of QEMU and its volume to another host with `vamosctl migrate`; what that reports.
    ///
    /// # Errors
    /// When vamosctl fails: the guest is where it was then, unless it says otherwise.
    pub fn migrate(&self, name: &str, vm: &mut Vm, guest: &Guest, to: &Host) -> Result<Value> {
        self.migrate_by(name, vm, guest, to, |way| {
            let options = self.migration(name, to, way);
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            self.ctl_json(&[&options[..], &["--bandwidth", "10000000000"]].concat())
        })
    }

    /// What vamosctl is told to move a guest with, but for how fast.
    #[must_use]
    pub fn migration(&self, name: &str, to: &Host, way: &Move) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let (target, from, into) = (path(&to.socket()), path(&way.source), path(&way.target));
        let options =
            ["migrate", name, "--to", &target, "--qmp", &from, "--to-qmp", &into, "--migrate-uri", &way.uri];
        options.map(str::to_owned).to_vec()
    }

    /// Has `go` move a running guest.
    ///
    /// # Errors
    /// What `go` says: the guest is where it was then.
    pub fn migrate_by<T>(
        &self,
        name: &str,
        vm: &mut Vm,
        guest: &Guest,
        to: &Host,
        go: impl FnOnce(&Move) -> Result<T>,
    ) -> Result<T> {
        let memory = format!("{}M", guest.memory_mib);
        let incoming =
            to.ctl(&["vm", "attach-args", name, "--vmm", "qemu", "--memory", &memory, "--incoming"])?;
        let incoming: Vec<String> = incoming.split_whitespace().map(str::to_owned).collect();
        let image = self.lab.image(guest.vmm)?;
        let accelerator = self.lab.accelerator()?.option();
        let disk = self.disk(guest)?;
        let (image, attach, disk) = (&*image, &incoming[..], disk.as_deref());
        let boot = Boot { name, guest, image, attach, disk, accelerator, limit: GUEST_BOOT_MAX };
        vm.migrate(&boot, self.lab.run(), go)
    }

    /// What the last vamosctl that ran by itself complained of.
    #[must_use]
    pub fn ctl_log(&self) -> String {
        last_lines_of(&self.directory.join("vamosctl.log"))
    }

    /// A vamosctl that runs by itself.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_ctl(&self, arguments: &[String]) -> Result<Process> {
        let mut command = Command::new(&self.lab.artifacts().vamosctl);
        command.arg("--socket").arg(self.socket()).args(arguments);
        let log = File::create(self.directory.join("vamosctl.log")).context("creating vamosctl's log")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Process::start("vamosctl", command, self.lab.run())
    }

    /// Starts the agent in a guest that has been reset.
    ///
    /// # Errors
    /// When it opens no doors.
    pub fn start_agent(&self, vm: &Vm) -> Result<()> {
        vm.run(START_AGENT).map(|_| ())
    }

    /// The VMM's options for a VM's device, as vamosctl prints them.
    ///
    /// # Errors
    /// When vamosd does not know the VM.
    pub fn attach_args(&self, name: &str, guest: &Guest) -> Result<Vec<String>> {
        let memory = format!("{}M", guest.memory_mib);
        let printed =
            self.ctl(&["vm", "attach-args", name, "--vmm", guest.vmm.name(), "--memory", &memory])?;
        Ok(printed.split_whitespace().map(str::to_owned).collect())
    }

    /// Runs vamosctl and returns what it prints.
    ///
    /// # Errors
    /// When it fails; the message is its own.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.lab.artifacts().vamosctl);
        command.arg("--socket").arg(self.socket()).args(arguments);
        output_within(CONTROL_CALL_MAX, &mut command)
    }

    /// As [`Host::ctl`], with `--json`.
    ///
    /// # Errors
    /// When it fails, or does not print JSON.
    pub fn ctl_json(&self, arguments: &[&str]) -> Result<Value> {
        let printed = self.ctl(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&printed).with_context(|| format!("vamosctl {}: {printed}", arguments.join(" ")))
    }

    /// One counter of a VM's device, by the name `vamosctl vm stats` gives it.
    ///
    /// # Errors
    /// When vamosd does not know the VM, or the counter.
    pub fn counter(&self, vm: &str, name: &str) -> Result<u64> {
        let stats = self.ctl_json(&["vm", "stats", vm])?;
        stats[name].as_u64().with_context(|| format!("no counter {name} in {stats}"))
    }

    /// The transitions of a VM so far.
    ///
    /// # Errors
    /// When vamosd does not know the VM.
    pub fn transitions(&self, vm: &str) -> Result<Transitions> {
        let stats = self.ctl_json(&["vm", "stats", vm])?;
        let count =
            |name: &str| stats[name].as_u64().with_context(|| format!("no counter {name} in {stats}"));
        Ok(Transitions { kicks: count("kicks_received")?, calls: count("calls_sent")? })
    }

    /// The process of a VM's cell.
    ///
    /// # Errors
    /// When vamosd does not know the VM, or it has no cell.
    pub fn cell_process(&self, vm: &str) -> Result<i32> {
        let shown = self.ctl_json(&["vm", "show", vm])?;
        let pid = shown["cell_pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.filter(|pid| *pid > 0).with_context(|| format!("{vm} has no cell: {shown}"))
    }

    /// Waits until a VM has a cell.
    ///
    /// # Errors
    /// When it gets none in time.
    pub(crate) fn await_cell(&self, vm: &str) -> Result<()> {
        let until = Instant::now() + HOST_START_MAX;
        while let Err(error) = self.cell_process(vm) {
            ensure!(Instant::now() < until, "{error:#}\n{}", self.log_end());
            sleep(CELL_LOOK);
        }
        Ok(())
    }

    /// The socket that a VM's VMM connects to.
    ///
    /// # Errors
    /// When vamosd does not know the VM.
    pub fn device_socket(&self, vm: &str) -> Result<PathBuf> {
        let shown = self.ctl_json(&["vm", "show", vm])?;
        shown["socket"].as_str().map(PathBuf::from).with_context(|| format!("{vm} has no socket: {shown}"))
    }

    /// Takes all the room that is left on its disk until what is returned is dropped.
    ///
    /// # Errors
    /// When there was none, or it cannot be taken.
    pub(crate) fn fill_disk(&self) -> Result<Ballast> {
        Ballast::fill(&self.directory.join(STATE))
    }

    /// Gives a VM's cell, which must be one that obeys, an order.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn order(&self, vm: &str, order: &str) -> Result<()> {
        let orders = self.orders(vm);
        // Complete before the cell can see it, and the cell's to strike out.
        let draft = orders.with_extension("new");
        fs::write(&draft, order).context("writing an order")?;
        fs::set_permissions(&draft, Permissions::from_mode(0o666)).context("writing an order")?;
        fs::rename(&draft, &orders).context("giving an order")
    }

    /// Whether there are orders that a VM's cell has not carried out.
    pub(crate) fn has_orders(&self, vm: &str) -> bool {
        fs::read(self.orders(vm)).is_ok_and(|orders| !orders.is_empty())
    }

    fn orders(&self, vm: &str) -> PathBuf {
        self.directory.join(STATE).join("volumes").join(vm).join("seam")
    }

    /// vamosd's process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("run/control.sock")
    }

    /// Everything it and its cells logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// Ends vamosd as an operator would.
    ///
    /// # Errors
    /// When it does not drain and exit with success in time.
    pub fn end(mut self) -> Result<()> {
        let status = self.process.end()?;
        ensure!(status.success(), "vamosd ended with {status}:\n{}", self.log_end());
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("vamosd.log")
    }

    fn log_end(&self) -> String {
        last_lines_of(&self.log_path())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its cells are not in its group: they end with it when it ends by itself.
        let _ = self.process.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_declared_once_however_many_are_bound() {
        let config = HostConfig::new().vm("a").vm("b").bind("a", "s").bind_with("b", "s", "quota = {}");
        let text = config.toml(Path::new("/x"));
        let parsed: toml::Table = text.parse().unwrap();
        assert_eq!(parsed["service"].as_array().unwrap().len(), 1);
        assert_eq!(parsed["binding"].as_array().unwrap().len(), 2);
        assert_eq!(parsed["state_dir"].as_str(), Some("/x/state"));
    }
}
