//! The owner's site: nginx and a small application in the VM, unmodified, published by the host's edge. A page is
//! fetched cold, and then from the edge's cache, which costs the guest nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::OWNER;
use super::native::Native;
use crate::figures::{Figure, Figures};
use crate::{Host, HostConfig, Vm};

const NGINX: &str = include_str!("site.conf");
const APPLICATION: &str = include_str!("application.py");

/// What nginx serves.
const PAGE: &str =
    "<!doctype html><title>The owner's site</title><p>Served by nginx, in a virtual machine.\n";

/// Fetches of what is kept.
const HITS: u64 = 1000;

/// Longest the servers may take to come up, under emulation.
const START_MAX: Duration = Duration::from_secs(60);

/// From an answer to the end of what it costs.
const SETTLE: Duration = Duration::from_millis(300);

/// Publishes both.
pub fn published(config: HostConfig) -> HostConfig {
    config.publish(OWNER, "site", "upstream = \"http://127.0.0.1:8080\"", "cache_bytes = 16777216").publish(
        OWNER,
        "packages",
        "upstream = \"http://127.0.0.1:8081\"",
        "",
    )
}

/// Starts the servers, and fetches from them as the world would. Whether every answer was right.
pub fn visit(
    host: &Host,
    vm: &Vm,
    native: &Native,
    figures: &mut Figures,
    say: &dyn Fn(&str),
) -> Result<bool> {
    vm.run(&format!(
        "ip link set lo up 2>/dev/null || ifconfig lo up\nmkdir -p /tmp/site/www\n\
         cat >/tmp/site/nginx.conf <<'END'\n{NGINX}END\ncat >/tmp/site/application.py <<'END'\n{APPLICATION}END\n\
         cat >/tmp/site/www/index.html <<'END'\n{PAGE}END\nchmod -R a+rwX /tmp/site\n\
         chroot /debian nginx -c /tmp/site/nginx.conf\n\
         (chroot /debian python3 /tmp/site/application.py >/tmp/site/application.log 2>&1 &)"
    ))?;
    let edge = host.edge()?;
    let site = || fetch(edge, "site.example", "/");
    until_up(edge, "packages.example", "/package/bash", 200)?;
    // Its first answer could be of a server that is not up yet, which nobody keeps.
    until_up(edge, "site.example", "/no-such-page", 404)?;

    let before = host.transitions(OWNER)?;
    let cold = site()?;
    // With what the guest's kernel still has to say of it.
    std::thread::sleep(SETTLE);
    let cold_transitions = host.transitions(OWNER)?.since(before);
    let (before, begun) = (host.transitions(OWNER)?, Instant::now());
    let mut right = cold == (200, PAGE.to_owned());
    for _ in 0..HITS {
        right &= site()? == cold;
    }
    let (took, hit_transitions) = (begun.elapsed(), host.transitions(OWNER)?.since(before));
    say(&format!(
        "http://site.example/ of nginx in {OWNER}: cold, {cold_transitions} transitions; then {HITS} times from the \
         edge's cache, {hit_transitions} transitions, {:.0} us each over a connection of its own",
        took.as_secs_f64() * 1e6 / HITS as f64
    ));
    figures.add("cold_transitions", Figure::one(cold_transitions as f64, "1"));
    figures.add("hit_transitions", Figure::one(hit_transitions as f64, "1"));

    for name in ["bash", "coreutils", "no-such-package"] {
        let (status, said) = fetch(edge, "packages.example", &format!("/package/{name}"))?;
        let expected = native.answer(&format!(
            "SELECT name, version, summary FROM package WHERE name = '{name}' ORDER BY id LIMIT 1"
        ))?;
        let same = said == expected && status == if expected.is_empty() { 404 } else { 200 };
        say(&format!("http://packages.example/package/{name}: {status}, as on the host: {same}"));
        right &= same;
    }
    ensure!(hit_transitions == 0, "{hit_transitions} transitions for {HITS} answers from the cache");
    Ok(right)
}

fn until_up(edge: SocketAddr, site: &str, path: &str, expected: u16) -> Result<()> {
    let end = Instant::now() + START_MAX;
    loop {
        let (status, said) = fetch(edge, site, path)?;
        if status == expected {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{site} answers {status}: {said}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// One request, and its answer: status and content.
fn fetch(edge: SocketAddr, host: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(edge)?;
    stream.set_read_timeout(Some(START_MAX))?;
    // Its answer ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, content) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| head.to_owned())?, content.to_owned()))
}
