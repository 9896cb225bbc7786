//! TLS: who is shown which certificate, what is spoken then, and how certificates change.

mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vamos_http_server::limits::{ConnectionLimits, Limits};
use vamos_http_server::tls::{Certificate, CertificateError, Certificates};
use wire::server::Server;

/// A certificate and its key, both PEM.
struct Issued {
    chain: String,
    key: String,
    der: rustls::pki_types::CertificateDer<'static>,
}

fn issued(names: &[&str], years: (i32, i32)) -> Issued {
    let key = KeyPair::generate().unwrap();
    let mut params =
        CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>()).unwrap();
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    Issued { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
}

fn good(names: &[&str]) -> Issued {
    issued(names, (2000, 2200))
}

impl Issued {
    fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.chain.as_bytes(), self.key.as_bytes(), SystemTime::now()).unwrap()
    }
}

fn client(
    trusted: &[&Issued],
    protocols: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for one in trusted {
        roots.add(one.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

async fn connect(config: ClientConfig, server: &Server, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn serving(certificates: Vec<Certificate>) -> (Arc<Certificates>, Server) {
    let certificates = Arc::new(Certificates::new(certificates).unwrap());
    let server = Server::start(Some(certificates.clone()), Limits::default(), ConnectionLimits::default());
    (certificates, server)
}

/// One request of HTTP/1.1 on a connection that stays open.
async fn ask(stream: &mut TlsStream<TcpStream>, host: &str) -> String {
    stream.write_all(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("GET 0 0") {
        let mut some = [0; 1000];
        let length = stream.read(&mut some).await.unwrap();
        assert!(length > 0, "{answer}");
        answer.push_str(std::str::from_utf8(&some[..length]).unwrap());
    }
    answer
}

#[tokio::test]
async fn each_name_is_shown_its_certificate() {
    let first = good(&["first.example", "127.0.0.1"]);
    let second = good(&["second.example", "*.wild.example"]);
    let both = [&first, &second];
    let (_, server) = serving(vec![first.certificate(), second.certificate()]);
    for (name, expected) in [
        ("first.example", &first),
        ("FIRST.example", &first),
        ("second.example", &second),
        ("a.wild.example", &second),
        // No name is sent with an address.
        ("127.0.0.1", &first),
    ] {
        for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
            let stream = connect(client(&both, &[], versions), &server, name).await.unwrap();
            assert_eq!(shown(&stream), expected.der.to_vec(), "{name}");
            assert_eq!(stream.get_ref().1.protocol_version(), Some(versions[0].version));
        }
    }
    for name in ["third.example", "wild.example", "a.b.wild.example", "example"] {
        let error = connect(client(&both, &[], rustls::ALL_VERSIONS), &server, name).await.unwrap_err();
        let error = error.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
        assert_eq!(*error, rustls::Error::AlertReceived(AlertDescription::UnrecognisedName), "{name}");
    }
}

#[tokio::test]
async fn what_is_spoken_was_agreed_to() {
    let issued = good(&["a.example"]);
    let (_, server) = serving(vec![issued.certificate()]);
    let config = |protocols| client(&[&issued], protocols, rustls::ALL_VERSIONS);
    // HTTP/2, asked for by both.
    let stream = connect(config(&["h2", "http/1.1"]), &server, "a.example").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://a.example/full?3000000").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 3_000_000);
    // HTTP/1.1, and HTTP/1.1 if nothing was agreed to.
    for protocols in [&["http/1.1"][..], &[]] {
        let mut stream = connect(config(protocols), &server, "a.example").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), protocols.first().map(|protocol| protocol.as_bytes()));
        ask(&mut stream, "a.example").await;
    }
    assert_eq!(server.echo.asked.lock().unwrap()[1], "GET https://a.example/x");
    // Nothing that both speak.
    assert!(connect(config(&["spdy/1"]), &server, "a.example").await.is_err());
    // HTTP/2 where HTTP/1.1 was agreed to is not understood.
    let mut stream = connect(config(&["http/1.1"]), &server, "a.example").await.unwrap();
    stream.write_all(wire::PREFACE).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 505");
}

#[test]
fn curl_is_served() {
    let issued = good(&["a.example"]);
    let (_, server) = serving(vec![issued.certificate()]);
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, &issued.chain).unwrap();
    let port = server.address.port();
    let url = format!("https://a.example:{port}/full?100000");
    for (version, said) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let mut curl = std::process::Command::new("curl");
        curl.args([
            "-sS",
            "--max-time",
            "20",
            version,
            "-w",
            "%{http_version} %{size_download} %{num_connects}|",
        ]);
        curl.arg("--cacert").arg(&trusted).arg("--resolve").arg(format!("a.example:{port}:127.0.0.1"));
        let output = curl.args(["-o", "/dev/null", &url, "-o", "/dev/null", &url]).output();
        let output = output.expect("curl is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        let said = format!("{said} 100000 1|{said} 100000 0|");
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{version}: {errors}");
    }
}

#[tokio::test]
async fn certificates_change_while_connections_are_open() {
    let (old, new) = (good(&["a.example", "old.example"]), good(&["a.example", "new.example"]));
    let both = [&old, &new];
    let (certificates, server) = serving(vec![old.certificate()]);
    let config = || client(&both, &[], rustls::ALL_VERSIONS);
    let mut open = connect(config(), &server, "a.example").await.unwrap();
    ask(&mut open, "a.example").await;
    certificates.replace(vec![new.certificate()]).unwrap();
    let later = connect(config(), &server, "a.example").await.unwrap();
    assert_eq!((shown(&open), shown(&later)), (old.der.to_vec(), new.der.to_vec()));
    assert!(connect(config(), &server, "old.example").await.is_err());
    assert!(connect(config(), &server, "new.example").await.is_ok());
    ask(&mut open, "a.example").await;
    certificates.replace(vec![]).unwrap();
    assert!(connect(config(), &server, "a.example").await.is_err());
    assert!(connect(config(), &server, "127.0.0.1").await.is_err());
    ask(&mut open, "a.example").await;
}

#[tokio::test]
async fn sessions_are_resumed() {
    let issued = good(&["a.example"]);
    let (certificates, server) = serving(vec![issued.certificate()]);
    for (version, expected) in [
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
    ] {
        // The clones share what they remember of the server.
        let config = client(&[&issued], &[], &[version]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let mut stream = connect(config.clone(), &server, "a.example").await.unwrap();
            ask(&mut stream, "a.example").await;
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind), "{expected:?}");
            assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
            // A reload is no reason to begin anew.
            certificates.replace(vec![issued.certificate()]).unwrap();
        }
    }
}

#[tokio::test]
async fn challenges_are_for_who_asks_for_them() {
    let (issued, challenge) = (good(&["a.example"]), good(&["a.example", "new.example"]));
    let both = [&issued, &challenge];
    let (certificates, server) = serving(vec![issued.certificate()]);
    let proof = || client(&both, &["acme-tls/1"], rustls::ALL_VERSIONS);
    assert!(connect(proof(), &server, "a.example").await.is_err());
    certificates.replace_challenges(vec![challenge.certificate()]).unwrap();
    for name in ["a.example", "new.example"] {
        let mut stream = connect(proof(), &server, name).await.unwrap();
        assert_eq!(shown(&stream), challenge.der.to_vec());
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"acme-tls/1"[..]));
        // Nothing is spoken on it.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert!(!matches!(stream.read(&mut [0; 10]).await, Ok(1..)));
    }
    let usual = || client(&both, &["h2", "http/1.1"], rustls::ALL_VERSIONS);
    assert_eq!(shown(&connect(usual(), &server, "a.example").await.unwrap()), issued.der.to_vec());
    assert!(connect(usual(), &server, "new.example").await.is_err());
    assert!(server.echo.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn who_does_not_speak_tls_is_let_go() {
    let issued = good(&["a.example"]);
    let certificates = Arc::new(Certificates::new(vec![issued.certificate()]).unwrap());
    let limits = Limits { head_within: Duration::from_millis(300), ..Limits::default() };
    let server = Server::start(Some(certificates), limits, ConnectionLimits::default());
    for said in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], wire::PREFACE, &[22, 3, 1, 0, 200, 1], &[]] {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.starts_with(b"HTTP"));
    }
    assert!(server.echo.asked.lock().unwrap().is_empty());
}

#[test]
fn what_is_wrong_with_a_certificate_is_said() {
    let now = SystemTime::now();
    let (right, other) = (good(&["a.example", "*.B.example", "::1"]), good(&["other"]));
    let read = |chain: &str, key: &str| Certificate::from_pem(chain.as_bytes(), key.as_bytes(), now);
    let certificate = read(&right.chain, &right.key).unwrap();
    assert_eq!(certificate.names(), ["a.example", "*.b.example", "::1"]);
    assert!(certificate.expires() > now);
    let said = |chain: &str, key: &str| read(chain, key).unwrap_err();
    assert!(matches!(said("", &right.key), CertificateError::NoCertificate));
    assert!(matches!(said(&right.key, &right.key), CertificateError::NoCertificate));
    assert!(matches!(said(&right.chain.replace('M', "*"), &right.key), CertificateError::Chain(_)));
    assert!(matches!(said(&right.chain, &right.chain), CertificateError::Key(_)));
    assert!(matches!(said(&right.chain, &other.key), CertificateError::KeyMismatch));
    let nothing = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    assert!(matches!(said(nothing, &right.key), CertificateError::NotX509(_)));
    let expired = issued(&["a.example"], (2000, 2001));
    let error = said(&expired.chain, &expired.key);
    assert_eq!(error.to_string(), "the certificate has expired at Mon, 01 Jan 2001 00:00:00 GMT");
    let later = issued(&["a.example"], (2199, 2200));
    assert!(matches!(said(&later.chain, &later.key), CertificateError::NotYet(_)));
    let nobody = good(&[]);
    assert!(matches!(said(&nobody.chain, &nobody.key), CertificateError::NoNames));
}
