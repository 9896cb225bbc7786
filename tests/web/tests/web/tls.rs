//! TLS at the edge: certificates by host, replaced while connections are open.

use std::sync::Arc;

use http::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vamos_proto::control::SetCertificateRequest;

use crate::support::{Web, text};

fn made(name: &str) -> (SetCertificateRequest, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let row = SetCertificateRequest {
        name: name.to_owned(),
        chain: certificate.pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
    };
    (row, certificate.der().to_vec())
}

/// TLS with the edge, by one of these protocols.
async fn secure(
    web: &Web,
    name: &'static str,
    trusted: &[u8],
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(web.listeners().await[1]).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), stream).await
}

type Sender = hyper::client::conn::http1::SendRequest<String>;

async fn connect(web: &Web, name: &'static str, trusted: &[u8]) -> std::io::Result<Sender> {
    let stream = secure(web, name, trusted, &[]).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    Ok(sender)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_chosen_by_name_and_replaced_without_a_loss() {
    let mut web = Web::start().await;
    let (first, first_der) = made("a.example");
    assert!(connect(&web, "a.example", &first_der).await.is_err(), "there is no certificate yet");
    web.control().set_certificate(first.clone()).await.unwrap();
    let mut open = connect(&web, "a.example", &first_der).await.unwrap();
    let request = |path: &str| Request::get(path).header("host", "a.example").body(String::new()).unwrap();
    let said = text(open.send_request(request("/about")).await.unwrap()).await;
    assert!(said.contains("x-forwarded-proto: https"), "{said}");
    let (second, second_der) = made("a.example");
    let wrong = SetCertificateRequest { key: second.key.clone(), ..first };
    let refused = web.control().set_certificate(wrong).await.unwrap_err();
    assert!(refused.to_string().contains("the key does not belong to the first certificate"), "{refused}");
    web.control().set_certificate(second).await.unwrap();
    assert!(connect(&web, "a.example", &first_der).await.is_err());
    connect(&web, "a.example", &second_der).await.unwrap();
    assert_eq!(open.send_request(request("/")).await.unwrap().status(), StatusCode::OK, "it is still open");
    web.restart();
    connect(&web, "a.example", &second_der).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_share_a_connection_of_http2() {
    let web = Web::start().await;
    let (certificate, der) = made("a.example");
    web.control().set_certificate(certificate).await.unwrap();
    let stream = secure(&web, "a.example", &der, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let all = (0..50).map(|_| {
        let mut sender = sender.clone();
        async move {
            let request = Request::get("https://a.example/about").body(String::new()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.version(), http::Version::HTTP_2);
            text(response).await
        }
    });
    for said in futures::future::join_all(all).await {
        assert!(said.contains("x-forwarded-proto: https") && said.contains("host: a.example"), "{said}");
    }
    assert_eq!(web.stats().await.connections_open, 1);
}
