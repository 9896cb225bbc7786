//! A CGI document's head (RFC 3875, section 6): fields, among them perhaps the status, up to an empty line.

use std::io;

use bytes::{Buf, BytesMut};
use http::header::{HeaderName, HeaderValue, LOCATION};
use http::{Response, StatusCode};

/// Takes the head off a document, as soon as it is there as a whole.
///
/// # Errors
/// It is not a head.
pub(super) fn head(document: &mut BytesMut) -> io::Result<Option<Response<()>>> {
    let Some((length, rest)) = end(document) else { return Ok(None) };
    let head = document.split_to(length).freeze();
    document.advance(rest);
    let wrong = || io::Error::other("the head of the script's answer is no list of fields");
    let (mut response, mut status) = (Response::new(()), None);
    for line in head[..].split(|byte: &u8| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':').ok_or_else(wrong)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"status") {
            let code = value.get(..3).ok_or_else(wrong)?;
            status = Some(StatusCode::from_bytes(code).map_err(|_| wrong())?);
            continue;
        }
        let name = HeaderName::from_bytes(name).map_err(|_| wrong())?;
        let value = HeaderValue::from_bytes(value).map_err(|_| wrong())?;
        response.headers_mut().append(name, value);
    }
    let moved = response.headers().contains_key(LOCATION);
    *response.status_mut() = status.unwrap_or(if moved { StatusCode::FOUND } else { StatusCode::OK });
    Ok(Some(response))
}

/// Length of the head, and of the empty line after it.
fn end(document: &[u8]) -> Option<(usize, usize)> {
    let mut lines = document.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    lines.find_map(|at| match document.get(at + 1..) {
        Some([b'\n', ..]) => Some((at, 2)),
        Some([b'\r', b'\n', ..]) => Some((at, 3)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let mut document = BytesMut::from("Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nnothing");
        let response = head(&mut document).unwrap().unwrap();
        assert_eq!((response.status(), &document[..]), (StatusCode::NOT_FOUND, &b"nothing"[..]));
        assert_eq!(response.headers()["content-type"], "text/plain");
        let mut document = BytesMut::from("Location: /x\nA: b\n\n");
        assert_eq!(head(&mut document).unwrap().unwrap().status(), StatusCode::FOUND);
        let mut document = BytesMut::from("A: b\r\n");
        assert!(head(&mut document).unwrap().is_none());
        for wrong in ["no field\n\n", "Status: x\n\n", "a b: c\n\n", "Status: 1\n\n"] {
            assert!(head(&mut BytesMut::from(wrong)).is_err(), "{wrong}");
        }
    }
}
