//! A client's connection that becomes something else, such as a WebSocket: to the guest it is an extended CONNECT (RFC
//! 8441), of which either side sends bytes as it likes.

use std::io;

use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, WriteHalf, split};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use vamos_http_message::{Body, BodyError};

use super::exchange::failure;
use crate::limits::{ANSWER_WAIT_MAX, SWITCHED_BYTES};
use crate::routes::Route;

/// Asks one of the route's targets for `protocol`. An answer with 101 has what the guest sends as its body; what the
/// client sends is the request's.
pub async fn switch(
    route: &Route,
    draw: u64,
    request: Request<Body>,
    protocol: &HeaderValue,
) -> Response<Body> {
    let Some(target) = route.choose(draw, &[]).cloned() else {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "no-target");
    };
    let Ok(protocol) = protocol.to_str().map(str::to_ascii_lowercase) else {
        return failure(StatusCode::BAD_REQUEST, "protocol");
    };
    let (mut head, from_client) = request.into_parts();
    head.method = Method::CONNECT;
    head.extensions.clear();
    // The type takes no others than static texts, and of these there is one that anybody asks for.
    if protocol != "websocket" {
        return failure(StatusCode::NOT_IMPLEMENTED, "protocol");
    }
    head.extensions.insert(Protocol::from_static("websocket"));
    let mut sender = match target.streams.next().await {
        Ok(sender) => sender,
        Err(_) => return failure(StatusCode::SERVICE_UNAVAILABLE, "vm-not-there"),
    };
    let asked = timeout(ANSWER_WAIT_MAX, sender.send_request(Request::from_parts(head, Body::Empty))).await;
    let mut response = match asked {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => return failure(StatusCode::BAD_GATEWAY, "stream-lost"),
        Err(_) => return failure(StatusCode::GATEWAY_TIMEOUT, "no-answer"),
    };
    if response.status() != StatusCode::OK {
        let mut response = response.map(Body::stream);
        response.extensions_mut().insert(target);
        return response;
    }
    let upgraded = match hyper::upgrade::on(&mut response).await {
        Ok(upgraded) => upgraded,
        Err(_) => return failure(StatusCode::BAD_GATEWAY, "stream-lost"),
    };
    let (from_guest, to_guest) = split(TokioIo::new(upgraded));
    tokio::spawn(copy(from_client, to_guest));
    let (mut head, _) = response.into_parts();
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    let pieces = ReaderStream::with_capacity(from_guest, SWITCHED_BYTES);
    let frames = futures::StreamExt::map(pieces, |piece| {
        piece.map(http_body::Frame::data).map_err(|error| BodyError(error.into()))
    });
    let mut response = Response::from_parts(head, Body::stream(StreamBody::new(frames)));
    response.extensions_mut().insert(target);
    response
}

async fn copy<IO: tokio::io::AsyncWrite>(mut from: Body, mut to: WriteHalf<IO>) {
    let copied = async {
        while let Some(frame) = from.frame().await {
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                to.write_all(&data).await?;
                to.flush().await?;
            }
        }
        to.shutdown().await
    };
    if let Err(error) = copied.await {
        tracing::debug!(%error, "a switched stream broke");
    }
}
