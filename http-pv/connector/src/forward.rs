//! Requests to a server in the guest, and its answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use tower::Service;
use vamos_http_message::{Body, hop};

use crate::REASON;
use crate::fastcgi::FastCgi;
use crate::gather::gather;
use crate::pool::{Pool, Unanswered};
use crate::upgrade;
use crate::upstream::Upstream;

/// Hands requests to an unmodified server. What it cannot get an answer for it answers itself, with 502 or 503 and the
/// reason in [`REASON`].
#[derive(Debug, Clone)]
pub struct Forward(Arc<Server>);

#[derive(Debug)]
enum Server {
    Http1(Arc<Pool>),
    Http2(Pool),
    FastCgi(FastCgi),
}

impl Forward {
    /// To this one.
    pub fn new(upstream: Upstream) -> Self {
        Self(Arc::new(match upstream {
            Upstream::Http1(address) => Server::Http1(Arc::new(Pool::new(address))),
            Upstream::Http2(address) => Server::Http2(Pool::new(address)),
            Upstream::FastCgi { address, root, index } => Server::FastCgi(FastCgi::new(address, root, index)),
        }))
    }

    async fn answer(&self, mut request: Request<Body>) -> Response<Body> {
        let is_head = *request.method() == Method::HEAD;
        hop::strip(request.headers_mut());
        let response = match &*self.0 {
            Server::Http1(pool) if upgrade::is_wanted(&request) => {
                return upgrade::answer(pool, request).await.unwrap_or_else(failed);
            }
            Server::Http1(pool) => pool.send(http1(request)).await.map(|answer| answer.map(Body::stream)),
            Server::Http2(pool) => {
                *request.version_mut() = Version::HTTP_2;
                pool.send_http2(request).await.map(|answer| answer.map(Body::stream))
            }
            Server::FastCgi(server) => server.answer(request).await,
        };
        let (mut head, body) = match response {
            Ok(response) => response.into_parts(),
            Err(unanswered) => return failed(unanswered),
        };
        hop::strip(&mut head.headers);
        // Ours alone.
        head.headers.remove(REASON);
        head.version = Version::HTTP_2;
        if is_head || body.is_end_stream() {
            return Response::from_parts(head, Body::Empty);
        }
        match gather(&head.headers, body).await {
            Ok(body) => Response::from_parts(head, body),
            Err(error) => failed(Unanswered::Broke(error.into())),
        }
    }
}

impl Service<Request<Body>> for Forward {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let forward = self.clone();
        Box::pin(async move { Ok(forward.answer(request).await) })
    }
}

/// As HTTP/1.1 says it: the host in a field of its own, the target a path.
pub(crate) fn http1(request: Request<Body>) -> Request<Body> {
    let (mut head, body) = request.into_parts();
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
    if let Some(target) = head.uri.path_and_query() {
        head.uri = Uri::from(target.clone());
    }
    head.version = Version::HTTP_11;
    Request::from_parts(head, body)
}

pub(crate) fn failed(unanswered: Unanswered) -> Response<Body> {
    let (status, reason, why) = match unanswered {
        Unanswered::Refused(error) => {
            tracing::warn!(%error, "the server cannot be reached");
            (StatusCode::SERVICE_UNAVAILABLE, "upstream-refused", "The server in the VM cannot be reached.\n")
        }
        Unanswered::Broke(error) => {
            tracing::warn!(%error, "the server closed the connection before it had answered");
            (StatusCode::BAD_GATEWAY, "upstream-broke", "The server in the VM did not answer.\n")
        }
    };
    let mut response = Response::new(Body::from(why));
    *response.status_mut() = status;
    response.headers_mut().insert(REASON, HeaderValue::from_static(reason));
    response
}
