//! Small answers go in one piece: each piece costs the host and the guest a transition.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};
use vamos_http_message::{Body, BodyError};

use crate::limits::{GATHERED_BYTES_MAX, GATHERED_WITHIN};

/// `body`, whole if that is soon to be had.
///
/// # Errors
/// It broke before anything of it was passed on.
pub(crate) async fn gather(fields: &HeaderMap, mut body: Body) -> Result<Body, BodyError> {
    let small = body.size_hint().exact().is_some_and(|length| length <= GATHERED_BYTES_MAX);
    // Whose next event may be long in coming.
    let events =
        fields.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !matches!(body, Body::Stream(_)) || events {
        return Ok(body);
    }
    let until = Instant::now() + GATHERED_WITHIN;
    let mut gathered = BytesMut::new();
    loop {
        if body.is_end_stream() {
            return Ok(gathered.freeze().into());
        }
        let next = if small {
            match timeout_at(until, body.frame()).await {
                Ok(next) => next,
                Err(_) => return Ok(rest(gathered.freeze(), None, body)),
            }
        } else {
            // What is there already, without a look at the clock.
            let mut frame = body.frame();
            match std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut frame).poll(cx))).await {
                Poll::Ready(next) => next,
                Poll::Pending => return Ok(rest(gathered.freeze(), None, body)),
            }
        };
        match next {
            None => return Ok(gathered.freeze().into()),
            Some(Err(error)) => return Err(error),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => gathered.extend_from_slice(&data),
                Err(trailers) => return Ok(rest(gathered.freeze(), Some(trailers), body)),
            },
        }
        if gathered.len() as u64 >= GATHERED_BYTES_MAX {
            return Ok(rest(gathered.freeze(), None, body));
        }
    }
}

fn rest(first: Bytes, then: Option<Frame<Bytes>>, body: Body) -> Body {
    let first = (!first.is_empty()).then(|| Frame::data(first));
    Body::stream(Rest { begun: [first, then], body })
}

/// What came first, and then the rest.
struct Rest {
    begun: [Option<Frame<Bytes>>; 2],
    body: Body,
}

impl http_body::Body for Rest {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = self.begun.iter_mut().find_map(Option::take) {
            return Poll::Ready(Some(Ok(frame)));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.begun.iter().all(Option::is_none) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let begun = self.begun.iter().flatten().filter_map(Frame::data_ref);
        let begun = begun.map(|data| data.len() as u64).sum::<u64>();
        match self.body.size_hint().exact() {
            Some(length) => SizeHint::with_exact(length + begun),
            None => SizeHint::default(),
        }
    }
}
