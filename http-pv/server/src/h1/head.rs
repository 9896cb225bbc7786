//! The head of a request: what it asks for, and where it ends (RFC 9112).
//!
//! Every rule that readers are known to differ about is a refusal here: what another server behind us could read
//! otherwise is not passed on.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};

use super::refusal::{Refusal, malformed, refused};
use crate::fields::is_protocol;
use crate::limits::{FIELDS_MAX, REQUEST_LINE_BYTES_MAX};
use crate::target::effective;

/// How a request's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// By itself.
    Chunked,
}

/// A request without its body.
#[derive(Debug)]
pub struct Head {
    /// What is asked.
    pub request: Request<()>,
    /// How its body ends.
    pub framing: Framing,
    /// Whether another request may follow.
    pub keep_alive: bool,
    /// The client waits to be told that its body is wanted.
    pub expects_continue: bool,
    /// What the connection is wished to become.
    pub upgrade: Option<HeaderValue>,
}

/// Where a head ends that begins `bytes`; `None` if its end has not come. `looked` is how far was looked before.
pub fn end(bytes: &[u8], looked: usize) -> Option<usize> {
    let from = looked.saturating_sub(3);
    bytes[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4)
}

/// Why a head that has not come as a whole is refused already.
pub fn hopeless(bytes: &[u8]) -> Option<Refusal> {
    check_lines(bytes, false).err()
}

/// Reads a head that is there as a whole.
///
/// # Errors
/// [`Refusal`].
pub fn parse(bytes: &[u8], tls: bool) -> Result<Head, Refusal> {
    check_lines(bytes, true)?;
    let line = bytes.iter().position(|byte| *byte == b'\r').unwrap_or(bytes.len());
    if line > REQUEST_LINE_BYTES_MAX {
        return Err(refused(StatusCode::URI_TOO_LONG, "the request line is too long"));
    }
    let version = version(&bytes[..line])?;
    let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut slots);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(malformed("a head that ends elsewhere")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields"));
        }
        Err(_) => return Err(malformed("a head that is none")),
    }
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(malformed("a head that is none"));
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| malformed("a method that is none"))?;
    let mut fields = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed("a field without a name"))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| malformed("a field's value"))?;
        fields.append(name, value);
    }
    let mut hosts = fields.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map_err(|_| malformed("a Host that is no host"))?,
        (None, _) => return Err(malformed("no Host")),
        (Some(_), Some(_)) => return Err(malformed("two Hosts")),
    };
    let uri = effective(&method, target, host, tls)?;
    let framing = framing(&fields, version)?;
    let expects_continue = expects_continue(&fields, version)?;
    let keep_alive = version == Version::HTTP_11 && !names(&fields, "close");
    let upgrade = upgrade(&fields, version, framing);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = fields;
    Ok(Head { request, framing, keep_alive, expects_continue, upgrade })
}

/// Every line ends with CR and LF, which are nowhere else; no line but the first is a continuation; nothing is NUL. Of
/// a head that is not whole the last byte may be half of an end.
fn check_lines(bytes: &[u8], whole: bool) -> Result<(), Refusal> {
    let mut before = b'\n';
    for (at, byte) in bytes.iter().enumerate() {
        match (before, *byte) {
            (_, 0) => return Err(malformed("a NUL")),
            (b'\r', b'\n') => {}
            (b'\r', _) => return Err(malformed("a CR that ends no line")),
            (_, b'\n') => return Err(malformed("a line that ends without CR")),
            (b'\n', b' ' | b'\t') => return Err(malformed("a line that begins with a space")),
            (b'\n', b'\r') if at == 0 => return Err(malformed("a head without a first line")),
            _ => {}
        }
        before = *byte;
    }
    if whole && before != b'\n' { Err(malformed("a head that does not end")) } else { Ok(()) }
}

/// One space between each of the three parts, and a version that we speak.
fn version(line: &[u8]) -> Result<Version, Refusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("a first line that does not have three parts"));
    };
    if method.is_empty() || target.is_empty() {
        return Err(malformed("a first line that does not have three parts"));
    }
    match version {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(refused(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "a version other than 1.0 and 1.1"))
        }
        _ => Err(malformed("a version that is none")),
    }
}

/// RFC 9112, section 6.3; where it lets a server choose, the request is refused.
fn framing(fields: &HeaderMap, version: Version) -> Result<Framing, Refusal> {
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(malformed("both a length and a transfer coding")),
        (Some(_), None) if version == Version::HTTP_10 => Err(malformed("a transfer coding in HTTP/1.0")),
        (Some(coding), None)
            if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") =>
        {
            Err(refused(StatusCode::NOT_IMPLEMENTED, "a transfer coding other than chunked"))
        }
        (Some(_), None) => Ok(Framing::Chunked),
        (None, Some(_)) if lengths.next().is_some() => Err(malformed("two lengths")),
        (None, Some(length)) => {
            let digits = length.as_bytes();
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(malformed("a length that is no number"));
            }
            let length = length.to_str().ok().and_then(|digits| digits.parse::<u64>().ok());
            match length.ok_or(malformed("a length that is no number"))? {
                0 => Ok(Framing::None),
                length => Ok(Framing::Length(length)),
            }
        }
    }
}

fn expects_continue(fields: &HeaderMap, version: Version) -> Result<bool, Refusal> {
    let mut expected = fields.get_all(EXPECT).iter();
    match (expected.next(), expected.next()) {
        (None, _) => Ok(false),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Ok(version == Version::HTTP_11)
        }
        _ => Err(refused(StatusCode::EXPECTATION_FAILED, "an expectation other than 100-continue")),
    }
}

/// A wish for another protocol, if it is one wish, of a request that has no body: what follows it has one meaning.
fn upgrade(fields: &HeaderMap, version: Version, framing: Framing) -> Option<HeaderValue> {
    let mut wishes = fields.get_all(UPGRADE).iter();
    let (Some(wish), None) = (wishes.next(), wishes.next()) else { return None };
    let meant = version == Version::HTTP_11
        && framing == Framing::None
        && names(fields, "upgrade")
        && is_protocol(wish.as_bytes());
    meant.then(|| wish.clone())
}

/// Whether Connection names `option`.
fn names(fields: &HeaderMap, option: &str) -> bool {
    let values = fields.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|named| named.trim().eq_ignore_ascii_case(option))
}
