//! Which script a request is for, and what it is told (RFC 3875, section 4).

use std::path::Path;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, FORWARDED, HeaderName};
use http::request::Parts;
use http_body::Body as _;
use vamos_http_message::Body;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What would make a script believe in a proxy of its own (CVE-2016-5385).
const PROXY: HeaderName = HeaderName::from_static("proxy");

/// What the script is told.
pub(super) fn parameters(head: &Parts, body: &Body, root: &Path, index: &str) -> Vec<(String, Vec<u8>)> {
    let field = |name: &HeaderName| head.headers.get(name).map(|value| value.as_bytes().to_vec());
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let (script, rest) = script_of(&decoded(head.uri.path()), root, index);
    let host = head.uri.authority().map_or("", |authority| authority.as_str());
    let tls = field(&FORWARDED_PROTO).is_some_and(|scheme| scheme == b"https");
    let port = head.uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let file = format!("{}{script}", root.display());
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut tell = |name: &str, value: &[u8]| all.push((name.to_owned(), value.to_vec()));
    tell("GATEWAY_INTERFACE", b"CGI/1.1");
    tell("SERVER_SOFTWARE", concat!("vamos/", env!("CARGO_PKG_VERSION")).as_bytes());
    tell("SERVER_PROTOCOL", b"HTTP/1.1");
    tell("REQUEST_METHOD", head.method.as_str().as_bytes());
    tell("REQUEST_URI", target.as_bytes());
    tell("REQUEST_SCHEME", if tls { b"https" } else { b"http" });
    tell("QUERY_STRING", head.uri.query().unwrap_or_default().as_bytes());
    tell("DOCUMENT_ROOT", root.display().to_string().as_bytes());
    tell("SCRIPT_FILENAME", file.as_bytes());
    tell("SCRIPT_NAME", script.as_bytes());
    tell("DOCUMENT_URI", script.as_bytes());
    tell("PATH_INFO", rest.as_bytes());
    tell("SERVER_NAME", head.uri.host().unwrap_or_default().as_bytes());
    tell("SERVER_PORT", port.to_string().as_bytes());
    tell("REMOTE_ADDR", &field(&FORWARDED_FOR).unwrap_or_default());
    // PHP refuses to run without it.
    tell("REDIRECT_STATUS", b"200");
    tell("HTTP_HOST", host.as_bytes());
    if tls {
        tell("HTTPS", b"on");
    }
    let length = match body.size_hint().exact() {
        Some(0) | None => field(&CONTENT_LENGTH).unwrap_or_default(),
        Some(length) => length.to_string().into_bytes(),
    };
    tell("CONTENT_LENGTH", &length);
    tell("CONTENT_TYPE", &field(&CONTENT_TYPE).unwrap_or_default());
    for name in head.headers.keys() {
        if [CONTENT_LENGTH, CONTENT_TYPE, PROXY, FORWARDED].contains(name) {
            continue;
        }
        let values: Vec<&[u8]> = head.headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
        let separator: &[u8] = if *name == http::header::COOKIE { b"; " } else { b", " };
        let told = format!("HTTP_{}", name.as_str().to_ascii_uppercase().replace('-', "_"));
        // Two names that become one are told once (`a_b` is not `a-b`).
        if !name.as_str().contains('_') {
            all.push((told, values.join(separator)));
        }
    }
    all
}

/// The script of a path, and what of the path comes after it. A path without one is for the index.
fn script_of(path: &str, root: &Path, index: &str) -> (String, String) {
    let ending = Path::new(index).extension().and_then(|ending| ending.to_str()).unwrap_or("php");
    let dotted = format!(".{ending}");
    for (at, _) in path.match_indices(&dotted) {
        let (script, rest) = path.split_at(at + dotted.len());
        if (rest.is_empty() || rest.starts_with('/')) && is_below(root, script) {
            return (script.to_owned(), rest.to_owned());
        }
    }
    let directory = format!("{}/{index}", path.trim_end_matches('/'));
    if is_below(root, &directory) {
        return (directory, String::new());
    }
    (format!("/{index}"), path.to_owned())
}

/// Whether there is such a file. The server of scripts may see other files than we do, but not more of them.
fn is_below(root: &Path, script: &str) -> bool {
    let goes_up = script.split('/').any(|part| part == "..");
    !goes_up && !script.contains('\0') && root.join(script.trim_start_matches('/')).is_file()
}

/// A path without its percent encoding.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.first_chunk::<2>().filter(|_| *first == b'%');
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_found_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("blog")).unwrap();
        for file in ["index.php", "a.php", "blog/index.php"] {
            std::fs::write(root.path().join(file), "").unwrap();
        }
        let find = |path: &str| script_of(path, root.path(), "index.php");
        for (path, script, rest) in [
            ("/", "/index.php", ""),
            ("/a.php", "/a.php", ""),
            ("/a.php/x/y", "/a.php", "/x/y"),
            ("/blog/", "/blog/index.php", ""),
            ("/blog", "/blog/index.php", ""),
            ("/no/such/page", "/index.php", "/no/such/page"),
            ("/b.php", "/index.php", "/b.php"),
            ("/../a.php", "/index.php", "/../a.php"),
            ("/a.php.txt", "/index.php", "/a.php.txt"),
            ("/upload/picture.jpg/x.php", "/index.php", "/upload/picture.jpg/x.php"),
        ] {
            assert_eq!(find(path), (script.to_owned(), rest.to_owned()), "{path}");
        }
        assert_eq!(decoded("/a%20b%2f%zz%"), "/a b/%zz%");
    }
}
