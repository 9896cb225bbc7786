//! A PostgreSQL server of our own, for comparison: installed binaries, a private directory, a Unix
//! socket and nothing else.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, getuid, kill_process};
use tokio_postgres::NoTls;

use vamos_bench::limits::POSTGRES_START_MAX;

/// A running server.
pub struct Postgres {
    directory: PathBuf,
    server: Child,
    /// Its version, as the binary says it.
    pub version: String,
}

impl Postgres {
    /// Starts a server in `directory`; `None` if PostgreSQL is not installed.
    ///
    /// # Errors
    /// If it is installed and does not start.
    pub async fn start(directory: &Path) -> anyhow::Result<Option<Self>> {
        let Some(binaries) = newest_installed() else { return Ok(None) };
        std::fs::create_dir_all(directory).context("make a directory for PostgreSQL")?;
        let user = ServerUser::choose()?;
        user.own(directory)?;
        let data = directory.join("data");
        let output = user
            .command(&binaries.join("initdb"))
            .args([
                "--username=bench",
                "--auth=trust",
                "--no-sync",
                "--encoding=UTF8",
                "--no-locale",
                "--pgdata",
            ])
            .arg(&data)
            .current_dir(directory)
            .output()
            .context("run initdb")?;
        if !output.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let log = std::fs::File::create(directory.join("postgres.log")).context("make PostgreSQL's log")?;
        let server = user
            .command(&binaries.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(directory)
            .args(["-c", "listen_addresses=", "-c", "autovacuum=off", "-c", "max_connections=100"])
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start postgres")?;
        let version = Command::new(binaries.join("postgres"))
            .arg("--version")
            .output()
            .context("ask postgres its version")?;
        let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        let started = Self { directory: directory.to_owned(), server, version };
        let deadline = Instant::now() + POSTGRES_START_MAX;
        while let Err(error) = started.connect().await {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(directory.join("postgres.log")).unwrap_or_default();
                return Err(error.context(format!("wait for PostgreSQL; its log: {log}")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Some(started))
    }

    /// A connection; its driver runs as a task of the current runtime.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn connect(&self) -> anyhow::Result<tokio_postgres::Client> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.directory).user("bench").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await.context("connect to PostgreSQL")?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown: it ends its own children.
        if let Some(pid) = Pid::from_raw(self.server.id() as i32) {
            let _ = kill_process(pid, Signal::INT);
        }
        let _ = self.server.wait();
    }
}

/// Whose rights the server runs with: PostgreSQL refuses to run as root.
struct ServerUser {
    ids: Option<(u32, u32)>,
}

impl ServerUser {
    fn choose() -> anyhow::Result<Self> {
        if !getuid().is_root() {
            return Ok(Self { ids: None });
        }
        let users = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        let ids = |name: &str| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2).map(str::parse::<u32>);
            Some((fields.next()?.ok()?, fields.next()?.ok()?))
        };
        let ids = ids("postgres").or_else(|| ids("nobody")).context("find a user for PostgreSQL")?;
        Ok(Self { ids: Some(ids) })
    }

    fn own(&self, directory: &Path) -> anyhow::Result<()> {
        let Some((uid, gid)) = self.ids else { return Ok(()) };
        std::os::unix::fs::chown(directory, Some(uid), Some(gid)).context("give PostgreSQL its directory")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// Folder of the newest installed server's binaries.
fn newest_installed() -> Option<PathBuf> {
    let version = |path: &PathBuf| path.parent()?.file_name()?.to_str()?.parse::<f32>().ok();
    let installed =
        std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
    installed
        .filter(|bin| bin.join("initdb").exists())
        .max_by(|a, b| version(a).partial_cmp(&version(b)).unwrap_or(std::cmp::Ordering::Equal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_server_of_our_own_answers_and_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("open it");
        let server =
            Postgres::start(&directory.path().join("postgres")).await.expect("a server, or none installed");
        let Some(server) = server else { return };
        let client = server.connect().await.expect("a connection");
        let row = client.query_one("SELECT 6 * 7", &[]).await.expect("an answer");
        assert_eq!(row.get::<_, i32>(0), 42);
        let process = PathBuf::from(format!("/proc/{}", server.server.id()));
        assert!(process.exists());
        drop(server);
        assert!(!process.exists());
    }
}
