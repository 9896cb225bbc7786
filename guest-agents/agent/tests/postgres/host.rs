//! A guest with one database and an open door; the host behind it is the real service over the real engine.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::task::AbortHandle;
use vamos_agent::databases::{Connect, Databases};
use vamos_agent::postgres::door::{Address, Doors};
use vamos_agent::shutdown::{self, Trigger};
use vamos_proto::hello::Binding;
use vamos_proto::id::{VmId, VsockPort};
use vamos_service::{ByteStream, Service, VmContext};
use vamos_sql_client::{Dialing, Duplex};
use vamos_sql_server::{SqlConfig, SqlService};
use vamos_sqlite::{SqliteConfig, SqliteEngine};

/// Name of the database.
pub const DATABASE: &str = "shop";

/// What links lead to.
struct Cell {
    service: Arc<SqlService<SqliteEngine>>,
    links: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Connect for Cell {
    fn connect(&self, _: VsockPort) -> Dialing<'_> {
        let (near, far) = tokio::io::duplex(256 << 10);
        let vm = Arc::new(VmContext { vm: VmId::new("guest").expect("a name"), generation: 1 });
        let serving = tokio::spawn(Arc::clone(&self.service).serve(ByteStream::new(far), vm));
        self.links.lock().expect("no test panicked").push(serving.abort_handle());
        Box::pin(async { Ok(Box::new(near) as Box<dyn Duplex>) })
    }
}

/// The guest.
pub struct Host {
    pub directory: tempfile::TempDir,
    pub doors: Doors,
    pub trigger: Trigger,
    links: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Host {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let engine =
            SqliteEngine::open(directory.path(), DATABASE, SqliteConfig::default()).expect("an engine");
        let service = Arc::new(SqlService::new(engine, SqlConfig::default()));
        let links = Arc::default();
        let databases = Arc::new(Databases::new(Cell { service, links: Arc::clone(&links) }));
        let binding = |name: &str, kind: &str| Binding {
            name: name.to_owned(),
            kind: kind.to_owned(),
            port: 1024,
            ..Binding::default()
        };
        databases.update(&[binding(DATABASE, "sql"), binding("files", "storage")]);
        let (trigger, shutdown) = shutdown::channel();
        let mut doors = Doors::new(databases, shutdown);
        let unix = Address::Unix(directory.path().join(".s.PGSQL.5432"));
        doors.update(&[unix]).await.expect("the door opens");
        Self { directory, doors, trigger, links }
    }

    /// Where the Unix socket is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Kills every link, as the death of a cell does.
    pub fn kill_links(&self) {
        self.links.lock().expect("no test panicked").drain(..).for_each(|link| link.abort());
    }

    /// An unmodified Rust driver.
    pub async fn driver(&self) -> tokio_postgres::Client {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.path()).user("tester").dbname(DATABASE);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("the driver connects");
        tokio::spawn(connection);
        client
    }

    /// Runs `psql`. Returns whether it succeeded, its output and its errors.
    pub async fn psql(&self, arguments: &[&str], input: &str) -> (bool, String, String) {
        let mut command = Command::new("psql");
        command.arg("-X").arg("-h").arg(self.path()).args(["-U", "tester", "-d", DATABASE]).args(arguments);
        command.env_remove("PGOPTIONS").env("LC_ALL", "C").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("psql is installed");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_owned();
        // psql stops reading at an error if it was told so; the rest is nobody's loss.
        tokio::spawn(async move { stdin.write_all(input.as_bytes()).await.ok() });
        let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await;
        let output = output.expect("psql ends in time").expect("psql runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("psql writes UTF-8");
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// Runs `psql` on a script that must succeed, unaligned and without headers.
    pub async fn rows(&self, script: &str) -> String {
        let (ok, out, error) = self.psql(&["-At", "-v", "ON_ERROR_STOP=1"], script).await;
        assert!(ok && error.is_empty(), "{script}\n{error}\n{out}");
        out
    }
}
