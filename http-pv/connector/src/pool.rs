//! Connections to a server that speaks HTTP, kept from one request to the next.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::debug;
use vamos_http_message::Body;

use crate::limits::{
    ANSWER_FIELDS_MAX, ANSWER_HEAD_BYTES_MAX, CONNECT_WITHIN, CONNECTION_WINDOW_BYTES, CONNECTIONS_MAX,
    HEAD_BYTES_MAX, KEPT_IDLE_MAX, READ_BYTES_MAX, STREAM_WINDOW_BYTES,
};
use crate::upstream::Address;

/// Why there is no answer of the server.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// It cannot be reached: it has seen nothing of the request.
    Refused(io::Error),
    /// The connection broke.
    Broke(Box<dyn Error + Send + Sync>),
}

fn broke(error: hyper::Error) -> Unanswered {
    Unanswered::Broke(error.into())
}

/// Connections that are kept.
#[derive(Debug)]
pub(crate) struct Pool {
    address: Address,
    kept: Mutex<Vec<Kept>>,
    /// The one connection of a server that speaks HTTP/2, which takes any number of requests.
    shared: tokio::sync::Mutex<Option<http2::SendRequest<Body>>>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Kept {
    sender: http1::SendRequest<Body>,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(address: Address) -> Self {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { address, kept: Mutex::default(), shared: tokio::sync::Mutex::default(), places }
    }

    /// Sends a request over HTTP/1.1. What comes of it keeps its connection until it is read.
    pub(crate) async fn send(
        self: &Arc<Self>,
        mut request: Request<Body>,
    ) -> Result<Response<Answer>, Unanswered> {
        // The semaphore is never closed.
        let place = self
            .places
            .clone()
            .acquire_owned()
            .await
            .map_err(|error| Unanswered::Refused(io::Error::other(error)))?;
        while let Some(mut sender) = self.kept() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.answer(response, sender, place)),
                // The server closed it before it could see the request.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broke(error.into_error())),
                },
            }
        }
        let mut sender = self.connect().await.map_err(Unanswered::Refused)?;
        let response = sender.send_request(request).await.map_err(broke)?;
        Ok(self.answer(response, sender, place))
    }

    /// Sends a request over HTTP/2.
    pub(crate) async fn send_http2(&self, request: Request<Body>) -> Result<Response<Incoming>, Unanswered> {
        let mut sender = {
            let mut shared = self.shared.lock().await;
            match shared.as_ref().filter(|sender| !sender.is_closed()) {
                Some(sender) => sender.clone(),
                None => shared.insert(self.connect_http2().await.map_err(Unanswered::Refused)?).clone(),
            }
        };
        sender.ready().await.map_err(|error| Unanswered::Refused(io::Error::other(error)))?;
        sender.send_request(request).await.map_err(broke)
    }

    fn answer(
        self: &Arc<Self>,
        response: Response<Incoming>,
        sender: http1::SendRequest<Body>,
        place: OwnedSemaphorePermit,
    ) -> Response<Answer> {
        response.map(|body| Answer { body, held: Some((sender, self.clone(), place)) })
    }

    /// The one used last, which the server will close last.
    fn kept(&self) -> Option<http1::SendRequest<Body>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < KEPT_IDLE_MAX);
        let at = kept.iter().rposition(|kept| kept.sender.is_ready())?;
        Some(kept.remove(at).sender)
    }

    fn keep(&self, sender: http1::SendRequest<Body>) {
        if !sender.is_closed() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push(Kept { sender, since: Instant::now() });
        }
    }

    async fn connect(&self) -> io::Result<http1::SendRequest<Body>> {
        let stream = timeout(CONNECT_WITHIN, self.address.connect()).await??;
        let mut builder = http1::Builder::new();
        builder.max_headers(ANSWER_FIELDS_MAX).max_buf_size(READ_BYTES_MAX.max(ANSWER_HEAD_BYTES_MAX));
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%error, "a connection to the server broke");
            }
        });
        Ok(sender)
    }

    async fn connect_http2(&self) -> io::Result<http2::SendRequest<Body>> {
        let stream = timeout(CONNECT_WITHIN, self.address.connect()).await??;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "the connection to the server broke");
            }
        });
        Ok(sender)
    }
}

/// The body of an answer. Its connection is kept for others when it has been read to its end.
pub(crate) struct Answer {
    body: Incoming,
    held: Option<(http1::SendRequest<Body>, Arc<Pool>, OwnedSemaphorePermit)>,
}

impl Answer {
    fn give_back(&mut self) {
        if let Some((sender, pool, _place)) = self.held.take() {
            pool.keep(sender);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.give_back(),
            Poll::Ready(Some(Ok(_))) if http_body::Body::is_end_stream(&self.body) => self.give_back(),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // One without a body is never polled.
        if http_body::Body::is_end_stream(&self.body) {
            self.give_back();
        }
    }
}
