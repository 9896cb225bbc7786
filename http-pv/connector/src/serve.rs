//! Answering what comes on one of the guest's streams.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;

use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tower::Service;
use vamos_http_message::Body;

use crate::limits::{
    CONNECTION_WINDOW_BYTES, HEAD_BYTES_MAX, REQUESTS_MAX, SEND_BUFFER_BYTES_MAX, STREAM_WINDOW_BYTES,
};
use crate::whole::Whole;

/// Becomes true when no further request is to be taken.
pub type Drain = watch::Receiver<bool>;

/// Serves `stream` by `service` until the host ends it, or until `drain` and all that is under way then. Needs a tokio
/// runtime.
///
/// A request that asks for another protocol is a CONNECT with [`hyper::ext::Protocol`] among its extensions, and
/// [`hyper::upgrade::on`] gives what comes of it once it is answered with 200.
///
/// # Errors
/// The stream broke, or what came is not HTTP/2.
pub async fn serve<IO, S>(stream: IO, service: S, mut drain: Drain) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(REQUESTS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .enable_connect_protocol();
    let answer = service_fn(move |request: Request<Incoming>| {
        let mut service = service.clone();
        async move {
            let ready: Result<(), Infallible> = poll_fn(|cx| service.poll_ready(cx)).await;
            ready?;
            service.call(request.map(taken)).await
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Whole::new(stream)), answer));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        // One that will never drain is as good as one that does not yet.
        Ok(_) = drain.wait_for(|drain| *drain) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

fn taken(body: Incoming) -> Body {
    if body.is_end_stream() { Body::Empty } else { Body::stream(body) }
}
