//! `vamosctl route`, `certificate` and `edge`.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tonic::transport::Channel;
use vamos_proto::control::edge_client::EdgeClient;
use vamos_proto::control::{
    Certificate, EdgeStatsRequest, ListCertificatesRequest, ListRoutesRequest, PurgeRequest,
    RemoveCertificateRequest, RemoveRouteRequest, Route, SetCertificateRequest, purge_request,
};
use vamos_proto::edge;

use crate::cli;
use crate::failure::Failure;
use crate::output::print;
use crate::table::table;

/// What is served by whom.
pub async fn route(channel: Channel, verb: cli::Route, json: bool) -> Result<(), Failure> {
    let mut client = EdgeClient::new(channel);
    match verb {
        cli::Route::Set(options) => {
            let options = *options;
            let wanted = edge::Route {
                host: options.host,
                prefix: options.prefix,
                targets: options.to,
                https_only: options.https_only,
                request_bytes_max: options.request_bytes_max,
                cache_bytes: options.cache_bytes,
            };
            let set = client.set_route(wanted).await?.into_inner();
            print(json, &shown(&set), &rows(std::slice::from_ref(&set)));
        }
        cli::Route::Remove { host, prefix } => {
            let removed = RemoveRouteRequest { host: host.clone(), prefix: prefix.clone() };
            client.remove_route(removed).await?;
            print(json, &json!({"removed": format!("{host}{prefix}")}), &format!("{host}{prefix} removed\n"));
        }
        cli::Route::List => {
            let routes = client.list_routes(ListRoutesRequest {}).await?.into_inner().routes;
            print(json, &Value::Array(routes.iter().map(shown).collect()), &rows(&routes));
        }
    }
    Ok(())
}

fn shown(route: &Route) -> Value {
    let (declared, route) = (route.declared, route.route.clone().unwrap_or_default());
    let target =
        |target: &edge::Target| json!({"vm": target.vm, "service": target.binding, "weight": target.weight});
    json!({
        "host": route.host,
        "prefix": route.prefix,
        "targets": route.targets.iter().map(target).collect::<Vec<_>>(),
        "https_only": route.https_only,
        "request_bytes_max": route.request_bytes_max,
        "cache_bytes": route.cache_bytes,
        "declared": declared,
    })
}

fn rows(routes: &[Route]) -> String {
    let target = |target: &edge::Target| match target.weight {
        1 => format!("{}/{}", target.vm, target.binding),
        weight => format!("{}/{}={weight}", target.vm, target.binding),
    };
    let row = |route: &Route| {
        let of = route.route.clone().unwrap_or_default();
        vec![
            of.host,
            of.prefix,
            of.targets.iter().map(target).collect::<Vec<_>>().join(" "),
            if of.https_only { "only" } else { "" }.to_owned(),
            if route.declared { "vamos.toml" } else { "" }.to_owned(),
        ]
    };
    table(&["host", "prefix", "to", "https", "declared in"], &routes.iter().map(row).collect::<Vec<_>>())
}

/// Certificates.
pub async fn certificate(channel: Channel, verb: cli::Certificate, json: bool) -> Result<(), Failure> {
    let mut client = EdgeClient::new(channel);
    match verb {
        cli::Certificate::Set { name, chain, key } => {
            let request = SetCertificateRequest { name, chain: read(chain)?, key: read(key)? };
            let set = client.set_certificate(request).await?.into_inner();
            print(json, &about(&set), &format!("{} is in use\n", set.name));
        }
        cli::Certificate::Remove { name } => {
            client.remove_certificate(RemoveCertificateRequest { name: name.clone() }).await?;
            print(json, &json!({"removed": name}), &format!("{name} removed\n"));
        }
        cli::Certificate::List => {
            let listed = client.list_certificates(ListCertificatesRequest {}).await?.into_inner();
            let row = |one: &Certificate| {
                vec![one.name.clone(), if one.declared { "vamos.toml" } else { "" }.to_owned()]
            };
            let rows: Vec<_> = listed.certificates.iter().map(row).collect();
            let all = listed.certificates.iter().map(about).collect();
            print(json, &Value::Array(all), &table(&["name", "declared in"], &rows));
        }
    }
    Ok(())
}

fn read(path: PathBuf) -> Result<Vec<u8>, Failure> {
    fs::read(&path).map_err(|source| Failure::File { path, source })
}

fn about(certificate: &Certificate) -> Value {
    json!({
        "name": certificate.name,
        "chain": String::from_utf8_lossy(&certificate.chain),
        "declared": certificate.declared,
    })
}

/// Removes what is kept.
pub async fn purge(
    channel: Channel,
    (vm, service): (String, String),
    (url, tag): (Option<String>, Option<String>),
    json: bool,
) -> Result<(), Failure> {
    let what = match (url, tag) {
        (Some(url), _) => purge_request::What::Url(url),
        (None, Some(tag)) => purge_request::What::Tag(tag),
        (None, None) => purge_request::What::All(true),
    };
    EdgeClient::new(channel).purge(PurgeRequest { vm: vm.clone(), service, what: Some(what) }).await?;
    print(json, &json!({"purged": vm}), &format!("{vm}: removed from the cache\n"));
    Ok(())
}

/// What the edge has counted.
pub async fn stats(channel: Channel, json: bool) -> Result<(), Failure> {
    let status = EdgeClient::new(channel).stats(EdgeStatsRequest {}).await?.into_inner();
    let stats = status.stats.unwrap_or_default();
    let all = |target: &edge::TargetStats| {
        json!({
            "vm": target.vm,
            "service": target.binding,
            "streams": target.streams,
            "requests": target.requests,
            "responses_5xx": target.responses_5xx,
            "retried": target.retried,
            "cache_hits": target.cache_hits,
            "cache_misses": target.cache_misses,
            "cached_bytes": target.cached_bytes,
            "cached_objects": target.cached_objects,
            "latency_p50_us": target.latency_p50_us,
            "latency_p99_us": target.latency_p99_us,
            "latency_p999_us": target.latency_p999_us,
        })
    };
    let row = |target: &edge::TargetStats| {
        vec![
            format!("{}/{}", target.vm, target.binding),
            target.streams.to_string(),
            target.requests.to_string(),
            target.responses_5xx.to_string(),
            target.retried.to_string(),
            format!("{} / {}", target.cache_hits, target.cache_misses),
            format!("{} / {} / {}", target.latency_p50_us, target.latency_p99_us, target.latency_p999_us),
        ]
    };
    let value = json!({
        "pid": status.pid,
        "starts": status.starts,
        "listeners": status.listeners,
        "connections": stats.connections,
        "connections_open": stats.connections_open,
        "requests": stats.requests,
        "malformed": stats.malformed,
        "targets": stats.targets.iter().map(all).collect::<Vec<_>>(),
    });
    let text = format!(
        "edge {} at {}: {} of {} connections open, {} requests, {} malformed\n{}",
        status.pid,
        status.listeners.join(" "),
        stats.connections_open,
        stats.connections,
        stats.requests,
        stats.malformed,
        table(
            &[
                "to",
                "streams",
                "requests",
                "5xx",
                "retried",
                "cache hits / misses",
                "latency p50 / p99 / p99.9, us"
            ],
            &stats.targets.iter().map(row).collect::<Vec<_>>()
        ),
    );
    print(json, &value, &text);
    Ok(())
}
