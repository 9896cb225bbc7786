//! What a request means: the same rules as of HTTP/1.1, and those of RFC 9113, section 8.

use ::h2::ext::Protocol;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Version, request};

use crate::fields::{TOO_LATE, is_protocol};
use crate::h1::refusal::{Refusal, malformed, refused};
use crate::limits::FIELDS_MAX;
use crate::target::effective;

/// Fields that speak of a connection, which is not theirs here (RFC 9113, section 8.2.2).
const CONNECTIONS: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A request without its body.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Request<()>,
    /// Of the body, if the client has said it, bytes.
    pub(super) length: Option<u64>,
    /// The client waits to be told that its body is wanted.
    pub(super) expects_continue: bool,
    /// What the stream is wished to become.
    pub(super) upgrade: Option<HeaderValue>,
}

/// Why a request is not one, and how the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// By ending the stream: it is malformed (RFC 9113, section 8.1.1).
    Reset(Refusal),
    /// By an answer.
    Answer(Refusal),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Answer(refusal)
    }
}

const fn reset(reason: &'static str) -> Refused {
    Refused::Reset(malformed(reason))
}

/// Reads the head of a request.
///
/// # Errors
/// [`Refused`].
pub(super) fn read(head: request::Parts, tls: bool) -> Result<Asked, Refused> {
    let request::Parts { method, uri, mut headers, extensions, .. } = head;
    if headers.len() > FIELDS_MAX {
        return Err(refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields").into());
    }
    check_fields(&headers)?;
    let length = length(&headers)?;
    let protocol = match extensions.get::<Protocol>() {
        None => None,
        Some(_) if length.is_some() => return Err(reset("a length of what becomes something else")),
        Some(protocol) if is_protocol(protocol.as_str().as_bytes()) => {
            Some(HeaderValue::from_str(protocol.as_str()).map_err(|_| reset("a protocol that is none"))?)
        }
        Some(_) => return Err(reset("a protocol that is none")),
    };
    // What is a GET in HTTP/1.1 is a CONNECT here (RFC 8441, section 5); to whom it is for it is the same.
    let method = if protocol.is_some() { Method::GET } else { method };
    let scheme = if tls { Scheme::HTTPS } else { Scheme::HTTP };
    if uri.scheme().is_some_and(|named| *named != scheme) {
        return Err(malformed("a target of another scheme than the connection's").into());
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (uri.authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => return Err(reset("two Hosts")),
        (None, None, None) => return Err(reset("no authority")),
        (Some(authority), Some(host), None)
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            return Err(reset("a Host other than the authority"));
        }
        (Some(authority), ..) => authority.as_str(),
        (None, Some(host), None) => host.to_str().map_err(|_| reset("a Host that is no host"))?,
    };
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    if method != Method::CONNECT && path != "*" && !path.starts_with('/') {
        return Err(reset("a path that is none"));
    }
    let uri = effective(&method, path, host, tls)?;
    let expects_continue = expects_continue(&headers)?;
    join_cookies(&mut headers);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(Asked { request, length, expects_continue, upgrade: protocol })
}

/// RFC 9113, sections 8.2.1 and 8.2.2.
fn check_fields(fields: &HeaderMap) -> Result<(), Refused> {
    if CONNECTIONS.iter().any(|name| fields.contains_key(name)) {
        return Err(reset("a field about the connection"));
    }
    if fields.get_all(TE).iter().any(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return Err(reset("a TE other than trailers"));
    }
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let padded = |value: &HeaderValue| blank(value.as_bytes().first()) || blank(value.as_bytes().last());
    if fields.values().any(padded) {
        return Err(reset("a value that begins or ends with a space"));
    }
    Ok(())
}

/// Checks what comes after a body.
///
/// # Errors
/// Why it may not.
pub(super) fn check_trailers(fields: &HeaderMap) -> Result<(), Refusal> {
    match check_fields(fields) {
        Err(Refused::Reset(refusal) | Refused::Answer(refusal)) => Err(refusal),
        Ok(()) if fields.len() > FIELDS_MAX => Err(malformed("too many trailers")),
        Ok(()) if TOO_LATE.iter().any(|name| fields.contains_key(name)) => {
            Err(malformed("a trailer that comes too late"))
        }
        Ok(()) => Ok(()),
    }
}

fn length(fields: &HeaderMap) -> Result<Option<u64>, Refused> {
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => return Ok(None),
        (Some(_), Some(_)) => return Err(reset("two lengths")),
        (Some(length), None) => length.as_bytes(),
    };
    if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
        return Err(reset("a length that is no number"));
    }
    let length = std::str::from_utf8(length).ok().and_then(|digits| digits.parse().ok());
    length.map(Some).ok_or(reset("a length that is no number"))
}

fn expects_continue(fields: &HeaderMap) -> Result<bool, Refusal> {
    let mut expected = fields.get_all(EXPECT).iter();
    match (expected.next(), expected.next()) {
        (None, _) => Ok(false),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        _ => Err(refused(StatusCode::EXPECTATION_FAILED, "an expectation other than 100-continue")),
    }
}

/// A client may send each cookie as a field of its own; others know one field only (RFC 9113, section 8.2.3).
fn join_cookies(fields: &mut HeaderMap) {
    if fields.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        fields.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fields: &[(&'static str, &'static str)]) -> Result<Asked, Refused> {
        let mut request = Request::builder().uri("https://a/x?y");
        for (name, value) in fields {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        read(request.body(()).unwrap().into_parts().0, true)
    }

    #[test]
    fn a_request_is_what_it_would_be_in_http1() {
        let asked =
            asked(&[("cookie", "a=1"), ("cookie", "b=2"), ("host", "A"), ("te", "trailers")]).unwrap();
        assert_eq!(asked.request.uri(), "https://a/x?y");
        assert_eq!(asked.request.headers()["cookie"], "a=1; b=2");
        assert_eq!((asked.length, asked.expects_continue, asked.upgrade), (None, false, None));
    }

    #[test]
    fn h54_what_has_two_meanings_has_none() {
        for fields in [
            &[("host", "b")][..],
            &[("host", "a"), ("host", "a")],
            &[("content-length", "1"), ("content-length", "1")],
            &[("content-length", "+1")],
            &[("content-length", "1, 1")],
            &[("content-length", "")],
            &[("content-length", "18446744073709551616")],
            &[("transfer-encoding", "chunked")],
            &[("connection", "close")],
            &[("upgrade", "h2c")],
            &[("keep-alive", "1")],
            &[("proxy-connection", "close")],
            &[("te", "gzip")],
            &[("x", " a")],
            &[("x", "a\t")],
        ] {
            assert!(matches!(asked(fields), Err(Refused::Reset(_))), "{fields:?}");
        }
        let expected = asked(&[("expect", "200-ok")]).unwrap_err();
        assert!(matches!(expected, Refused::Answer(refusal) if refusal.status == 417));
    }
}
