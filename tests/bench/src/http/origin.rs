//! The server behind both: in the guest, with no socket at all, and on loopback for nginx.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use vamos_http_connector::serve;
use vamos_http_message::Body;
use vamos_link::{Channel, ProcessGuest};
use vamos_proto::id::VsockPort;

/// The site's name.
pub const HOST: &str = "bench.example";

/// What is fetched, and how long it is, bytes.
pub const SIZES: &[(&str, usize)] = &[("/1k", 1 << 10), ("/100k", 100 << 10)];

/// Streams that the guest keeps open.
const STREAMS: usize = 2;

/// A process guest that publishes the server.
pub struct Guest {
    server: SocketAddr,
    _drain: watch::Sender<bool>,
}

impl Guest {
    /// Attaches to the device at `socket` and opens streams.
    ///
    /// # Errors
    /// If either fails.
    pub async fn publish(socket: &Path) -> anyhow::Result<Self> {
        let channel = Channel::Process(ProcessGuest::attach(socket).await?);
        let (drain, drained) = watch::channel(false);
        let service = tower::service_fn(|request: Request<Body>| async move {
            Ok::<_, Infallible>(answer(request.uri().path()))
        });
        for _ in 0..STREAMS {
            let (channel, drained) = (channel.clone(), drained.clone());
            tokio::spawn(async move {
                // The edge may not be there yet.
                while let Ok(stream) = channel.open(VsockPort::FIRST_BINDING).await {
                    let _ = serve(stream, service, drained.clone()).await;
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            });
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper::service::service_fn(|request| async move {
                    Ok::<_, Infallible>(answer(Request::<hyper::body::Incoming>::uri(&request).path()))
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Ok(Self { server, _drain: drain })
    }

    /// Where the same server listens.
    pub fn server(&self) -> SocketAddr {
        self.server
    }
}

fn answer(path: &str) -> Response<Body> {
    let size = SIZES.iter().find(|(known, _)| *known == path).map(|(_, bytes)| *bytes);
    let uncached = path == "/uncached";
    let mut response = Response::new(match size.or(uncached.then_some(SIZES[0].1)) {
        Some(bytes) => Body::from(Bytes::from(vec![b'x'; bytes])),
        None => Body::Empty,
    });
    let fields = response.headers_mut();
    fields.insert("content-type", HeaderValue::from_static("text/plain"));
    let kept = if uncached { "no-store" } else { "public, max-age=3600" };
    fields.insert("cache-control", HeaderValue::from_static(kept));
    fields.insert("etag", HeaderValue::from_static("\"1\""));
    if size.is_none() && !uncached {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response
}
