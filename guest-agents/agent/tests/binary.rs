//! The agent's binary, from its command line to its end, as a process guest of a real device.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use vamos_device::{Acceptor, Counters, Device, DeviceConfig, Polling};
use vamos_proto::frame;
use vamos_proto::hello::{Binding, KIND_WELCOME, PROTOCOL, Welcome};
use vamos_proto::id::{GuestCid, VmId, VsockPort};
use vamos_service::{ByteStream, Service, VmContext};
use vamos_sql_server::{SqlConfig, SqlService};
use vamos_sqlite::{SqliteConfig, SqliteEngine};

const SQL: VsockPort = VsockPort(1024);

/// What answers on the device's ports: hello, and one database.
struct Cell {
    service: Arc<SqlService<SqliteEngine>>,
    bound: watch::Receiver<bool>,
}

impl Acceptor for Cell {
    fn accept(&self, port: VsockPort, stream: ByteStream) -> bool {
        let vm = Arc::new(VmContext { vm: VmId::new("guest").expect("a name"), generation: 1 });
        match port {
            VsockPort::HELLO => drop(tokio::spawn(hello(stream, self.bound.clone()))),
            SQL => drop(tokio::spawn(Arc::clone(&self.service).serve(stream, vm))),
            _ => return false,
        }
        true
    }
}

/// Says what is bound, now and whenever it changes.
async fn hello(mut stream: ByteStream, mut bound: watch::Receiver<bool>) {
    let mut asked = [0; 16];
    stream.read_exact(&mut asked).await.expect("a hello");
    loop {
        let shop =
            Binding { name: "shop".to_owned(), kind: "sql".to_owned(), port: SQL.0, ..Binding::default() };
        let bindings = if *bound.borrow_and_update() { vec![shop] } else { Vec::new() };
        let welcome = Welcome { protocol: PROTOCOL, vm: "guest".to_owned(), generation: 1, bindings };
        let mut wire = BytesMut::new();
        frame::encode(&mut wire, 0, 1, KIND_WELCOME, |out| welcome.encode_raw(out));
        if stream.write_all(&wire).await.is_err()
            || stream.flush().await.is_err()
            || bound.changed().await.is_err()
        {
            return;
        }
    }
}

/// A host that gives every front-end on its socket a device of its own.
struct Host {
    directory: tempfile::TempDir,
    bound: watch::Sender<bool>,
    /// Counts the deaths of its cells.
    deaths: watch::Sender<usize>,
    served: Arc<Mutex<usize>>,
}

impl Host {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let engine =
            SqliteEngine::open(directory.path(), "shop", SqliteConfig::default()).expect("an engine");
        let service = Arc::new(SqlService::new(engine, SqlConfig::default()));
        let listener = UnixListener::bind(directory.path().join("vhost.sock")).expect("a socket");
        let (bound, following) = watch::channel(true);
        let (deaths, dying) = watch::channel(0);
        let served = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&served);
        std::thread::spawn(move || {
            for control in listener.incoming() {
                let control = control.expect("a front-end");
                let cell = Arc::new(Cell { service: Arc::clone(&service), bound: following.clone() });
                *counted.lock().expect("no thread panicked") += 1;
                let mut dying = dying.clone();
                dying.borrow_and_update();
                std::thread::spawn(move || {
                    let config = DeviceConfig { cid: GuestCid::FIRST, polling: Polling::Off };
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    let serving = async {
                        let device = Device::new(control, config, cell, Arc::new(Counters::default()));
                        tokio::select! {
                            ended = device.expect("a device").run() => ended.expect("the device serves to its end"),
                            _ = dying.changed() => {}
                        }
                    };
                    runtime.expect("a runtime").block_on(serving);
                });
            }
        });
        Self { directory, bound, deaths, served }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn socket(&self) -> PathBuf {
        self.path().join("doors/.s.PGSQL.5432")
    }

    fn agent(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vamos-agent"));
        command.arg("--channel").arg(format!("process:{}", self.path().join("vhost.sock").display()));
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// A running agent, its doors open.
    async fn run(&self) -> Child {
        let doors = self.path().join("doors");
        let doors = doors.to_str().expect("a path of text");
        let mut child =
            self.agent(&["run", "--no-tcp", "--socket-dir", doors]).spawn().expect("the agent starts");
        let mut lines = BufReader::new(child.stdout.as_mut().expect("a pipe")).lines();
        let ready = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.expect("in time");
        assert_eq!(ready.expect("a line").as_deref(), Some("vamos-agent: ready"));
        child
    }

    async fn psql(&self, sql: &str) -> String {
        let mut command = Command::new("psql");
        command
            .arg("-X")
            .arg("-h")
            .arg(self.path().join("doors"))
            .args(["-U", "me", "-d", "shop", "-Atc", sql]);
        let output = tokio::time::timeout(Duration::from_secs(20), command.kill_on_drop(true).output()).await;
        let output = output.expect("in time").expect("psql is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }
}

/// Runs a command to its end: whether it succeeded, its output, its errors.
async fn outcome(mut command: Command, input: &str) -> (bool, String, String) {
    let mut child = command.spawn().expect("the agent starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).await.expect("it reads");
    let output = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await;
    let output = output.expect("in time").expect("an end");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("waited in vain until {what}");
}

#[tokio::test]
async fn it_serves_until_it_is_told_to_end() {
    let host = Host::start();
    let mut agent = host.run().await;
    assert_eq!(
        host.psql("CREATE TABLE t(x INTEGER); INSERT INTO t VALUES (1), (2); SELECT sum(x) FROM t").await,
        "CREATE TABLE\nINSERT 0 2\n3\n"
    );
    // Bindings come and go, and their doors with them.
    host.bound.send_replace(false);
    until("the door is closed", || !host.socket().exists()).await;
    host.bound.send_replace(true);
    until("the door is open", || host.socket().exists()).await;
    assert_eq!(host.psql("SELECT count(*) FROM t").await, "2\n");
    let pid = Pid::from_raw(agent.id().expect("it runs") as i32).expect("a process id");
    kill_process(pid, Signal::TERM).expect("a signal");
    let ended =
        tokio::time::timeout(Duration::from_secs(10), agent.wait()).await.expect("in time").expect("an end");
    assert!(ended.success(), "{ended}");
    assert!(!host.socket().exists(), "the socket outlived the agent");
    assert_eq!(*host.served.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_host_that_comes_back_is_found_again() {
    let host = Host::start();
    let _agent = host.run().await;
    let mut config = tokio_postgres::Config::new();
    config.host_path(host.path().join("doors")).user("me").dbname("shop");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE t(x INTEGER); INSERT INTO t VALUES (1)").await.unwrap();
    host.deaths.send_modify(|deaths| *deaths += 1);
    // The connection goes on, and does not notice.
    let counted = client.query_one("SELECT count(*) FROM t", &[]);
    let counted = tokio::time::timeout(Duration::from_secs(10), counted).await.expect("in time").unwrap();
    assert_eq!(counted.get::<_, i64>(0), 1);
    until("the agent has attached again", || *host.served.lock().unwrap() == 2).await;
    assert_eq!(host.psql("SELECT count(*) FROM t").await, "1\n");
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
    let host = Host::start();
    let mut agent = host.run().await;
    let doors = host.path().join("doors");
    let doors = doors.to_str().unwrap();
    let (ok, _, error) = outcome(host.agent(&["run", "--no-tcp", "--socket-dir", doors]), "").await;
    assert!(!ok && error.contains("another server answers"), "{error}");
    assert_eq!(host.psql("SELECT 1").await, "1\n");
    agent.kill().await.unwrap();
    assert!(host.socket().exists());
    let _agent = host.run().await;
    assert_eq!(host.psql("SELECT 1").await, "1\n");
}

#[tokio::test]
async fn statements_go_straight_to_the_host() {
    let host = Host::start();
    let sql = |statements: &'static str| outcome(host.agent(&["sql", "shop", statements]), "");
    let (ok, out, error) =
        sql("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t(name) VALUES ('a'), ('bb')")
            .await;
    assert!(ok, "{error}");
    assert_eq!(out, "CREATE\nINSERT: 2 rows\n");
    let (_, out, _) = sql("SELECT * FROM t").await;
    assert_eq!(out, " id | name\n----+------\n  1 | a\n  2 | bb\n(2 rows)\n");
    let (ok, _, error) = sql("SELECT * FROM nowhere").await;
    assert!(!ok && error.contains("nowhere") && error.contains("42P01"), "{error}");
    let (ok, out, error) =
        outcome(host.agent(&["shell", "shop"]), "SELECT count(*) FROM t;\nSELECT 'x;y';\n").await;
    assert!(ok && out.contains("(1 row)") && out.contains("x;y"), "{out}{error}");
    let (ok, _, error) = outcome(host.agent(&["shell", "nowhere"]), "").await;
    assert!(!ok && error.contains("the databases of this machine: shop"), "{error}");
    let (ok, out, _) = outcome(host.agent(&["bindings"]), "").await;
    assert!(ok);
    assert_eq!(out, "VM guest, generation 1\nshop\tsql\tport 1024\n");
}

#[tokio::test]
async fn a_host_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vamos-agent"));
    command.args(["--channel", &format!("process:{}/nothing", directory.path().display()), "bindings"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (ok, _, error) = outcome(command, "").await;
    assert!(!ok && error.contains("reach the host") && error.contains("nothing"), "{error}");
}
