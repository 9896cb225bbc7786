//! A stream that becomes something else, such as a WebSocket: asked for by extended CONNECT (RFC 8441), given by the
//! server's 101.

use std::io;
use std::sync::Arc;

use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tracing::debug;
use vamos_http_message::{Body, hop};

use crate::forward::http1;
use crate::limits::COPY_BYTES;
use crate::pool::{Pool, Unanswered};

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

/// Sixteen bytes that say nothing: the edge has checked who asks, and what they are for is to tell caches of HTTP/1.1
/// from servers that know of WebSocket.
const ANY_KEY: HeaderValue = HeaderValue::from_static("dmFtb3MgdmFtb3MgdmFtbw==");

pub(crate) fn is_wanted(request: &Request<Body>) -> bool {
    *request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_some()
}

/// Asks the server for it, and joins the two if it agrees.
pub(crate) async fn answer(pool: &Arc<Pool>, request: Request<Body>) -> Result<Response<Body>, Unanswered> {
    let (mut head, _) = request.into_parts();
    let protocol = head.extensions.remove::<Protocol>();
    let theirs = head.extensions.remove::<OnUpgrade>();
    let (Some(protocol), Some(theirs)) = (protocol, theirs) else {
        return Err(Unanswered::Refused(io::ErrorKind::InvalidInput.into()));
    };
    head.method = Method::GET;
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(protocol) = HeaderValue::from_bytes(protocol.as_ref()) {
        head.headers.insert(UPGRADE, protocol);
    }
    if protocol.as_str().eq_ignore_ascii_case("websocket") {
        head.headers.entry(KEY).or_insert(ANY_KEY);
    }
    let mut response = pool.send(http1(Request::from_parts(head, Body::Empty))).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut head, body) = response.into_parts();
        hop::strip(&mut head.headers);
        return Ok(Response::from_parts(head, Body::stream(body)));
    }
    let ours = hyper::upgrade::on(&mut response);
    let (mut head, held) = response.into_parts();
    hop::strip(&mut head.headers);
    head.status = StatusCode::OK;
    tokio::spawn(async move {
        let joined = async {
            let (theirs, ours) = tokio::try_join!(theirs, ours).map_err(io::Error::other)?;
            let (mut theirs, mut ours) = (TokioIo::new(theirs), TokioIo::new(ours));
            copy_bidirectional_with_sizes(&mut theirs, &mut ours, COPY_BYTES, COPY_BYTES).await
        };
        if let Err(error) = joined.await {
            debug!(%error, "an upgraded stream broke");
        }
        // It has had its place among the connections until now.
        drop(held);
    });
    Ok(Response::from_parts(head, Body::Empty))
}
