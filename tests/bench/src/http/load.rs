//! Clients that ask one thing again and again, each over a connection of its own that stays open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future::try_join_all;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::origin::HOST;

/// What connections come over.
trait Connection: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection for T {}

/// See the module.
pub struct Load {
    request: Vec<u8>,
    bytes: usize,
    clients: Vec<Client>,
}

struct Client {
    stream: Box<dyn Connection>,
    input: Vec<u8>,
}

/// What came of a run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Whole answers.
    pub answers: u64,
}

impl Load {
    /// So many clients of `address`, over TLS if there is a certificate to trust. Answers have `bytes` of content.
    ///
    /// # Errors
    /// If one cannot connect.
    pub async fn connect(
        address: SocketAddr,
        path: &str,
        bytes: usize,
        trusted: Option<&Vec<u8>>,
        clients: usize,
    ) -> anyhow::Result<Self> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: bench\r\n\r\n").into_bytes();
        let mut load = Self { request, bytes, clients: Vec::new() };
        for _ in 0..clients {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Connection> = match trusted {
                None => Box::new(stream),
                Some(trusted) => {
                    let mut roots = RootCertStore::empty();
                    roots.add(trusted.clone().into())?;
                    let provider = Arc::new(rustls::crypto::ring::default_provider());
                    let config = ClientConfig::builder_with_provider(provider)
                        .with_safe_default_protocol_versions()?;
                    let config = config.with_root_certificates(roots).with_no_client_auth();
                    let name = ServerName::try_from(HOST.to_owned())?;
                    Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
                }
            };
            load.clients.push(Client { stream, input: vec![0; 256 << 10] });
        }
        Ok(load)
    }

    /// Asks for so long.
    ///
    /// # Errors
    /// If an answer is not what it should be.
    pub async fn run(&mut self, slice: Duration) -> anyhow::Result<Run> {
        let until = Instant::now() + slice;
        let (request, bytes) = (&self.request, self.bytes);
        let each = self.clients.iter_mut().map(|client| async move {
            let mut answers = 0;
            while Instant::now() < until {
                client.ask(request, bytes).await?;
                answers += 1;
            }
            anyhow::Ok(answers)
        });
        Ok(Run { answers: try_join_all(each).await?.into_iter().sum() })
    }
}

impl Client {
    async fn ask(&mut self, request: &[u8], bytes: usize) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let (mut came, mut whole) = (0, None);
        loop {
            let count = self.stream.read(&mut self.input[came..]).await?;
            ensure!(count > 0, "the connection was closed");
            came += count;
            if whole.is_none() {
                let head = self.input[..came].windows(4).position(|four| four == b"\r\n\r\n");
                if let Some(head) = head {
                    ensure!(
                        self.input.starts_with(b"HTTP/1.1 200 "),
                        "{}",
                        String::from_utf8_lossy(&self.input[..head])
                    );
                    whole = Some(head + 4 + bytes);
                }
            }
            let Some(whole) = whole else { continue };
            ensure!(came <= whole, "more came than was asked for");
            if came == whole {
                return Ok(());
            }
        }
    }
}
