//! What a request is for: one meaning, or it is refused (RFC 9110, section 7; RFC 9112, section 3.2).

use http::uri::{Authority, Scheme, Uri};
use http::{Method, StatusCode};

use crate::h1::refusal::{Refusal, malformed, refused};

/// The whole URI of a request, from its method, the target of its first line and its Host field.
///
/// # Errors
/// [`Refusal`].
pub fn effective(method: &Method, target: &str, host: &str, tls: bool) -> Result<Uri, Refusal> {
    let authority = authority(host)?;
    let scheme = if tls { Scheme::HTTPS } else { Scheme::HTTP };
    if *method == Method::CONNECT {
        return Err(refused(StatusCode::NOT_IMPLEMENTED, "CONNECT is for proxies"));
    }
    let path = if target == "*" {
        if *method != Method::OPTIONS {
            return Err(malformed("a target of * that is not of OPTIONS"));
        }
        "*"
    } else if target.starts_with('/') {
        target
    } else {
        rest_of_absolute(target, &authority, &scheme)?
    };
    if path != "*" {
        check_path(path)?;
    }
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    uri.map_err(|_| malformed("a target that is no URI"))
}

/// Of a target in absolute form, which must say the same as the Host field and the connection.
fn rest_of_absolute<'a>(target: &'a str, authority: &Authority, scheme: &Scheme) -> Result<&'a str, Refusal> {
    let (named, rest) =
        target.split_once("://").ok_or(malformed("a target that is neither a path nor a URI"))?;
    if !named.eq_ignore_ascii_case(scheme.as_str()) {
        return Err(malformed("a target of another scheme than the connection's"));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    if !host.eq_ignore_ascii_case(authority.as_str()) {
        return Err(malformed("a target of another host than the Host field"));
    }
    match path {
        "" => Ok("/"),
        path if path.starts_with('?') => Err(malformed("a target without a path")),
        path => Ok(path),
    }
}

/// A Host: a name or an address, and perhaps a port.
///
/// # Errors
/// [`Refusal`].
pub fn authority(host: &str) -> Result<Authority, Refusal> {
    const WRONG: Refusal = malformed("a Host that is no host");
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            address.parse::<std::net::Ipv6Addr>().map_err(|_| WRONG)?;
            ("", port)
        }
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let bracketed = host.starts_with('[');
    let named =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let port_ok = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            !digits.is_empty()
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && digits.parse::<u16>().is_ok()
        });
    if !port_ok || bracketed == named || host.len() > 255 + 6 {
        return Err(WRONG);
    }
    host.parse().map_err(|_| WRONG)
}

/// A path and its query: nothing that another reader could take for something else.
///
/// # Errors
/// [`Refusal`].
pub fn check_path(target: &str) -> Result<(), Refusal> {
    let (path, query) = target.split_once('?').map_or((target, ""), |(path, query)| (path, query));
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"#<>\\^`{}".contains(&byte)) {
        return Err(malformed("a character in the path that has to be encoded"));
    }
    if !query.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"#<>".contains(&byte)) {
        return Err(malformed("a character in the query that has to be encoded"));
    }
    for part in [path, query] {
        check_encoding(part.as_bytes())?;
    }
    if path.starts_with("//") {
        return Err(malformed("a path that looks like a host"));
    }
    for segment in path.split('/') {
        let dots = segment.replace("%2e", ".").replace("%2E", ".");
        if dots == "." || dots == ".." {
            return Err(malformed("a path that goes up or stays"));
        }
    }
    Ok(())
}

/// Every percent sign begins an encoded byte, and none of them is NUL.
fn check_encoding(part: &[u8]) -> Result<(), Refusal> {
    let mut rest = part;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let Some([high, low]) = rest.get(at + 1..at + 3).and_then(|two| two.first_chunk::<2>()) else {
            return Err(malformed("a percent sign that encodes nothing"));
        };
        if !high.is_ascii_hexdigit() || !low.is_ascii_hexdigit() {
            return Err(malformed("a percent sign that encodes nothing"));
        }
        if (*high, *low) == (b'0', b'0') {
            return Err(malformed("an encoded NUL"));
        }
        rest = &rest[at + 3..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h57_a_target_has_one_meaning_or_none() {
        let get = |target, host| effective(&Method::GET, target, host, false).map(|uri| uri.to_string());
        for (target, host, meaning) in [
            ("/", "a", "http://a/"),
            ("/a/b?c=%20{}|", "example.org:8080", "http://example.org:8080/a/b?c=%20{}|"),
            ("/web/https://other/", "a", "http://a/web/https://other/"),
            ("/...", "a", "http://a/..."),
            ("http://a", "a", "http://a/"),
            ("HTTP://A/x", "a", "http://a/x"),
            ("/", "[::1]:80", "http://[::1]:80/"),
        ] {
            assert_eq!(get(target, host).as_deref(), Ok(meaning), "{target}");
        }
        for (target, host) in [
            ("", "a"),
            ("a", "a"),
            ("//evil/x", "a"),
            ("/a/../b", "a"),
            ("/a/%2e%2E/b", "a"),
            ("/.%2e", "a"),
            ("/./", "a"),
            ("/a\\b", "a"),
            ("/a#b", "a"),
            ("/a b", "a"),
            ("/\u{e9}", "a"),
            ("/a\0", "a"),
            ("/%00", "a"),
            ("/%", "a"),
            ("/%4", "a"),
            ("/%zz", "a"),
            ("/?%g0", "a"),
            ("*", "a"),
            ("http://b/", "a"),
            ("https://a/", "a"),
            ("http://a?x", "a"),
            ("http://u@a/", "a"),
            ("a:80", "a"),
            ("/", ""),
            ("/", "a b"),
            ("/", "u@a"),
            ("/", "a:"),
            ("/", "a:80:80"),
            ("/", "a:99999"),
            ("/", "a/b"),
            ("/", "[::1"),
            ("/", "[x]"),
            ("/", "[::1]x"),
            ("/", "::1"),
        ] {
            assert!(get(target, host).is_err(), "{target:?} of {host:?}");
        }
        assert!(effective(&Method::OPTIONS, "*", "a", false).is_ok());
        let connect = effective(&Method::CONNECT, "a:443", "a:443", false).unwrap_err();
        assert_eq!(connect.status, StatusCode::NOT_IMPLEMENTED);
    }
}
