//! `[edge]`, `[[certificate]]` and `[[route]]`: what the host serves to the world.

use std::net::SocketAddr;
use std::path::PathBuf;

use vamos_proto::edge::{Route, Target};
use vamos_proto::id::VmId;

use super::reader::Fields;
use crate::limits::{EDGE_WORKERS_MAX, ROUTE_TARGETS_MAX};
use crate::names::ServiceName;

/// The process that serves HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Its program; beside the cell's if it is not given.
    pub binary: Option<PathBuf>,
    /// Where clients connect without TLS.
    pub listen: Vec<SocketAddr>,
    /// Where they connect with it.
    pub listen_tls: Vec<SocketAddr>,
    /// Threads that serve.
    pub workers: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Descriptors, and so clients.
    pub open_files: u64,
    /// Who was answered what.
    pub access_log: Option<PathBuf>,
}

/// A declared certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its name for operators.
    pub name: String,
    /// Its chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

pub(super) fn edge(table: Fields<'_>) -> Edge {
    let addresses = |name| {
        let text = table.text(name).unwrap_or_default();
        let parsed = text.split_whitespace().filter_map(|address| match address.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                table.mistake(format_args!("{name}: {address:?} is not an address and a port"));
                None
            }
        });
        parsed.collect::<Vec<SocketAddr>>()
    };
    let edge = Edge {
        binary: table.text("binary").map(PathBuf::from),
        listen: addresses("listen"),
        listen_tls: addresses("listen_tls"),
        // The range makes the conversion exact.
        workers: table.number("workers", 1..=EDGE_WORKERS_MAX).unwrap_or(1) as u32,
        memory_bytes: table.number("memory_bytes", 64 << 20..=1 << 50).unwrap_or(2 << 30),
        open_files: table.number("open_files", 256..=1_048_576).unwrap_or(65_536),
        access_log: table.text("access_log").map(PathBuf::from),
    };
    if edge.listen.is_empty() && edge.listen_tls.is_empty() {
        table.mistake("listen or listen_tls is missing: addresses such as \"0.0.0.0:80 [::]:80\"");
    }
    table.end();
    edge
}

pub(super) fn certificate(table: Fields<'_>) -> Option<Certificate> {
    let path = |name| table.required_text(name).map(PathBuf::from);
    let (certificate, key) = (path("certificate"), path("key"));
    let name = table.text("name").map(str::to_owned);
    table.end();
    let certificate = certificate?;
    let name = name.unwrap_or_else(|| certificate.display().to_string());
    Some(Certificate { name, certificate, key: key? })
}

pub(super) fn route(table: Fields<'_>) -> Option<Route> {
    let host = table.text("host").unwrap_or("*").to_owned();
    let prefix = table.text("prefix").unwrap_or("/").to_owned();
    let to = table.required_text("to").unwrap_or_default();
    let targets =
        to.split_whitespace().filter_map(|text| target(text).map_err(|reason| table.mistake(reason)).ok());
    let mut route = Route {
        host,
        prefix,
        targets: targets.collect(),
        https_only: table.truth("https_only").unwrap_or_default(),
        request_bytes_max: table.number("request_bytes_max", 1..=1 << 60).unwrap_or_default(),
        cache_bytes: table.number("cache_bytes", 0..=1 << 50).unwrap_or_default(),
    };
    if let Err(reason) = check_route(&mut route) {
        table.mistake(reason);
    }
    table.end();
    Some(route)
}

/// A target as it is written: VM/SERVICE, or VM/SERVICE=WEIGHT.
fn target(text: &str) -> Result<Target, String> {
    let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
    let wrong = || format!("{text:?} is not a target: use VM/SERVICE or VM/SERVICE=WEIGHT");
    let (vm, binding) = name.split_once('/').ok_or_else(wrong)?;
    let weight = weight.parse().map_err(|_| wrong())?;
    Ok(Target { vm: vm.to_owned(), binding: binding.to_owned(), weight })
}

/// Checks a route, and makes it canonical.
///
/// # Errors
/// What is wrong with it.
pub fn check_route(route: &mut Route) -> Result<(), String> {
    route.host.make_ascii_lowercase();
    if route.host.is_empty() {
        route.host = "*".into();
    }
    if route.prefix.is_empty() {
        route.prefix = "/".into();
    }
    let name = route.host.strip_prefix("*.").unwrap_or(&route.host);
    let labels = || name.split('.').all(|label| !label.is_empty() && label.len() <= 63);
    let named = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
    if route.host != "*" && (!named || name.len() > 253 || !name.starts_with('[') && !labels()) {
        return Err(format!("{:?} is not a host: use a name, \"*.\" and a name, or \"*\"", route.host));
    }
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#%\\".contains(&byte);
    if !route.prefix.starts_with('/') || !route.prefix.bytes().all(plain) {
        return Err(format!(
            "{:?} is not a prefix of paths: it begins with a slash, and nothing in it is encoded",
            route.prefix
        ));
    }
    if route.targets.is_empty() || route.targets.len() > ROUTE_TARGETS_MAX {
        return Err(format!("a route has 1 to {ROUTE_TARGETS_MAX} targets, not {}", route.targets.len()));
    }
    for target in &route.targets {
        VmId::new(target.vm.as_str()).map_err(|error| error.to_string())?;
        ServiceName::new(target.binding.as_str()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_checked() {
        let route = |host: &str, prefix: &str, to: &str| {
            let targets = to.split_whitespace().map(target).collect::<Result<_, _>>()?;
            let mut route = Route { host: host.into(), prefix: prefix.into(), targets, ..Route::default() };
            check_route(&mut route).map(|()| (route.host, route.prefix))
        };
        let ok = |host: &str, prefix: &str| Ok((host.to_owned(), prefix.to_owned()));
        assert_eq!(route("", "", "web/site"), ok("*", "/"));
        assert_eq!(route("Example.ORG", "/a", "web/site=3 web-2/site"), ok("example.org", "/a"));
        assert_eq!(route("*.example.org", "/", "web/site"), ok("*.example.org", "/"));
        assert_eq!(route("[::1]", "/", "web/site"), ok("[::1]", "/"));
        for (host, prefix, to) in [
            ("a b", "/", "web/site"),
            ("a..b", "/", "web/site"),
            ("*.*.a", "/", "web/site"),
            ("a", "x", "web/site"),
            ("a", "/a?b", "web/site"),
            ("a", "/%61", "web/site"),
            ("a", "/", ""),
            ("a", "/", "web"),
            ("a", "/", "web/site=x"),
            ("a", "/", "WEB/site"),
            ("a", "/", "web/Site"),
        ] {
            assert!(route(host, prefix, to).is_err(), "{host} {prefix} {to}");
        }
    }
}
