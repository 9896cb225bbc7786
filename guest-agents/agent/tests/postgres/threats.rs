//! THREATS, group E: what a hostile client of the door can send, and what becomes of it. Rows 41 to 45, and
//! threats 14 and 15 as far as they are about this door.

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::host::Host;
use crate::raw::{Raw, bind, execute, message, parse, startup};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

fn cancel_request(pid: i32, key: i32) -> BytesMut {
    let mut packet = BytesMut::new();
    packet.put_u32(16);
    packet.put_u32(80_877_102);
    packet.put_i32(pid);
    packet.put_i32(key);
    packet
}

/// Memory of this process, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process has a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("and a size");
    let kilobytes: usize =
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kilobytes << 10
}

#[tokio::test]
async fn e41_lengths_that_cannot_be_meant_end_the_connection() {
    let host = Host::start().await;
    for length in [0u32, 3, u32::MAX, 1 << 31] {
        let mut raw = Raw::start(&host).await;
        let mut wire = BytesMut::from(&b"Q"[..]);
        wire.put_u32(length);
        wire.put_slice(b"SELECT 1\0");
        raw.send(&wire).await;
        raw.dies_of("08P01").await;
    }
    // A field of length -2, in a message of the right length.
    let mut raw = Raw::start(&host).await;
    let mut body = BytesMut::from(&b"\0\0\0\0\0\x01"[..]);
    body.put_i32(-2);
    body.put_u16(0);
    raw.send(&parse("SELECT $1")).await;
    raw.send(&message(b'B', &body)).await;
    raw.send(&message(b'S', b"")).await;
    assert_eq!(raw.next().await.expect("an answer").0, b'1');
    raw.dies_of("08P01").await;
    // A type that no message has.
    let mut raw = Raw::start(&host).await;
    raw.send(&message(b'!', b"")).await;
    raw.dies_of("08P01").await;
    Raw::start(&host).await.answers().await;
}

#[tokio::test]
async fn e41_start_up_packets_are_short_and_whole() {
    let host = Host::start().await;
    let long = "x".repeat(10_000);
    let unterminated = {
        let mut packet = startup(&[("user", "tester")]);
        packet.truncate(packet.len() - 1);
        let length = packet.len() as u32;
        packet[..4].copy_from_slice(&length.to_be_bytes());
        packet
    };
    let huge = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
    let short = BytesMut::from(&[0u8, 0, 0, 7, 0, 3, 0][..]);
    let trailing = {
        let mut packet = startup(&[("user", "tester")]);
        packet.put_slice(b"x\0");
        let length = packet.len() as u32;
        packet[..4].copy_from_slice(&length.to_be_bytes());
        packet
    };
    for packet in [startup(&[("user", "tester"), ("options", &long)]), unterminated, huge, short, trailing] {
        let mut raw = Raw::open(&host).await;
        raw.send(&packet).await;
        raw.dies_of("08P01").await;
    }
    let mut raw = Raw::open(&host).await;
    raw.send(&startup(&[("user", "tester"), ("database", "files")])).await;
    raw.dies_of("3D000").await;
    let mut raw = Raw::open(&host).await;
    raw.send(&startup(&[("database", "shop")])).await;
    raw.dies_of("28000").await;
}

#[tokio::test]
async fn e42_bytes_sent_along_with_an_ssl_request_are_not_taken_for_a_start_up() {
    let host = Host::start().await;
    let mut raw = Raw::open(&host).await;
    let mut wire = BytesMut::from(&SSL_REQUEST[..]);
    wire.unsplit(startup(&[("user", "tester"), ("database", "shop")]));
    raw.send(&wire).await;
    raw.dies_of("08P01").await;
    // One that waits for the answer goes on without encryption, as libpq does with sslmode=prefer.
    let mut raw = Raw::open(&host).await;
    raw.send(&SSL_REQUEST).await;
    let mut answer = [0; 1];
    tokio::io::AsyncReadExt::read_exact(&mut raw.stream, &mut answer).await.expect("an answer");
    assert_eq!(answer, *b"N");
    raw.send(&startup(&[("user", "tester"), ("database", "shop")])).await;
    raw.until(b'Z').await;
    raw.answers().await;
}

#[tokio::test]
async fn e43_a_bad_bind_is_an_error_and_the_connection_stays_in_sync() {
    let host = Host::start().await;
    let mut raw = Raw::start(&host).await;
    // 65,536 parameters: their number does not fit the message's count, which says 0.
    let mut many = BytesMut::from(&b"\0\0\0\0\0\0"[..]);
    (0..65_536).for_each(|_| many.put_i32(-1));
    many.put_u16(0);
    // A parameter that claims more than a gibibyte, in a message of a few bytes.
    let mut claimed = BytesMut::from(&b"\0\0\0\0\0\x01"[..]);
    claimed.put_u32((1 << 30) + 1);
    claimed.put_slice(b"abc");
    let cut = b"\0\0\0\x05\0\0";
    for body in [&many[..], &claimed, cut, b"", b"\0"] {
        raw.send(&parse("SELECT $1")).await;
        raw.send(&message(b'B', body)).await;
        raw.send(&execute(0)).await;
        raw.send(&message(b'S', b"")).await;
        assert_eq!(raw.next().await.expect("an answer").0, b'1');
        assert_eq!(raw.error().await, ("ERROR".to_owned(), "08P01".to_owned()), "{} bytes", body.len());
        assert_eq!(raw.kinds(b'Z').await, "Z");
        raw.answers().await;
    }
    for parameters in [&[][..], &["1", "2"]] {
        raw.send(&parse("SELECT $1")).await;
        raw.send(&bind(parameters)).await;
        raw.send(&message(b'S', b"")).await;
        assert_eq!(raw.next().await.expect("an answer").0, b'1');
        assert_eq!(raw.error().await.1, "08P01");
        assert_eq!(raw.kinds(b'Z').await, "Z");
    }
    raw.answers().await;
}

#[tokio::test]
async fn e43_a_parameter_of_more_than_a_gibibyte_is_not_kept() {
    let host = Host::start().await;
    let mut raw = Raw::start(&host).await;
    raw.answers().await;
    let before = resident();
    let value: usize = (1 << 30) + 1;
    raw.send(&parse("SELECT $1")).await;
    let mut start = BytesMut::from(&b"B"[..]);
    start.put_u32((4 + 2 + 2 + 2 + 4 + value + 2) as u32);
    start.put_slice(b"\0\0\0\0\0\x01");
    start.put_u32(value as u32);
    raw.send(&start).await;
    let chunk = vec![b'x'; 1 << 20];
    let mut peak = 0;
    for _ in 0..value / chunk.len() {
        raw.send(&chunk).await;
        peak = peak.max(resident());
    }
    raw.send(b"x\0\0").await;
    raw.send(&message(b'S', b"")).await;
    assert_eq!(raw.next().await.expect("an answer").0, b'1');
    assert_eq!(raw.error().await, ("ERROR".to_owned(), "54000".to_owned()));
    assert_eq!(raw.kinds(b'Z').await, "Z");
    raw.answers().await;
    let grown = peak.saturating_sub(before);
    // Other tests of this process have memory of their own meanwhile; a value that is kept is a gibibyte.
    assert!(grown < value / 2, "{grown} bytes were kept of a value that was refused");
}

#[tokio::test]
async fn e44_only_the_right_key_cancels() {
    let host = Host::start().await;
    let mut raw = Raw::start(&host).await;
    let other = Raw::start(&host).await;
    raw.send(&message(
        b'Q',
        b"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n\0",
    ))
    .await;
    let wrong = [
        cancel_request(raw.pid, raw.key ^ 1),
        cancel_request(raw.pid, other.key),
        cancel_request(other.pid, raw.key),
        cancel_request(raw.pid + 1000, raw.key),
        cancel_request(-1, raw.key),
    ];
    for request in wrong {
        let mut canceller = Raw::open(&host).await;
        canceller.send(&request).await;
        assert_eq!(canceller.next().await, None, "a cancel request is never answered");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let early = tokio::time::timeout(Duration::from_millis(50), raw.next()).await;
    assert!(early.is_err(), "a wrong key interrupted a statement");
    let mut canceller = Raw::open(&host).await;
    canceller.send(&cancel_request(raw.pid, raw.key)).await;
    assert_eq!(canceller.next().await, None);
    assert_eq!(raw.error().await, ("ERROR".to_owned(), "57014".to_owned()));
    assert_eq!(raw.kinds(b'Z').await, "Z");
    raw.answers().await;
}

#[tokio::test]
async fn e45_a_cell_that_dies_between_parse_and_execute_is_not_noticed() {
    let host = Host::start().await;
    let mut raw = Raw::start(&host).await;
    raw.send(&parse("SELECT 1")).await;
    raw.send(&bind(&[])).await;
    raw.send(&message(b'H', b"")).await;
    assert_eq!(raw.kinds(b'2').await, "12");
    host.kill_links();
    raw.send(&execute(0)).await;
    raw.send(&message(b'S', b"")).await;
    assert_eq!(raw.kinds(b'Z').await, "DCZ");
    raw.answers().await;
}

#[tokio::test]
async fn e45_a_cell_that_dies_inside_copy_loses_nothing_and_doubles_nothing() {
    let host = Host::start().await;
    host.rows("CREATE TABLE t(x INTEGER);").await;
    // What is in the transaction fits a replay; then what does not.
    for (messages, whole) in [(1, true), (12, false)] {
        let mut raw = Raw::start(&host).await;
        raw.send(&message(b'Q', b"COPY t FROM STDIN\0")).await;
        raw.kinds(b'G').await;
        let rows = "12345678\n".repeat(20_000);
        for _ in 0..messages {
            raw.send(&message(b'd', rows.as_bytes())).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        host.kill_links();
        raw.send(&message(b'c', b"")).await;
        if whole {
            assert_eq!(raw.kinds(b'Z').await, "CZ");
        } else {
            assert_eq!(raw.error().await, ("ERROR".to_owned(), "40001".to_owned()));
            raw.kinds(b'Z').await;
        }
        assert_eq!(host.rows("SELECT count(*) FROM t;").await, "20000\n");
        raw.answers().await;
    }
}

#[tokio::test]
async fn e45_a_cell_that_dies_with_a_portal_open_is_not_noticed() {
    let host = Host::start().await;
    let mut raw = Raw::start(&host).await;
    raw.send(&message(b'Q', b"BEGIN\0")).await;
    raw.kinds(b'Z').await;
    raw.send(&parse(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6) SELECT i FROM n",
    ))
    .await;
    raw.send(&bind(&[])).await;
    raw.send(&execute(2)).await;
    raw.send(&message(b'H', b"")).await;
    assert_eq!(raw.kinds(b's').await, "12DDs");
    host.kill_links();
    raw.send(&execute(3)).await;
    raw.send(&message(b'H', b"")).await;
    assert_eq!(raw.kinds(b's').await, "DDDs");
    host.kill_links();
    raw.send(&execute(0)).await;
    raw.send(&message(b'S', b"")).await;
    assert_eq!(raw.kinds(b'Z').await, "DCZ");
    raw.answers().await;
}

#[tokio::test]
async fn e45_a_cell_that_dies_after_commit_was_sent_commits_once() {
    let host = Host::start().await;
    host.rows("CREATE TABLE t(x INTEGER);").await;
    for round in 0..20 {
        let mut raw = Raw::start(&host).await;
        raw.send(&message(b'Q', b"BEGIN; INSERT INTO t VALUES (1)\0")).await;
        raw.kinds(b'Z').await;
        raw.send(&message(b'Q', b"COMMIT\0")).await;
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        host.kill_links();
        assert_eq!(raw.kinds(b'Z').await, "CZ");
    }
    assert_eq!(host.rows("SELECT count(*) FROM t;").await, "20\n");
}

#[tokio::test]
async fn threat_14_values_over_the_limit_are_refused_before_they_are_forwarded() {
    let host = Host::start().await;
    let mut raw = Raw::start(&host).await;
    let value = "x".repeat((17 << 20) + 1);
    raw.send(&parse("SELECT length($1)")).await;
    raw.send(&bind(&[&value])).await;
    raw.send(&execute(0)).await;
    raw.send(&message(b'S', b"")).await;
    assert_eq!(raw.kinds(b'2').await, "12");
    assert_eq!(raw.error().await, ("ERROR".to_owned(), "54000".to_owned()));
    assert_eq!(raw.kinds(b'Z').await, "Z");
    raw.answers().await;
}

#[tokio::test]
async fn threat_15_slow_and_fat_handshakes_hold_nobody_up() {
    let host = Host::start().await;
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut raw = Raw::open(&host).await;
        raw.send(&startup(&[("user", "tester")])[..6]).await;
        slow.push(raw);
    }
    for _ in 0..300 {
        let mut raw = Raw::open(&host).await;
        let fat = "x".repeat(9_000);
        raw.send(&startup(&[("user", "tester"), ("database", "nowhere"), ("application_name", &fat)])).await;
        let (severity, sqlstate) = raw.error().await;
        assert!(severity == "FATAL" && matches!(sqlstate.as_str(), "3D000" | "22023"), "{sqlstate}");
    }
    Raw::start(&host).await.answers().await;
    // From here on time passes as fast as there is nothing to do.
    tokio::time::pause();
    for raw in &mut slow {
        raw.dies_of("08P01").await;
    }
}
