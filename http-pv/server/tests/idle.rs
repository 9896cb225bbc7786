//! What a connection costs while nothing happens on it. The clients are a process of their own: this test, again.

mod wire;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use vamos_http_server::limits::{ConnectionLimits, Limits};
use vamos_http_server::tls::{Certificate, Certificates};
use wire::server::Server;
use wire::{END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, block, frame};

/// Where the clients connect, and what they speak: `ADDRESS VERSION COUNT [CERTIFICATE]`.
const CLIENTS: &str = "VAMOS_TEST_IDLE_CLIENTS";

/// What is measured, in a process that has done nothing else: `VERSION COUNT TLS`.
const MEASURED: &str = "VAMOS_TEST_IDLE_MEASURED";

/// This test as another process, which finds `value` under `name`.
fn again(name: &str, value: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "h60_an_idle_connection_costs_little", "--nocapture"])
        .env(name, value)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Raises the limit of descriptors as far as it goes; how many there are then.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    limit.maximum.map_or(1 << 20, |limit| limit as usize)
}

/// What of this process is in memory, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// One request, after which the connection stays open.
fn ask(io: &mut (impl Read + Write), version: &str) {
    if version == "2" {
        let fields = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a")]);
        let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields);
        io.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, 1, 0, &[]), &request].concat())
    } else {
        io.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    }
    .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"GET 0 0") {
        let mut some = [0; 1000];
        let length = io.read(&mut some).unwrap();
        assert!(length > 0);
        answer.extend(&some[..length]);
    }
}

/// Connects as it is told, says so, and goes when its input ends.
fn clients(told: &str) {
    descriptors();
    let told: Vec<&str> = told.splitn(4, ' ').collect();
    let (address, count): (SocketAddr, usize) = (told[0].parse().unwrap(), told[2].parse().unwrap());
    let connect = || TcpStream::connect(address).unwrap();
    let mut plain = Vec::new();
    let mut secure = Vec::new();
    if let Some(certificate) = told.get(3) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        for _ in 0..count {
            let name = ServerName::try_from("a.example").unwrap();
            let tls = ClientConnection::new(config.clone(), name).unwrap();
            let mut stream = StreamOwned::new(tls, connect());
            ask(&mut stream, told[1]);
            secure.push(stream);
        }
    } else {
        for _ in 0..count {
            let mut stream = connect();
            ask(&mut stream, told[1]);
            plain.push(stream);
        }
    }
    println!("connected");
    let _ = std::io::stdin().read_to_string(&mut String::new());
}

/// What each of `count` idle connections costs, bytes.
fn cost(version: &str, count: usize, tls: bool) -> usize {
    let mut certificate = None;
    let certificates = tls.then(|| {
        let issued = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let chain = certificate.insert(issued.cert.pem());
        let key = issued.signing_key.serialize_pem();
        let read = Certificate::from_pem(chain.as_bytes(), key.as_bytes(), SystemTime::now()).unwrap();
        Arc::new(Certificates::new(vec![read]).unwrap())
    });
    let most = ConnectionLimits { open_max: count + 1, of_client_max: count + 1 };
    let server = Server::start(certificates, Limits::default(), most);
    let before = resident();
    let told = format!("{} {version} {count} {}", server.address, certificate.unwrap_or_default());
    let mut process = again(CLIENTS, told.trim_end());
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("connected")), "the clients are there");
    assert_eq!(server.connections.counts().open, count);
    let grown = resident().saturating_sub(before);
    drop(process.stdin.take());
    lines.for_each(drop);
    process.wait().unwrap();
    grown / count
}

/// The same, in a process of its own.
fn measured(version: &str, count: usize, tls: bool) -> usize {
    let process = again(MEASURED, &format!("{version} {count} {tls}")).wait_with_output().unwrap();
    let output = String::from_utf8_lossy(&process.stdout);
    let cost = output.lines().find_map(|line| line.split_once("each costs ").map(|(_, cost)| cost));
    let cost = cost.unwrap_or_else(|| panic!("no cost: {output}")).parse().unwrap();
    println!("{count} idle connections of HTTP/{version}, TLS {tls}: {cost} bytes each");
    cost
}

#[test]
fn h60_an_idle_connection_costs_little() {
    if let Ok(told) = std::env::var(CLIENTS) {
        return clients(&told);
    }
    let count = (descriptors() - 200).min(10_000);
    if let Ok(told) = std::env::var(MEASURED) {
        let told: Vec<&str> = told.split(' ').collect();
        let cost = cost(told[0], told[1].parse().unwrap(), told[2] == "true");
        return println!("each costs {cost}");
    }
    assert!(count >= 800, "too few descriptors to tell");
    // 10,000 in 200 MiB.
    assert!(measured("1.1", count, false) * 10_000 <= 200 << 20);
    assert!(measured("1.1", count / 5, true) * 10_000 <= 200 << 20);
    // The `h2` crate keeps a buffer of 8 KiB for what comes and one of 16 KiB for what goes.
    assert!(measured("2", count / 5, false) * 10_000 <= 320 << 20);
}
