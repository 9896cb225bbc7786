//! A platform whose VM `web` publishes a server of this process.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONNECTION, ETAG, HeaderValue, RANGE, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};
use vamos_agent::run::{RunConfig, run};
use vamos_host::config::Config;
use vamos_link::ProcessGuest;
use vamos_proto::control::edge_client::EdgeClient;
use vamos_proto::control::vms_client::VmsClient;
use vamos_proto::control::{EdgeStats, EdgeStatsRequest, GetVmRequest, StatsRequest};
use vamos_proto::edge::{Stats, TargetStats};

/// Longest anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Content of the server's `/big`, bytes.
pub const BIG: usize = 8 << 20;

const CONFIGURATION: &str = "VAMOS_TEST_CONFIGURATION";

/// Not a test: the vamosd that [`Web`] starts.
#[test]
fn vamosd() {
    let Some(path) = std::env::var_os(CONFIGURATION) else { return };
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let config = Config::load(&PathBuf::from(path)).unwrap();
    if std::env::var_os(vamos_host::daemon::CHECK).is_none() {
        vamos_host::daemon::run(config).unwrap();
    }
}

/// A running platform, its guest and the server in it.
pub struct Web {
    pub server: Server,
    vamosd: Child,
    control: Channel,
    agent: tokio::task::JoinHandle<()>,
    directory: tempfile::TempDir,
}

impl Web {
    /// With a guest that has opened its streams.
    pub async fn start() -> Self {
        assert!(rustix::process::geteuid().is_root(), "cells are started by root; run these tests as root");
        let server = Server::start().await;
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = directory.path().display();
        let text = format!(
            "state_dir = '{root}/state'\nrun_dir = '{root}/run'\ncell_binary = '{}'\n\
             [edge]\nbinary = '{}'\nlisten = '127.0.0.1:0'\nlisten_tls = '127.0.0.1:0'\nworkers = 2\n\
             [[service]]\nname = 'site'\nkind = 'http'\n[[vm]]\nname = 'web'\n\
             [[binding]]\nvm = 'web'\nservice = 'site'\n[binding.door]\nupstream = 'http://{}'\n\
             [[route]]\nto = 'web/site'\n\
             [[vm]]\nname = 'evil'\n[[binding]]\nvm = 'evil'\nservice = 'site'\n\
             [[route]]\nhost = 'evil.example'\nto = 'evil/site'\n",
            env!("CARGO_BIN_EXE_web-cell"),
            env!("CARGO_BIN_EXE_web-edge"),
            server.address,
        );
        fs::write(directory.path().join("vamos.toml"), text).unwrap();
        let vamosd = vamosd_in(&directory);
        let socket = directory.path().join("run/vms/web/vhost.sock");
        let channel = format!("process:{}", socket.display()).parse().unwrap();
        let socket_dir = directory.path().join("doors");
        let agent = tokio::spawn(async move {
            run(RunConfig { channel, socket_dir, tcp: false }).await.unwrap();
        });
        let control = control_of(&directory);
        let web = Self { server, vamosd, control, agent, directory };
        web.until_published().await;
        web
    }

    /// Kills vamosd, and starts another.
    pub fn restart(&mut self) {
        self.vamosd.kill().unwrap();
        self.vamosd.wait().unwrap();
        self.vamosd = vamosd_in(&self.directory);
        self.control = control_of(&self.directory);
    }

    async fn until_published(&self) {
        let end = Instant::now() + PATIENCE;
        while self.target("web").await.streams == 0 {
            assert!(Instant::now() < end, "the guest does not open its streams");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What is counted of a VM.
    pub async fn target(&self, vm: &str) -> TargetStats {
        self.stats().await.targets.into_iter().find(|target| target.vm == vm).unwrap_or_default()
    }

    /// The way to the host of a guest that is the test itself.
    pub async fn attach(&self, vm: &str) -> vamos_link::Channel {
        let socket = self.path("run/vms").join(vm).join("vhost.sock");
        vamos_link::Channel::Process(ProcessGuest::attach(&socket).await.unwrap())
    }

    /// The control plane of the edge.
    pub fn control(&self) -> EdgeClient<Channel> {
        EdgeClient::new(self.control.clone())
    }

    pub async fn status(&self) -> EdgeStats {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.control().stats(EdgeStatsRequest {}).await {
                Ok(status) => return status.into_inner(),
                // Between two edges.
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn stats(&self) -> Stats {
        self.status().await.stats.unwrap()
    }

    /// Where the edge listens: without TLS, with it.
    pub async fn listeners(&self) -> Vec<SocketAddr> {
        self.status().await.listeners.iter().map(|address| address.parse().unwrap()).collect()
    }

    pub async fn client(&self) -> Client {
        Client { address: self.listeners().await[0] }
    }

    pub async fn cell_pid(&self) -> u32 {
        let end = Instant::now() + PATIENCE;
        loop {
            let request = GetVmRequest { name: "web".into() };
            let vm = VmsClient::new(self.control.clone()).get(request).await.unwrap().into_inner();
            if vm.cell_pid != 0 {
                return vm.cell_pid;
            }
            assert!(Instant::now() < end, "there is no cell");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Notifications between the guest and the host, both ways, so far.
    pub async fn transitions(&self) -> u64 {
        let request = StatsRequest { name: "web".into(), interval_ms: 0 };
        let mut stats = VmsClient::new(self.control.clone()).stats(request).await.unwrap().into_inner();
        let counters = stats.message().await.unwrap().unwrap().counters.unwrap();
        counters.kicks_received + counters.calls_sent
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.agent.abort();
        let pid = Pid::from_raw(self.vamosd.id() as i32).unwrap();
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.vamosd.wait();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.path("log")).unwrap_or_default());
        }
    }
}

/// Ends a process of the platform.
pub fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

/// Starts vamosd, and waits until it is ready.
fn vamosd_in(directory: &tempfile::TempDir) -> Child {
    let log = File::options().create(true).append(true).open(directory.path().join("log")).unwrap();
    let mut vamosd = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "support::vamosd", "--nocapture", "--test-threads=1"])
        .env(CONFIGURATION, directory.path().join("vamos.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(vamosd.stdout.take().unwrap()).lines();
    let ready = lines.any(|line| line.unwrap().contains("vamosd: ready"));
    assert!(ready, "{}", fs::read_to_string(directory.path().join("log")).unwrap_or_default());
    // Its other lines go nowhere, but must not fail.
    std::thread::spawn(move || lines.count());
    vamosd
}

fn control_of(directory: &tempfile::TempDir) -> Channel {
    let socket = directory.path().join("run/control.sock");
    let connect = move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    };
    Endpoint::from_static("http://vamosd").connect_with_connector_lazy(tower::service_fn(connect))
}

/// A client of the edge that makes a connection for each request.
#[derive(Clone, Copy)]
pub struct Client {
    pub address: SocketAddr,
}

impl Client {
    pub async fn send(&self, request: Request<String>) -> hyper::Result<Response<Incoming>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await
    }

    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header("host", "example.org").body(String::new()).unwrap();
        let response = self.send(request).await.unwrap();
        let status = response.status();
        (status, text(response).await)
    }
}

pub async fn text(response: Response<Incoming>) -> String {
    String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned()
}

/// The guest's server.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    /// How often it was asked.
    pub asked: Arc<AtomicUsize>,
}

type Answer = Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible>;

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let serving = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = serving.clone();
                let service = service_fn(move |request| server.clone().answer(request));
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
            }
        });
        server
    }

    async fn answer(self, request: Request<Incoming>) -> Answer {
        let number = self.asked.fetch_add(1, Relaxed) + 1;
        let whole = |content: String| Response::new(Full::new(Bytes::from(content)).boxed_unsync());
        match request.uri().path() {
            "/" => Ok(whole("hello".to_owned())),
            "/count" => Ok(whole(number.to_string())),
            "/cached" => {
                let mut response = whole(number.to_string());
                let fields = response.headers_mut();
                fields.insert("cache-control", HeaderValue::from_static("max-age=600"));
                fields.insert("cache-tag", HeaderValue::from_static("pages, all"));
                Ok(response)
            }
            "/about" => {
                let mut said = format!("{} {}", request.method(), request.uri());
                for (name, value) in request.headers() {
                    said += &format!("\n{name}: {}", value.to_str().unwrap());
                }
                Ok(whole(said))
            }
            "/echo" => {
                let content = request.into_body().collect().await.unwrap().to_bytes();
                Ok(Response::new(Full::new(content).boxed_unsync()))
            }
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(500)).await;
                Ok(whole(number.to_string()))
            }
            "/big" => Ok(big(&request)),
            "/chat" => Ok(chat(request)),
            "/object" => {
                let name = request.uri().query().unwrap_or_default().to_owned();
                let mut response = whole("in its place".to_owned());
                response.headers_mut().insert("vamos-object", HeaderValue::try_from(name).unwrap());
                response.headers_mut().insert("content-type", HeaderValue::from_static("image/png"));
                Ok(response)
            }
            _ => {
                let mut response = whole("nothing here".to_owned());
                *response.status_mut() = StatusCode::NOT_FOUND;
                Ok(response)
            }
        }
    }
}

/// What byte `at` of the server's `/big` is.
pub fn byte(at: usize) -> u8 {
    (at / 7) as u8
}

/// Slowly, so that something can happen meanwhile; by a range if one is asked for.
fn big(request: &Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let range = request.headers().get(RANGE).and_then(|range| range.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let begin: usize = first.unwrap_or(0);
    let pieces = futures::stream::iter((begin..BIG).step_by(64 << 10)).then(|at| async move {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let piece: Vec<u8> = (at..(at + (64 << 10)).min(BIG)).map(byte).collect();
        Ok(Frame::data(Bytes::from(piece)))
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(pieces.boxed())));
    let fields = response.headers_mut();
    fields.insert(ETAG, HeaderValue::from_static("\"big\""));
    fields.insert("content-length", HeaderValue::from(BIG - begin));
    if first.is_some() {
        let range = format!("bytes {begin}-{}/{BIG}", BIG - 1);
        fields.insert("content-range", HeaderValue::try_from(range).unwrap());
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// A stream that answers in capitals.
fn chat(mut request: Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed_unsync());
    if *request.method() != Method::GET || !request.headers().contains_key(UPGRADE) {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut heard = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut heard).await {
            let said = heard[..count].to_ascii_uppercase();
            if stream.write_all(&said).await.is_err() {
                return;
            }
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}
