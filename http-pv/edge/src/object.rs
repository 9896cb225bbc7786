//! Hand-off: a guest's answer names an object of its VM's volume, and the edge sends that in the place of the answer's
//! content, by ranges and conditions. The bytes do not pass through the guest.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{Method, Request, Response, StatusCode};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;
use vamos_http_message::{Body, BodyError};

use crate::limits::OBJECT_READ_BYTES;
use crate::link::OpenObject;
use crate::shared::Shared;
use crate::upstream::{Target, failure};

/// Names the object, as "bucket/key".
pub const OBJECT: HeaderName = HeaderName::from_static("vamos-object");

/// What of a request decides which part of an object is the answer.
#[derive(Debug)]
pub struct Asked {
    method: Method,
    fields: HeaderMap,
}

impl Asked {
    /// That part of a request.
    pub fn of(request: &Request<Body>) -> Self {
        let mut fields = HeaderMap::new();
        for name in [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
            for value in request.headers().get_all(&name) {
                fields.append(name.clone(), value.clone());
            }
        }
        Self { method: request.method().clone(), fields }
    }
}

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

/// What is sent of an object.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Range(Range<u64>),
    NotModified,
    PreconditionFailed,
    Unsatisfiable,
}

fn answer(asked: Asked, head: http::response::Parts, object: OpenObject) -> io::Result<Response<Body>> {
    let length = object.about.bytes;
    let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(object.about.modified_ns);
    let tag = format!("\"{}\"", object.about.version);
    let part = part(&asked, &tag, modified, length);
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
    if asked.method != Method::HEAD && !range.is_empty() {
        *response.body_mut() = content(object, range)?;
    }
    Ok(response)
}

fn say_length(response: &mut Response<Body>, length: u64) {
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
}

/// Which part of an object is the answer (RFC 9110, sections 13.2.2 and 14.2).
fn part(asked: &Asked, tag: &str, modified: SystemTime, length: u64) -> Part {
    let field = |name: &HeaderName| asked.fields.get(name).and_then(|value| value.to_str().ok());
    // Times have whole seconds there.
    let since = |text: &str| {
        let then = httpdate::parse_http_date(text).ok()?;
        let seconds =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).ok();
        Some(seconds(modified)? > seconds(then)?)
    };
    let lists = |name: &HeaderName, weakly: bool| {
        let mut values = asked.fields.get_all(name).iter().filter_map(|value| value.to_str().ok()).peekable();
        values.peek()?;
        Some(
            values
                .flat_map(|value| value.split(','))
                .map(str::trim)
                .any(|item| item == "*" || item == tag || weakly && item.strip_prefix("W/") == Some(tag)),
        )
    };
    match lists(&IF_MATCH, false) {
        Some(false) => return Part::PreconditionFailed,
        Some(true) => {}
        None if field(&IF_UNMODIFIED_SINCE).and_then(since) == Some(true) => return Part::PreconditionFailed,
        None => {}
    }
    let reads = [Method::GET, Method::HEAD].contains(&asked.method);
    match lists(&IF_NONE_MATCH, true) {
        Some(true) if reads => return Part::NotModified,
        Some(true) => return Part::PreconditionFailed,
        Some(false) => {}
        None if reads && field(&IF_MODIFIED_SINCE).and_then(since) == Some(false) => {
            return Part::NotModified;
        }
        None => {}
    }
    let Some(range) = field(&RANGE).filter(|_| asked.method == Method::GET) else { return Part::Whole };
    match field(&IF_RANGE) {
        Some(given) if given.starts_with('"') && given != tag => return Part::Whole,
        Some(given) if given.starts_with("W/") => return Part::Whole,
        Some(given) if !given.starts_with('"') && since(given) != Some(false) => return Part::Whole,
        _ => {}
    }
    match ranges(range, length) {
        // Several are sent as the whole, which is allowed, and is what most of their askers deserve.
        None => Part::Whole,
        Some(None) => Part::Unsatisfiable,
        Some(Some(range)) => Part::Range(range),
    }
}

/// The one range of a Range field: `None` if there is not one, `Some(None)` if it is beyond the end.
fn ranges(field: &str, length: u64) -> Option<Option<Range<u64>>> {
    let range = field.strip_prefix("bytes=")?.trim();
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        let suffix = number(last)?;
        return Some((suffix > 0 && length > 0).then(|| length.saturating_sub(suffix)..length));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    Some((first < length).then(|| first..last.saturating_add(1).min(length)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_is_what_conditions_and_ranges_say() {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_500);
        let (before, after) = ("Mon, 12 Jan 1970 13:46:39 GMT", "Mon, 12 Jan 1970 13:46:40 GMT");
        let of = |method: &Method, fields: &[(&HeaderName, &str)]| {
            let mut all = HeaderMap::new();
            for (name, value) in fields {
                all.append((*name).clone(), HeaderValue::from_str(value).unwrap());
            }
            part(&Asked { method: method.clone(), fields: all }, "\"v\"", modified, 100)
        };
        let get = |fields: &[(&HeaderName, &str)]| of(&Method::GET, fields);
        for (fields, expected) in [
            (&[][..], Part::Whole),
            (&[(&RANGE, "bytes=0-9")], Part::Range(0..10)),
            (&[(&RANGE, "bytes=90-")], Part::Range(90..100)),
            (&[(&RANGE, "bytes=-5")], Part::Range(95..100)),
            (&[(&RANGE, "bytes=-500")], Part::Range(0..100)),
            (&[(&RANGE, "bytes=0-18446744073709551615")], Part::Range(0..100)),
            (&[(&RANGE, "bytes=0-99999999999999999999999")], Part::Range(0..100)),
            (&[(&RANGE, "bytes=100-")], Part::Unsatisfiable),
            (&[(&RANGE, "bytes=-0")], Part::Unsatisfiable),
            (&[(&RANGE, "bytes=9-0")], Part::Whole),
            (&[(&RANGE, "bytes=0-1,5-6")], Part::Whole),
            (&[(&RANGE, "bytes=+1-2")], Part::Whole),
            (&[(&RANGE, "lines=0-1")], Part::Whole),
            (&[(&RANGE, "bytes=0-9"), (&IF_RANGE, "\"v\"")], Part::Range(0..10)),
            (&[(&RANGE, "bytes=0-9"), (&IF_RANGE, "\"w\"")], Part::Whole),
            (&[(&RANGE, "bytes=0-9"), (&IF_RANGE, "W/\"v\"")], Part::Whole),
            (&[(&RANGE, "bytes=0-9"), (&IF_RANGE, after)], Part::Range(0..10)),
            (&[(&RANGE, "bytes=0-9"), (&IF_RANGE, before)], Part::Whole),
            (&[(&IF_NONE_MATCH, "\"a\", W/\"v\"")], Part::NotModified),
            (&[(&IF_NONE_MATCH, "*")], Part::NotModified),
            (&[(&IF_NONE_MATCH, "\"a\""), (&IF_MODIFIED_SINCE, after)], Part::Whole),
            (&[(&IF_MODIFIED_SINCE, after)], Part::NotModified),
            (&[(&IF_MODIFIED_SINCE, before)], Part::Whole),
            (&[(&IF_MODIFIED_SINCE, "once")], Part::Whole),
            (&[(&IF_MATCH, "\"a\"")], Part::PreconditionFailed),
            (&[(&IF_MATCH, "W/\"v\"")], Part::PreconditionFailed),
            (&[(&IF_MATCH, "\"v\""), (&IF_UNMODIFIED_SINCE, before)], Part::Whole),
            (&[(&IF_UNMODIFIED_SINCE, before)], Part::PreconditionFailed),
            (&[(&IF_UNMODIFIED_SINCE, after)], Part::Whole),
        ] {
            assert_eq!(get(fields), expected, "{fields:?}");
        }
        assert_eq!(of(&Method::HEAD, &[(&RANGE, "bytes=0-9")]), Part::Whole);
        assert_eq!(of(&Method::POST, &[(&IF_NONE_MATCH, "*")]), Part::PreconditionFailed);
    }
}
