//! Connections from the loopback device: how many there may be, and how they end.

mod wire;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use vamos_http_server::accept::Counts;
use vamos_http_server::limits::{ConnectionLimits, Limits};
use wire::server::Server;

fn started(limits: ConnectionLimits) -> Server {
    Server::start(None, Limits::default(), limits)
}

/// One request on a connection that stays open, and its answer; nothing if the connection was closed.
fn ask(server: &Server) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = socket.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut answer = Vec::new();
    while !answer.ends_with(b"GET 0 0") {
        let mut some = [0; 1000];
        match socket.read(&mut some) {
            Ok(length @ 1..) => answer.extend(&some[..length]),
            _ => return None,
        }
    }
    Some(socket)
}

fn until(mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn there_are_only_so_many_connections() {
    for (limits, most) in [
        (ConnectionLimits { open_max: 3, of_client_max: 9 }, 3),
        (ConnectionLimits { open_max: 9, of_client_max: 2 }, 2),
    ] {
        let server = started(limits);
        let mut open: Vec<TcpStream> = (0..most).map(|_| ask(&server).unwrap()).collect();
        assert!(ask(&server).is_none() && ask(&server).is_none());
        let counts = server.connections.counts();
        assert_eq!(counts, Counts { opened: most as u64, open: most, refused: 2, failed: 0 });
        // Whoever goes makes room.
        open.pop();
        until(|| server.connections.counts().open < most);
        open.push(ask(&server).unwrap());
        assert_eq!(server.connections.counts().open, most);
    }
}

#[test]
fn a_drain_ends_what_is_idle_and_waits_for_what_is_not() {
    let mut server = started(ConnectionLimits::default());
    let mut idle = ask(&server).unwrap();
    let mut busy = TcpStream::connect(server.address).unwrap();
    busy.write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na").unwrap();
    until(|| server.echo.asked.lock().unwrap().len() == 2);
    server.draining.send_replace(true);
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    until(|| TcpStream::connect(server.address).is_err());
    busy.write_all(b"bc").unwrap();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("POST 3 0"), "{answer}");
    server.drain();
    assert_eq!(server.connections.counts().open, 0);
}

#[test]
fn curl_is_served() {
    let server = started(ConnectionLimits::default());
    let url = format!("http://{}/full?100000", server.address);
    // A second request without TLS on the same connection of HTTP/2 is beyond some versions of curl.
    for (version, urls, said) in [
        ("--http2-prior-knowledge", &[&url][..], "2 100000|"),
        ("--http2", &[&url, &url], "1.1 100000|1.1 100000|"),
        ("--http1.1", &[&url, &url], "1.1 100000|1.1 100000|"),
    ] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", version, "-w", "%{http_version} %{size_download}|"]);
        for url in urls {
            curl.args(["-o", "/dev/null", url]);
        }
        let output = curl.output().expect("curl is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{version}: {errors}");
    }
}
