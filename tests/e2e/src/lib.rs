//! The stage of the end-to-end tests: guests that boot when the first case wants them, and serve all.

use std::fmt::Display;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use vamos_lab::setup::{Needs, prepare};
use vamos_lab::{Guest, Host, HostConfig, Lab, Vm};

/// The service that all VMs of the shared host are bound to: each has a database of its own behind it.
pub const SHOP: &str = "shop";

/// A service of [`ALPHA`]'s alone.
pub const PRIVATE: &str = "private";

/// A service with a quota of 2 MiB, [`ALPHA`]'s.
pub const SMALL: &str = "small";

/// The QEMU guest that most cases run in.
pub const ALPHA: &str = "alpha";

/// Another QEMU guest.
pub const BETA: &str = "beta";

/// The UML guest.
pub const GAMMA: &str = "gamma";

/// The QEMU guest with servers of the web.
pub const WEB: &str = "web";

/// What of [`WEB`] is published, and where in the guest it is.
const SITES: &[(&str, &str)] = &[
    ("nginx", "upstream = 'http://127.0.0.1:8081'"),
    ("apache", "upstream = 'http://127.0.0.1:8082'"),
    ("php", "upstream = 'fastcgi://unix:/tmp/web/php.sock', root = '/tmp/web/www'"),
    ("django", "upstream = 'unix:/tmp/web/django.sock'"),
    ("node", "upstream = 'http://127.0.0.1:8083'"),
    ("tomcat", "upstream = 'http://127.0.0.1:8084'"),
];

/// What [`WEB`] has in `/web`.
const SERVERS: &[&str] = &[
    "nginx.conf",
    "apache.conf",
    "php-fpm.conf",
    "index.php",
    "application.py",
    "server.js",
    "server.xml",
    "web.xml",
    "start.sh",
];

/// What cases share. Everything on it is started once, when it is first wanted.
#[derive(Debug, Default)]
pub struct Stage {
    lab: OnceLock<Result<Lab, String>>,
    host: OnceLock<Result<Host, String>>,
    alpha: OnceLock<Result<Vm, String>>,
    beta: OnceLock<Result<Vm, String>>,
    gamma: OnceLock<Result<Vm, String>>,
    web: OnceLock<Result<(Host, Vm), String>>,
}

impl Stage {
    /// The lab, for a case that wants a host of its own.
    ///
    /// # Errors
    /// When the machine lacks something, or a binary does not build.
    pub fn lab(&self) -> Result<&Lab> {
        once(&self.lab, || {
            prepare(Needs::Verify)?;
            Lab::open()
        })
    }

    /// The shared host.
    ///
    /// # Errors
    /// When it does not start.
    pub fn host(&self) -> Result<&Host> {
        once(&self.host, || {
            let config = HostConfig::new()
                .vm(ALPHA)
                .vm(BETA)
                .vm(GAMMA)
                .bind(ALPHA, SHOP)
                .bind(ALPHA, PRIVATE)
                .bind_with(ALPHA, SMALL, "quota = { max_bytes = 2097152 }")
                .bind(BETA, SHOP)
                .bind(GAMMA, SHOP);
            self.lab()?.host(&config)
        })
    }

    /// A QEMU guest with the agent and the client programs.
    ///
    /// # Errors
    /// When it does not boot.
    pub fn alpha(&self) -> Result<&Vm> {
        once(&self.alpha, || self.host()?.boot(ALPHA, &self.equip(Guest::qemu().memory(512))?))
    }

    /// A second QEMU guest.
    ///
    /// # Errors
    /// When it does not boot.
    pub fn beta(&self) -> Result<&Vm> {
        once(&self.beta, || self.host()?.boot(BETA, &self.equip(Guest::qemu())?))
    }

    /// A UML guest.
    ///
    /// # Errors
    /// When it does not boot.
    pub fn gamma(&self) -> Result<&Vm> {
        once(&self.gamma, || self.host()?.boot(GAMMA, &self.equip(Guest::uml())?))
    }

    /// A QEMU guest whose servers are being started, and the host that publishes them.
    ///
    /// # Errors
    /// When it does not boot.
    pub fn web(&self) -> Result<(&Host, &Vm)> {
        let (host, vm) = once(&self.web, || {
            let config = HostConfig::new().vm(WEB);
            let config =
                SITES.iter().fold(config, |config, (site, door)| config.publish(WEB, site, door, ""));
            let host = self.lab()?.host(&config)?;
            let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
            let guest = SERVERS.iter().fold(Guest::qemu().memory(1024).with_debian(), |guest, name| {
                guest.file(format!("/web/{name}"), files.join(name))
            });
            let vm = host.boot(WEB, &guest)?;
            vm.run("sh /web/start.sh")?;
            Ok((host, vm))
        })?;
        Ok((host, vm))
    }

    /// Puts the programs of `tests/guest` into a guest.
    ///
    /// # Errors
    /// When they do not build.
    pub fn equip(&self, guest: Guest) -> Result<Guest> {
        let artifacts = self.lab()?.artifacts();
        let programs = ["guest-client", "guest-probe"];
        Ok(programs.iter().fold(guest, |guest, program| {
            guest.file(format!("/usr/bin/{program}"), artifacts.guest(program))
        }))
    }
}

fn once<T>(cell: &OnceLock<Result<T, String>>, start: impl FnOnce() -> Result<T>) -> Result<&T> {
    cell.get_or_init(|| start().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}

/// Runs a statement through psql and returns rows as `a|b` lines.
///
/// # Errors
/// When it fails.
pub fn psql(vm: &Vm, database: &str, sql: &str) -> Result<String> {
    let script = format!("psql {database} -v ON_ERROR_STOP=1 -q -At -c \"{sql}\"");
    Ok(vm.run(&script)?.trim_end().to_owned())
}

/// Runs a statement that must fail, and returns its SQLSTATE.
///
/// # Errors
/// When it succeeds, or psql names no SQLSTATE.
pub fn sqlstate(vm: &Vm, database: &str, sql: &str) -> Result<String> {
    let script = format!("psql {database} -v VERBOSITY=sqlstate -v ON_ERROR_STOP=1 -q -At -c \"{sql}\"");
    let output = vm.attempt(&script)?;
    ensure!(output.status != 0, "{sql} succeeded: {}", output.stdout);
    let line =
        output.stderr.lines().find_map(|line| line.split_once("ERROR:")).map(|(_, state)| state.trim());
    line.map(str::to_owned).with_context(|| format!("no SQLSTATE in {}", output.stderr))
}

/// Two values are the same.
///
/// # Errors
/// When they are not.
pub fn same<T: PartialEq<U> + Display, U: Display>(what: &str, found: T, expected: U) -> Result<()> {
    ensure!(found == expected, "{what}: {found}\nexpected: {expected}");
    Ok(())
}
