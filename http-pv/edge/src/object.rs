//! Hand-off: a guest's answer names an object of its VM's volume, and the edge sends that in the place of the answer's
//! content, by ranges and conditions. The bytes do not pass through the guest.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED,
};
use http::{Response, StatusCode};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;
use vamos_http_message::part::{Asked, Part, Representation};
use vamos_http_message::{Body, BodyError};

use crate::limits::OBJECT_READ_BYTES;
use crate::link::OpenObject;
use crate::shared::Shared;
use crate::upstream::{Target, failure};

/// Names the object, as "bucket/key".
pub const OBJECT: HeaderName = HeaderName::from_static("vamos-object");

/// `response`, with the object in it if it names one.
pub async fn handed_off(shared: &Shared, asked: Asked, mut response: Response<Body>) -> Response<Body> {
    let Some(name) = response.headers_mut().remove(OBJECT) else { return response };
    // What the guest may hand off is what it may answer with.
    if !response.status().is_success() {
        return response;
    }
    let Some(target) = response.extensions().get::<Arc<Target>>().cloned() else { return response };
    let Ok(name) = String::from_utf8(name.as_bytes().to_vec()) else {
        return failure(StatusCode::BAD_GATEWAY, "object-name");
    };
    let Some(link) = shared.link_to(&target.name.vm) else {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "vm-not-there");
    };
    let mut handed = match link.object(name).await {
        Ok(object) => {
            let (head, _) = response.into_parts();
            answer(asked, head, object).unwrap_or_else(|error| {
                tracing::warn!(%error, vm = target.name.vm, "an object cannot be read");
                failure(StatusCode::BAD_GATEWAY, "object-unreadable")
            })
        }
        Err(error) => {
            tracing::info!(%error, vm = target.name.vm, "an object is not handed off");
            failure(StatusCode::BAD_GATEWAY, "no-such-object")
        }
    };
    handed.extensions_mut().insert(target);
    handed
}

fn answer(asked: Asked, head: http::response::Parts, object: OpenObject) -> io::Result<Response<Body>> {
    let length = object.about.bytes;
    let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(object.about.modified_ns);
    let tag = format!("\"{}\"", object.about.version);
    let about = Representation { tag: Some(&tag), modified: Some(modified), length };
    let part = asked.part(&about);
    let mut response = Response::from_parts(head, Body::Empty);
    response.headers_mut().remove(CONTENT_LENGTH);
    let mut say = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    };
    say(ETAG, tag);
    say(LAST_MODIFIED, httpdate::fmt_http_date(modified));
    say(ACCEPT_RANGES, "bytes".into());
    let (status, range) = match part {
        Part::Whole => (response.status(), 0..length),
        Part::Range(range) => {
            say(CONTENT_RANGE, format!("bytes {}-{}/{length}", range.start, range.end - 1));
            (StatusCode::PARTIAL_CONTENT, range)
        }
        Part::NotModified => (StatusCode::NOT_MODIFIED, 0..0),
        Part::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, 0..0),
        Part::Unsatisfiable => {
            say(CONTENT_RANGE, format!("bytes */{length}"));
            (StatusCode::RANGE_NOT_SATISFIABLE, 0..0)
        }
    };
    *response.status_mut() = status;
    if status != StatusCode::NOT_MODIFIED {
        say_length(&mut response, range.end - range.start);
    }
    if !asked.is_head() && !range.is_empty() {
        *response.body_mut() = content(object, range)?;
    }
    Ok(response)
}

fn say_length(response: &mut Response<Body>, length: u64) {
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
}

fn content(object: OpenObject, range: Range<u64>) -> io::Result<Body> {
    let mut file = File::from(object.file);
    file.seek(SeekFrom::Start(range.start))?;
    let length = range.end - range.start;
    let part = tokio::fs::File::from_std(file).take(length);
    let pieces = ReaderStream::with_capacity(
        part,
        OBJECT_READ_BYTES.min(usize::try_from(length).unwrap_or(usize::MAX)),
    );
    let frames = futures::StreamExt::map(pieces, |piece| {
        piece.map(http_body::Frame::data).map_err(|error| BodyError(error.into()))
    });
    Ok(Body::stream(Known { body: http_body_util::StreamBody::new(frames), left: length }))
}

/// A body whose length is known.
struct Known<B> {
    body: B,
    left: u64,
}

impl<B> http_body::Body for Known<B>
where
    B: http_body::Body<Data = bytes::Bytes, Error = BodyError> + Unpin,
{
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, BodyError>>> {
        let frame = std::task::ready!(std::pin::Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.left = self.left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        std::task::Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}
