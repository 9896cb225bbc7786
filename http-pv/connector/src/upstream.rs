//! Where a guest's server is, as an operator writes it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A server in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// Speaks HTTP/1.1.
    Http1(Address),
    /// Speaks HTTP/2 from its first byte, as servers of gRPC do.
    Http2(Address),
    /// Speaks FastCGI, as PHP-FPM does, and runs scripts.
    FastCgi {
        /// Where it is.
        address: Address,
        /// Directory of the scripts.
        root: PathBuf,
        /// Script of a path that names a directory, or nothing that is there.
        index: String,
    },
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// On a port.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

/// Why a text is no [`Upstream`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not where a server is: use http://127.0.0.1:PORT, h2c://127.0.0.1:PORT or fastcgi://127.0.0.1:PORT, \
     with unix:/PATH in the place of the address for a Unix socket"
)]
pub struct UpstreamError(pub String);

impl Upstream {
    /// Reads it: a scheme and an address. A bare `unix:/PATH` speaks HTTP/1.1. `root` and `index` are for FastCGI.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub fn new(text: &str, root: &str, index: &str) -> Result<Self, UpstreamError> {
        let wrong = || UpstreamError(text.to_owned());
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => ("http", text),
        };
        let address = rest.trim_end_matches('/').parse().map_err(|()| wrong())?;
        match scheme {
            "http" => Ok(Self::Http1(address)),
            "h2c" => Ok(Self::Http2(address)),
            "fastcgi" => Ok(Self::FastCgi {
                address,
                root: if root.is_empty() { "/var/www/html" } else { root }.into(),
                index: if index.is_empty() { "index.php" } else { index }.into(),
            }),
            _ => Err(wrong()),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        match self {
            Self::Http1(address) | Self::Http2(address) | Self::FastCgi { address, .. } => address,
        }
    }
}

impl FromStr for Address {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(()) };
        }
        // The guest's own names need no resolver.
        let text =
            text.strip_prefix("localhost:").map_or(text.to_owned(), |port| format!("127.0.0.1:{port}"));
        text.parse().map(Self::Tcp).map_err(drop)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Connects.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub async fn connect(&self) -> io::Result<Connected> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // What is written is written whole.
                stream.set_nodelay(true)?;
                Ok(Connected::Tcp(stream))
            }
            Self::Unix(path) => Ok(Connected::Unix(UnixStream::connect(path).await?)),
        }
    }
}

/// A connection to a server.
#[derive(Debug)]
pub enum Connected {
    /// Over loopback.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl AsyncRead for Connected {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connected {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_writes_is_understood() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        let unix = |path: &str| Address::Unix(path.into());
        for (text, expected) in [
            ("http://127.0.0.1:8080", Upstream::Http1(tcp("127.0.0.1:8080"))),
            ("http://localhost:80/", Upstream::Http1(tcp("127.0.0.1:80"))),
            ("127.0.0.1:80", Upstream::Http1(tcp("127.0.0.1:80"))),
            ("http://[::1]:80", Upstream::Http1(tcp("[::1]:80"))),
            ("unix:/run/app.sock", Upstream::Http1(unix("/run/app.sock"))),
            ("h2c://127.0.0.1:50051", Upstream::Http2(tcp("127.0.0.1:50051"))),
            (
                "fastcgi://unix:/run/php.sock",
                Upstream::FastCgi {
                    address: unix("/run/php.sock"),
                    root: "/srv".into(),
                    index: "index.php".into(),
                },
            ),
        ] {
            assert_eq!(Upstream::new(text, "/srv", ""), Ok(expected), "{text}");
        }
        for text in ["", "http://", "https://127.0.0.1:1", "unix:app.sock", "http://example.org", "127.0.0.1"]
        {
            let refused = Upstream::new(text, "", "").unwrap_err();
            assert!(refused.to_string().contains("use http://"), "{refused}");
        }
    }
}
