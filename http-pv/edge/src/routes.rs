//! Who is served by whom: by the request's host first, then by the longest prefix of its path.

use std::collections::HashMap;
use std::sync::Arc;

use vamos_proto::edge;

use crate::upstream::{Target, TargetName, Targets};

/// Where requests of one host, or of some, go below one prefix.
#[derive(Debug)]
pub struct Route {
    /// As it was given, without a slash at the end.
    prefix: String,
    /// With the share of each.
    targets: Vec<(Arc<Target>, u32)>,
    /// What comes without TLS is answered with a redirect.
    pub https_only: bool,
    /// Largest body of a request, bytes; 0 is the edge's default.
    pub request_bytes_max: u64,
    /// Answers may be kept.
    pub caches: bool,
}

/// All routes.
#[derive(Debug, Default)]
pub struct Routes {
    /// By a host's whole name.
    named: HashMap<String, Vec<Arc<Route>>>,
    /// By what comes after the first label.
    below: HashMap<String, Vec<Arc<Route>>>,
    /// Of every other host.
    any: Vec<Arc<Route>>,
}

impl Routes {
    /// Those of a configuration. Targets that are known keep what is known of them.
    pub fn new(configured: Vec<edge::Route>, targets: &Targets) -> Self {
        let mut routes = Self::default();
        // A target of several routes has the most that one of them gives it.
        let mut room: HashMap<TargetName, u64> = HashMap::new();
        for route in &configured {
            for target in &route.targets {
                let name = TargetName { vm: target.vm.clone(), binding: target.binding.clone() };
                let given = room.entry(name).or_default();
                *given = route.cache_bytes.max(*given);
            }
        }
        for (name, room) in room {
            targets.target(name).give_room(room);
        }
        for route in configured {
            let host = route.host.to_ascii_lowercase();
            let list = match host.strip_prefix("*.") {
                _ if host == "*" => &mut routes.any,
                Some(parent) => routes.below.entry(parent.to_owned()).or_default(),
                None => routes.named.entry(host).or_default(),
            };
            let share = |target: edge::Target| {
                let name = TargetName { vm: target.vm, binding: target.binding };
                (targets.target(name), target.weight.max(1))
            };
            list.push(Arc::new(Route {
                prefix: route.prefix.trim_end_matches('/').to_owned(),
                targets: route.targets.into_iter().map(share).collect(),
                https_only: route.https_only,
                request_bytes_max: route.request_bytes_max,
                caches: route.cache_bytes > 0,
            }));
        }
        let lists = routes.named.values_mut().chain(routes.below.values_mut());
        for list in lists.chain([&mut routes.any]) {
            list.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        }
        routes
    }

    /// The route of a request. `host` is the request's, with or without a port; `path` is canonical.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let host = without_port(host).trim_end_matches('.').to_ascii_lowercase();
        let below = host.split_once('.').and_then(|(_, parent)| self.below.get(parent));
        let lists = [self.named.get(&host), below, Some(&self.any)];
        lists.into_iter().flatten().find_map(|list| list.iter().find(|route| route.is_for(path)))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

impl Route {
    fn is_for(&self, path: &str) -> bool {
        path.strip_prefix(&self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    /// One of the targets, the healthy ones by their shares. `draw` is any number; `but` are those tried already.
    /// When none is healthy, the one that has been ill longest is tried: somebody has to find out.
    pub fn choose(&self, draw: u64, but: &[Arc<Target>]) -> Option<&Arc<Target>> {
        let tried = |target: &Arc<Target>| but.iter().any(|other| Arc::ptr_eq(other, target));
        let left = || self.targets.iter().filter(|(target, _)| !tried(target));
        let healthy = || left().filter(|(target, _)| target.health.is_healthy());
        let total: u64 = healthy().map(|(_, weight)| u64::from(*weight)).sum();
        if total == 0 {
            return left().map(|(target, _)| target).min_by_key(|target| target.health.ejected_until());
        }
        let mut at = draw % total;
        for (target, weight) in healthy() {
            match at.checked_sub(u64::from(*weight)) {
                None => return Some(target),
                Some(rest) => at = rest,
            }
        }
        // One fell ill between the two looks.
        left().map(|(target, _)| target).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FAILURES_MAX;

    fn route(host: &str, prefix: &str, targets: &[(&str, u32)]) -> edge::Route {
        let target = |(vm, weight): &(&str, u32)| edge::Target {
            vm: (*vm).into(),
            binding: "site".into(),
            weight: *weight,
        };
        edge::Route {
            host: host.into(),
            prefix: prefix.into(),
            targets: targets.iter().map(target).collect(),
            ..edge::Route::default()
        }
    }

    fn vm(routes: &Routes, host: &str, path: &str) -> Option<String> {
        let route = routes.find(host, path)?;
        Some(route.choose(0, &[])?.name.vm.clone())
    }

    #[test]
    fn hosts_before_wildcards_and_long_prefixes_before_short_ones() {
        let targets = Targets::default();
        let routes = Routes::new(
            vec![
                route("example.org", "/", &[("root", 1)]),
                route("example.org", "/api/", &[("api", 1)]),
                route("Example.ORG", "/api/v2", &[("v2", 1)]),
                route("*.example.org", "/", &[("wild", 1)]),
                route("*", "/only", &[("any", 1)]),
            ],
            &targets,
        );
        for (host, path, expected) in [
            ("example.org", "/", Some("root")),
            ("EXAMPLE.org:8080", "/apiary", Some("root")),
            ("example.org.", "/api", Some("api")),
            ("example.org", "/api?x", Some("api")),
            ("example.org", "/api/v2/x", Some("v2")),
            ("example.org", "/api/v20", Some("api")),
            ("www.example.org", "/api", Some("wild")),
            ("a.www.example.org", "/only", Some("any")),
            ("a.www.example.org", "/", None),
            ("other", "/only/x", Some("any")),
            ("[::1]:80", "/only", Some("any")),
        ] {
            assert_eq!(vm(&routes, host, path).as_deref(), expected, "{host}{path}");
        }
    }

    #[test]
    fn shares_are_kept_and_the_ill_are_passed_over() {
        let targets = Targets::default();
        let routes = Routes::new(vec![route("*", "/", &[("a", 1), ("b", 3)])], &targets);
        let route = routes.find("x", "/").unwrap();
        let of = |vm: &str| {
            (0..400)
                .filter(|draw| route.choose(*draw, &[]).is_some_and(|target| target.name.vm == vm))
                .count()
        };
        assert_eq!((of("a"), of("b")), (100, 300));
        let b = targets.target(TargetName { vm: "b".into(), binding: "site".into() });
        for _ in 0..FAILURES_MAX {
            b.health.failed();
        }
        assert_eq!((of("a"), of("b")), (400, 0));
        let a = route.choose(0, &[]).unwrap().clone();
        assert_eq!(
            route.choose(0, std::slice::from_ref(&a)).unwrap().name.vm,
            "b",
            "somebody has to find out"
        );
        assert!(route.choose(0, &[a, b.clone()]).is_none());
        b.health.succeeded();
        assert_eq!((of("a"), of("b")), (100, 300));
    }
}
