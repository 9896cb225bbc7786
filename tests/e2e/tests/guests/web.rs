//! Servers of the distribution, unmodified, in a QEMU guest, published by the edge.

use std::io::{Read, Seek, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use vamos_e2e::{Stage, WEB, same};
use vamos_lab::{Host, Vm};

use crate::Case;

pub const CASES: &[Case] = &[
    ("web::nginx_answers_through_the_edge", nginx),
    ("web::a_small_answer_is_one_packet", one_packet),
    ("web::apache_runs_php_through_fpm", apache),
    ("web::php_fpm_is_spoken_to_directly", php_fpm),
    ("web::gunicorn_serves_django", django),
    ("web::node_streams_events_and_counts_an_upload", node),
    ("web::tomcat_answers", tomcat),
    ("web::requests_survive_the_cell", survives),
];

/// Requests one after the other of which transitions are counted.
const COUNTED: u64 = 200;

/// Most transitions that one of them may cost in an emulated guest: the request's, the answer's, and what the guest's
/// kernel adds of its own: a second packet, most likely its word on room in its buffers, and calls that it asks for to
/// be told that packets have been taken. Two kicks and three calls; `tests/web` counts without it.
const TRANSITIONS_MAX: f64 = 5.1;

/// Packets from the guest for each request: the answer, and the kernel's word on room.
const PACKETS_MAX: f64 = 2.1;

/// Longest a server may take to come up in an emulated guest.
const SERVER_START_MAX: Duration = Duration::from_secs(180);

/// Longest one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// What came of a request.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request of HTTP/1.0, whose answer ends with the connection.
fn send(host: &Host, method: &str, site: &str, path: &str, more: &str, content: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(host.edge()?)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let length = content.len();
    let head =
        format!("{method} {path} HTTP/1.0\r\nHost: {site}.example\r\nContent-Length: {length}\r\n{more}\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(content)?;
    let mut whole = Vec::new();
    stream.read_to_end(&mut whole)?;
    let end = whole.windows(4).position(|four| four == b"\r\n\r\n").context("an answer without a head")?;
    let head = String::from_utf8_lossy(&whole[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context(head.clone())?;
    Ok(Answer { status, head, body: whole.split_off(end + 4) })
}

fn get(host: &Host, site: &str, path: &str) -> Result<Answer> {
    send(host, "GET", site, path, "", b"")
}

/// An answer of the site itself, as soon as its server is up.
fn first(host: &Host, vm: &Vm, site: &str, path: &str) -> Result<Answer> {
    let end = Instant::now() + SERVER_START_MAX;
    loop {
        let answer = get(host, site, path)?;
        if !(500..=599).contains(&answer.status) {
            return Ok(answer);
        }
        if Instant::now() > end {
            let logs = vm.run("tail -n 20 /tmp/web/*.log")?;
            bail!("{site} answers {}: {}\n{logs}", answer.status, answer.text());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn nginx(stage: &Stage) -> Result<()> {
    let (host, vm) = stage.web()?;
    let answer = first(host, vm, "nginx", "/1k.txt")?;
    same("status", answer.status, 200)?;
    ensure!(answer.body == vec![b'k'; 1024] && answer.head.contains("server: nginx"), "{answer:?}");
    same("what nginx is told", get(host, "nginx", "/forwarded")?.text(), "127.0.0.1 http nginx.example")?;
    same("what is not there", get(host, "nginx", "/none")?.status, 404)?;
    let large = get(host, "nginx", "/32m.bin")?;
    let digest = vm.run("sha256sum </tmp/web/www/32m.bin")?;
    same("a large file", sha256(&large.body)?, digest.trim())?;
    let part = send(host, "GET", "nginx", "/100k.txt", "Range: bytes=100-199\r\n", b"")?;
    same("a range", format!("{} {}", part.status, part.body.len()), "206 100")?;
    same("no such site", get(host, "nowhere", "/")?.status, 404)
}

fn sha256(content: &[u8]) -> Result<String> {
    let mut file = tempfile::tempfile()?;
    file.write_all(content)?;
    file.rewind()?;
    let sum = Command::new("sha256sum").stdin(file).output()?;
    Ok(String::from_utf8(sum.stdout)?.trim().to_owned())
}

fn one_packet(stage: &Stage) -> Result<()> {
    let (host, vm) = stage.web()?;
    first(host, vm, "nginx", "/1k.txt")?;
    let packets = || {
        Ok::<_, anyhow::Error>([host.counter(WEB, "packets_received")?, host.counter(WEB, "packets_sent")?])
    };
    let (before, packets_before) = (host.transitions(WEB)?, packets()?);
    for _ in 0..COUNTED {
        same("an answer's length", get(host, "nginx", "/1k.txt")?.body.len(), 1024)?;
    }
    let after = host.transitions(WEB)?;
    let each = after.since(before) as f64 / COUNTED as f64;
    let (kicks, calls) = (after.kicks - before.kicks, after.calls - before.calls);
    let [received, sent] = packets()?;
    let (received, sent) = (received - packets_before[0], sent - packets_before[1]);
    let counted = format!("{kicks} kicks, {calls} calls, {received} packets from the guest, {sent} to it");
    println!("{COUNTED} requests: {counted}");
    ensure!(each <= TRANSITIONS_MAX, "{each} transitions a request: {counted}");
    ensure!(received as f64 <= PACKETS_MAX * COUNTED as f64, "an answer is more than one packet: {counted}");
    Ok(())
}

fn apache(stage: &Stage) -> Result<()> {
    let (host, vm) = stage.web()?;
    let answer = first(host, vm, "apache", "/?a=b")?;
    same("apache's answer", answer.text(), "php says GET /?a=b  127.0.0.1 0\n")?;
    ensure!(
        answer.head.contains("server: apache") && answer.head.contains("set-cookie: seen=yes"),
        "{answer:?}"
    );
    let posted = send(host, "POST", "apache", "/index.php/info", "", &vec![b'x'; 300_000])?;
    ensure!(posted.text().contains(" 300000\n"), "{}", posted.text());
    Ok(())
}

fn php_fpm(stage: &Stage) -> Result<()> {
    let (host, vm) = stage.web()?;
    let answer = first(host, vm, "php", "/index.php/info?a=b")?;
    same("the script's answer", answer.text(), "php says GET /index.php/info?a=b /info 127.0.0.1 0\n")?;
    ensure!(answer.head.contains("x-script: /index.php"), "{answer:?}");
    same("a status", get(host, "php", "/?status=418")?.status, 418)?;
    let posted = send(host, "POST", "php", "/", "Content-Type: text/plain\r\n", &vec![b'x'; 3_000_000])?;
    ensure!(posted.text().contains(" 3000000\n"), "{}", posted.text());
    same("a path of no script", get(host, "php", "/nice/path")?.status, 200)
}

fn django(stage: &Stage) -> Result<()> {
    let (host, vm) = stage.web()?;
    let answer = first(host, vm, "django", "/?a=b")?;
    same("django's answer", answer.text(), "django says GET http://django.example/?a=b\n")?;
    let content = "--part\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nAda\r\n--part\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n12345\r\n--part--\r\n";
    let more = "Content-Type: multipart/form-data; boundary=part\r\n";
    let posted = send(host, "POST", "django", "/form", more, content.as_bytes())?;
    same("a form", posted.text(), "Ada 5")?;
    ensure!(posted.head.contains("set-cookie: name=ada"), "{}", posted.head);
    same("what is made bit by bit", get(host, "django", "/slowly")?.text(), "0\n1\n2\n3\n4\n")
}

fn node(stage: &Stage) -> Result<()> {
    let (host, vm) = stage.web()?;
    let answer = first(host, vm, "node", "/a?b")?;
    same("node's answer", answer.text(), r#"{"method":"GET","url":"/a?b","host":"node.example"}"#)?;
    let mut stream = TcpStream::connect(host.edge()?)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: node.example\r\nConnection: close\r\n\r\n")?;
    let (mut seen, mut times) = (Vec::new(), Vec::new());
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&piece[..count]);
        times.push(Instant::now());
    }
    let said = String::from_utf8_lossy(&seen);
    ensure!((0..5).all(|number| said.contains(&format!("data: {number}\n"))), "{said}");
    ensure!(times.len() >= 4, "the events came in {} pieces", times.len());
    let uploaded = send(host, "PUT", "node", "/upload", "", &vec![7; 5_000_000])?;
    same("an upload", uploaded.text(), "5000000")
}

fn tomcat(stage: &Stage) -> Result<()> {
    let (host, vm) = stage.web()?;
    let answer = first(host, vm, "tomcat", "/hello.txt")?;
    same("tomcat's answer", answer.text(), "tomcat says hello\n")
}

fn survives(stage: &Stage) -> Result<()> {
    let (host, vm) = stage.web()?;
    first(host, vm, "nginx", "/1k.txt")?;
    for _ in 0..5 {
        let cell = Pid::from_raw(host.cell_process(WEB)?).context("a cell without a process")?;
        kill_process(cell, Signal::KILL)?;
        let begun = Instant::now();
        same("an answer after the cell was killed", get(host, "nginx", "/1k.txt")?.status, 200)?;
        ensure!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    Ok(())
}
