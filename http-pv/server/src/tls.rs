//! TLS 1.2 and 1.3: which certificate a client is shown, and how that changes while connections are open.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{Acceptor, NoServerSessionStorage, ProducesTickets, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, server::ClientHello};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The protocol in which a name is proved to be ours (RFC 8737).
const ACME_TLS: &[u8] = b"acme-tls/1";

/// A fatal alert, `unrecognized_name`, as a record (RFC 8446, sections 5.1 and 6; RFC 6066, section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// What is wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The chain cannot be read.
    #[error("the chain is not PEM: {0}")]
    Chain(#[source] pem::Error),
    /// Nothing between `BEGIN CERTIFICATE` and `END CERTIFICATE`.
    #[error("there is no certificate in the chain")]
    NoCertificate,
    /// The key cannot be read.
    #[error("the key is not a private key in PEM (PKCS #8, PKCS #1 or SEC1): {0}")]
    Key(#[source] pem::Error),
    /// What is in the PEM is no certificate.
    #[error("the first certificate of the chain is not of X.509: {0}")]
    NotX509(String),
    /// A key, but of a kind that we do not have.
    #[error("the key is of no use for TLS: {0}")]
    Unusable(#[source] rustls::Error),
    /// The key of another certificate.
    #[error("the key does not belong to the first certificate of the chain")]
    KeyMismatch,
    /// It was good once.
    #[error("the certificate has expired at {}", httpdate::fmt_http_date(*.0))]
    Expired(SystemTime),
    /// It will be good.
    #[error("the certificate is not valid before {}", httpdate::fmt_http_date(*.0))]
    NotYet(SystemTime),
    /// Nobody can be shown it.
    #[error("the certificate has no name: no DNS name and no address among its subject alternative names")]
    NoNames,
}

/// A chain of certificates with its key, and for whom it is.
#[derive(Debug)]
pub struct Certificate {
    names: Vec<String>,
    expires: SystemTime,
    key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Reads a chain, its own certificate first, and its key, both PEM, and checks them as of `now`.
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong.
    pub fn from_pem(chain: &[u8], key: &[u8], now: SystemTime) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(CertificateError::Chain)?;
        let own = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (_, parsed) =
            X509Certificate::from_der(own).map_err(|error| CertificateError::NotX509(error.to_string()))?;
        let at = |seconds: i64| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        };
        let begins = at(parsed.validity().not_before.timestamp());
        let expires = at(parsed.validity().not_after.timestamp());
        let alternatives = parsed
            .subject_alternative_name()
            .map_err(|error| CertificateError::NotX509(error.to_string()))?
            .map_or(&[][..], |names| &names.value.general_names[..]);
        let names: Vec<String> = alternatives.iter().filter_map(named).collect();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::Key)?;
        let key = match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
            Ok(key) => key,
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(CertificateError::KeyMismatch);
            }
            Err(error) => return Err(CertificateError::Unusable(error)),
        };
        if names.is_empty() {
            return Err(CertificateError::NoNames);
        }
        if now > expires {
            return Err(CertificateError::Expired(expires));
        }
        if now < begins {
            return Err(CertificateError::NotYet(begins));
        }
        Ok(Self { names, expires, key: Arc::new(key) })
    }

    /// For whom it is: DNS names, the first label of which may be `*`, and addresses.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Until when it is good.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }
}

fn named(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from))
                .ok()
                .map(|address| address.to_string())
        }
        _ => None,
    }
}

/// Why there is no TLS on a connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The client was too slow.
    #[error("the handshake took too long")]
    Late,
    /// It asked for somebody else.
    #[error("no certificate is for {0:?}")]
    UnknownName(String),
    /// There is not a single certificate.
    #[error("there is no certificate")]
    NoCertificate,
    /// It broke off, or what came is not TLS.
    #[error("the handshake failed: {0}")]
    Handshake(#[source] io::Error),
}

/// The certificates of a server. All of them can be replaced at once: connections that are open keep theirs.
#[derive(Debug)]
pub struct Certificates {
    provider: Arc<CryptoProvider>,
    /// Lets clients resume a session, also one from before the certificates were replaced.
    tickets: Arc<dyn ProducesTickets>,
    set: RwLock<Arc<Set>>,
    challenges: RwLock<Arc<Set>>,
}

/// By name; a certificate is what is needed to show it.
#[derive(Debug, Default)]
struct Set {
    first: Option<Arc<ServerConfig>>,
    exact: HashMap<String, Arc<ServerConfig>>,
    /// By what follows `*.`.
    wild: HashMap<String, Arc<ServerConfig>>,
}

impl Set {
    /// The certificate for a name in lower case.
    fn of(&self, name: &str) -> Option<&Arc<ServerConfig>> {
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wild.get(parent));
        self.exact.get(name).or_else(parent)
    }
}

impl Certificates {
    /// Of two certificates that have a name in common the one that comes first is shown. The first of all is for clients
    /// that name nobody.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(certificates: Vec<Certificate>) -> Result<Self, rustls::Error> {
        let new = Self {
            provider: Arc::new(ring::default_provider()),
            tickets: ring::Ticketer::new()?,
            set: RwLock::default(),
            challenges: RwLock::default(),
        };
        new.replace(certificates)?;
        Ok(new)
    }

    /// From now on these are shown, and no others.
    ///
    /// # Errors
    /// Not with a [`Certificate`] that could be read.
    pub fn replace(&self, certificates: Vec<Certificate>) -> Result<(), rustls::Error> {
        let set = Arc::new(self.build(certificates, &[b"h2", b"http/1.1"])?);
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = set;
        Ok(())
    }

    /// From now on these are shown to whoever proves a name of ours (`acme-tls/1`), and to nobody else.
    ///
    /// # Errors
    /// Not with a [`Certificate`] that could be read.
    pub fn replace_challenges(&self, certificates: Vec<Certificate>) -> Result<(), rustls::Error> {
        let set = Arc::new(self.build(certificates, &[ACME_TLS])?);
        *self.challenges.write().unwrap_or_else(PoisonError::into_inner) = set;
        Ok(())
    }

    fn build(&self, certificates: Vec<Certificate>, protocols: &[&[u8]]) -> Result<Set, rustls::Error> {
        let mut set = Set::default();
        for Certificate { names, key, .. } in certificates {
            let mut config = ServerConfig::builder_with_provider(self.provider.clone())
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            config.ticketer = self.tickets.clone();
            // What a session needs to go on is in the client's ticket.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            let config = Arc::new(config);
            set.first.get_or_insert_with(|| config.clone());
            for name in names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut set.wild, parent.to_owned()),
                    None => (&mut set.exact, name),
                };
                names.entry(name).or_insert_with(|| config.clone());
            }
        }
        Ok(set)
    }

    fn choose(&self, hello: &ClientHello<'_>) -> Result<Arc<ServerConfig>, TlsError> {
        let proves = hello.alpn().is_some_and(|protocols| protocols.into_iter().eq([ACME_TLS]));
        let set = if proves { &self.challenges } else { &self.set };
        let set = set.read().unwrap_or_else(PoisonError::into_inner).clone();
        match hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase()) {
            Some(name) => set.of(&name).cloned().ok_or(TlsError::UnknownName(name)),
            None if proves => Err(TlsError::UnknownName(String::new())),
            None => set.first.clone().ok_or(TlsError::NoCertificate),
        }
    }

    /// Begins TLS on a connection, within a time.
    ///
    /// # Errors
    /// [`TlsError`]; the client has been told.
    pub async fn accept<IO>(&self, io: IO, within: Duration) -> Result<TlsStream<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let shaking = async {
            let mut begun =
                LazyConfigAcceptor::new(Acceptor::default(), io).await.map_err(TlsError::Handshake)?;
            let chosen = self.choose(&begun.client_hello());
            match chosen {
                Ok(config) => begun.into_stream(config).await.map_err(TlsError::Handshake),
                Err(error) => {
                    // It may be gone.
                    let _ = begun.io.write_all(&UNRECOGNIZED_NAME).await;
                    crate::io::linger(&mut begun.io, 0).await;
                    Err(error)
                }
            }
        };
        timeout(within, shaking).await.map_err(|_| TlsError::Late)?
    }
}
