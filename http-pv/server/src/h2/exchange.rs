//! One request and its answer, on a stream of their own.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use tokio::sync::mpsc;
use vamos_http_message::Body;

use super::answer::{To, answer};
use super::content::{Content, News};
use super::request::{Asked, Refused, read};
use crate::h1::refusal::Refusal;
use crate::limits::Limits;
use crate::{Handler, Peer, Upgrade};

/// What became of handling a request.
enum Handled {
    Answered(Response<Body>),
    Refused(Refusal),
    /// The client does not want an answer any more.
    Gone,
}

/// Reads what is asked, has it handled and sends the answer.
pub(super) async fn exchange<H: Handler>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: &Peer,
    handler: &H,
    limits: &Limits,
) {
    let (head, stream) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let asked = match read(head, peer.tls) {
        Ok(asked) => asked,
        Err(Refused::Reset(refusal)) => {
            handler.refused(peer, refusal);
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return;
        }
        Err(Refused::Answer(refusal)) => {
            let to = To { is_head, upgrade: false };
            return refuse(&mut respond, refusal, to, peer, handler, limits).await;
        }
    };
    let Asked { mut request, length, expects_continue, upgrade } = asked;
    let to = To { is_head, upgrade: upgrade.is_some() };
    request.extensions_mut().insert(peer.clone());
    // A body that is something else may be silent for as long as it likes.
    let pause_max = upgrade.is_none().then_some(limits.body_pause_max);
    if let Some(protocol) = upgrade {
        request.extensions_mut().insert(Upgrade(protocol));
    }
    let (body, news) = if stream.is_end_stream() {
        (Body::Empty, None)
    } else {
        let (body, news) = Content::new(stream, length, pause_max);
        (Body::stream(body), Some(news))
    };
    let handled = handle(handler, request.map(|()| body), news, expects_continue, &mut respond).await;
    match handled {
        Handled::Answered(response) => answer(&mut respond, response, to, limits.write_pause_max).await,
        Handled::Refused(refusal) if refusal.status == StatusCode::BAD_REQUEST => {
            handler.refused(peer, refusal);
            respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        Handled::Refused(refusal) => refuse(&mut respond, refusal, to, peer, handler, limits).await,
        Handled::Gone => {}
    }
}

/// Waits for the handler's answer, for the body to break, or for the client to go away.
async fn handle<H: Handler>(
    handler: &H,
    request: Request<Body>,
    mut news: Option<mpsc::Receiver<News>>,
    expects_continue: bool,
    respond: &mut SendResponse<Bytes>,
) -> Handled {
    let mut handling = pin!(handler.handle(request));
    poll_fn(|cx| {
        let handled = handling.as_mut().poll(cx);
        // What the handler makes of a body that is none does not matter.
        while let Some(heard) = &mut news {
            match heard.poll_recv(cx) {
                Poll::Ready(Some(News::Wanted)) if expects_continue => {
                    let mut go_on = Response::new(());
                    *go_on.status_mut() = StatusCode::CONTINUE;
                    // If the stream is gone, that is seen below.
                    let _ = respond.send_informational(go_on);
                }
                Poll::Ready(Some(News::Wanted)) => {}
                Poll::Ready(Some(News::Broken(refusal))) => return Poll::Ready(Handled::Refused(refusal)),
                Poll::Ready(None) => news = None,
                Poll::Pending => break,
            }
        }
        match handled {
            Poll::Ready(response) => Poll::Ready(Handled::Answered(response)),
            Poll::Pending => respond.poll_reset(cx).map(|_| Handled::Gone),
        }
    })
    .await
}

async fn refuse<H: Handler>(
    respond: &mut SendResponse<Bytes>,
    refusal: Refusal,
    to: To,
    peer: &Peer,
    handler: &H,
    limits: &Limits,
) {
    handler.refused(peer, refusal);
    let mut response = Response::new(Body::from(format!("{refusal}\n")));
    *response.status_mut() = refusal.status;
    answer(respond, response, to, limits.write_pause_max).await;
}
