//! TLS: a certificate for each host, chosen by the name that a client says, replaced while connections are open.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::limits::HANDSHAKE_WITHIN;

/// Why a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The chain is not one.
    #[error("the certificate chain cannot be read: {0}")]
    Chain(String),
    /// The key is not one.
    #[error("the key cannot be read: {0}")]
    Key(String),
    /// They are not each other's.
    #[error("the key is not the certificate's, or of a kind that is not known: {0}")]
    Pair(String),
    /// No client would take it.
    #[error("the certificate has no names (no DNS names among its subject alternative names)")]
    Nameless,
    /// Nor this.
    #[error("the certificate of {0} has ended its time")]
    Expired(String),
}

/// Certificates by the names they are for.
#[derive(Default)]
pub struct Certificates {
    named: HashMap<String, Arc<CertifiedKey>>,
    /// By what comes after the first label.
    below: HashMap<String, Arc<CertifiedKey>>,
    /// For clients that name none.
    first: Option<Arc<CertifiedKey>>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("named", &self.named.keys()).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Adds one: its chain, the host's own certificate first, and its key, both PEM. Of two for one name the later holds.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn add(&mut self, chain: &[u8], key: &[u8]) -> Result<(), CertificateError> {
        let (key, names) = pair(chain, key)?;
        for name in names {
            match name.strip_prefix("*.") {
                Some(parent) => self.below.insert(parent.to_owned(), key.clone()),
                None => self.named.insert(name, key.clone()),
            };
        }
        self.first.get_or_insert(key);
        Ok(())
    }

    /// The one for a name; the first for a client that says none.
    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = name else { return self.first.clone() };
        let name = name.to_ascii_lowercase();
        let below = || self.below.get(name.split_once('.')?.1);
        self.named.get(&name).or_else(below).cloned()
    }
}

/// A certificate and its key, and the names it is for.
///
/// # Errors
/// [`CertificateError`].
fn pair(chain: &[u8], key: &[u8]) -> Result<(Arc<CertifiedKey>, Vec<String>), CertificateError> {
    let wrong = |error: &dyn fmt::Display| CertificateError::Chain(error.to_string());
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|e| wrong(&e))?;
    let own = chain.first().ok_or_else(|| wrong(&"there is no certificate in it"))?;
    let (_, parsed) = X509Certificate::from_der(own).map_err(|error| wrong(&error))?;
    let alternatives = parsed.subject_alternative_name().map_err(|error| wrong(&error))?;
    let names: Vec<String> = alternatives
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    let first = names.first().ok_or(CertificateError::Nameless)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    if u64::try_from(parsed.validity().not_after.timestamp()).is_ok_and(|end| end < now) {
        return Err(CertificateError::Expired(first.clone()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| CertificateError::Key(error.to_string()))?;
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|error| CertificateError::Pair(error.to_string()))?;
    Ok((Arc::new(key), names))
}

/// What chooses.
#[derive(Debug, Default)]
struct Chooser(RwLock<Arc<Certificates>>);

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).find(hello.server_name())
    }
}

/// The server's side of TLS.
#[derive(Clone)]
pub struct Tls {
    chooser: Arc<Chooser>,
    acceptor: TlsAcceptor,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chooser.fmt(f)
    }
}

impl Tls {
    /// Without certificates: nobody is served yet. `protocols` are offered by ALPN, the best first.
    ///
    /// # Errors
    /// This build cannot speak TLS.
    pub fn new(protocols: &[&str]) -> Result<Self, rustls::Error> {
        let chooser = Arc::new(Chooser::default());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(chooser.clone());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config.ticketer = ring::Ticketer::new()?;
        Ok(Self { chooser, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Uses these from the next handshake on.
    pub fn replace(&self, certificates: Certificates) {
        *self.chooser.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificates);
    }

    /// The handshake.
    ///
    /// # Errors
    /// It fails, or takes too long.
    pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(&self, io: IO) -> io::Result<TlsStream<IO>> {
        timeout(HANDSHAKE_WITHIN, self.acceptor.accept(io)).await?
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::TlsConnector;

    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Whether a client that trusts `trusted` alone gets through to `name`, and by which protocol.
    async fn reach(tls: &Tls, name: &str, trusted: &str) -> io::Result<Option<Vec<u8>>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (client, server) = duplex(64 << 10);
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let (served, reached) = tokio::join!(tls.accept(server), connector.connect(name, client));
        let (mut served, mut reached) = (served?, reached?);
        reached.write_all(b"hello").await?;
        reached.flush().await?;
        let mut heard = [0; 5];
        served.read_exact(&mut heard).await?;
        assert_eq!(&heard, b"hello");
        Ok(served.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    }

    #[tokio::test]
    async fn each_host_has_its_own_certificate_and_they_can_be_replaced() {
        let (a, b, wild) = (made(&["a.example"]), made(&["b.example"]), made(&["*.c.example"]));
        let tls = Tls::new(&["h2", "http/1.1"]).unwrap();
        assert!(reach(&tls, "a.example", &a.0).await.is_err(), "there is none yet");
        let mut all = Certificates::default();
        for (chain, key) in [&a, &b, &wild] {
            all.add(chain.as_bytes(), key.as_bytes()).unwrap();
        }
        tls.replace(all);
        assert_eq!(reach(&tls, "a.example", &a.0).await.unwrap(), Some(b"h2".to_vec()));
        reach(&tls, "b.example", &b.0).await.unwrap();
        reach(&tls, "x.c.example", &wild.0).await.unwrap();
        assert!(reach(&tls, "a.example", &b.0).await.is_err());
        assert!(reach(&tls, "d.x.c.example", &wild.0).await.is_err(), "a wildcard is for one label");
        let renewed = made(&["a.example"]);
        let mut all = Certificates::default();
        all.add(renewed.0.as_bytes(), renewed.1.as_bytes()).unwrap();
        tls.replace(all);
        reach(&tls, "a.example", &renewed.0).await.unwrap();
        assert!(reach(&tls, "b.example", &b.0).await.is_err());
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said() {
        let (a, b) = (made(&["a.example"]), made(&["b.example"]));
        let add = |chain: &str, key: &str| Certificates::default().add(chain.as_bytes(), key.as_bytes());
        assert_eq!(add(&a.0, &a.1), Ok(()));
        assert!(matches!(add("", &a.1), Err(CertificateError::Chain(_))));
        assert!(matches!(
            add("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &a.1),
            Err(CertificateError::Chain(_))
        ));
        assert!(matches!(add(&a.0, ""), Err(CertificateError::Key(_))));
        assert!(matches!(add(&a.0, &b.1), Err(CertificateError::Pair(_))));
        assert_eq!(add(&made(&[]).0, &a.1), Err(CertificateError::Nameless));
        let key = KeyPair::generate().unwrap();
        let mut old = CertificateParams::new(vec!["old.example".to_owned()]).unwrap();
        (old.not_before, old.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
        let old = old.self_signed(&key).unwrap().pem();
        assert_eq!(add(&old, &key.serialize_pem()), Err(CertificateError::Expired("old.example".into())));
    }
}
