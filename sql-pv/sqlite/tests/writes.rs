//! Replies of many sessions leave in few writes: on the real channel each write is a transition.

mod support;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};

use bytes::BytesMut;
use prost::Message;
use support::{Client, Host, execute};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use vamos_proto::frame;
use vamos_proto::id::VmId;
use vamos_service::{ByteStream, Service, VmContext};
use vamos_sql_protocol::{Kind, Value};

/// A stream that counts what is written to it: calls and bytes.
struct Counted {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &outcome {
            self.writes.fetch_add(1, SeqCst);
            self.bytes.fetch_add(*written, SeqCst);
        }
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn counted_link(host: &Host, room: usize) -> (Client, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (near, far) = duplex(room);
    let (writes, bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = Counted { stream: far, writes: writes.clone(), bytes: bytes.clone() };
    let vm = Arc::new(VmContext { vm: VmId::new("web-1").unwrap(), generation: 1 });
    let served = tokio::spawn(host.service.clone().serve(ByteStream::new(counted), vm));
    (Client::new(near, served), writes, bytes)
}

#[tokio::test]
async fn what_came_together_is_answered_together() {
    let host = Host::start();
    let (mut client, writes, _) = counted_link(&host, 1 << 20);
    for session in 1..=64 {
        client.open(session).await;
    }
    client.run("CREATE TABLE t (a INTEGER PRIMARY KEY)").await;
    client.run("INSERT INTO t VALUES (1)").await;
    for _ in 0..5 {
        client.run("SELECT a FROM t WHERE a = 1").await;
    }
    let before = writes.load(SeqCst);
    let mut wire = BytesMut::new();
    for session in 2..=64 {
        let body = execute("SELECT a FROM t WHERE a = 1", &[]).encode_to_vec();
        frame::encode(&mut wire, session, 2, Kind::Execute as u16, |out| out.extend_from_slice(&body));
    }
    let inline = host.service.engine().activity().inline;
    client.write(&wire).await;
    for session in 2..=64 {
        client.result(session, 2).await.unwrap();
    }
    let (writes, inline) = (writes.load(SeqCst) - before, host.service.engine().activity().inline - inline);
    if inline == 63 {
        assert_eq!(writes, 1, "63 statements answered on the spot, one write");
    } else {
        assert!(writes < 63, "{writes} writes for 63 replies");
    }
}

#[tokio::test]
async fn nothing_more_is_produced_for_a_client_that_does_not_read() {
    let host = Host::start();
    let (mut client, _, bytes) = counted_link(&host, 1 << 10);
    client.open(1).await;
    let text =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT zeroblob(60000) FROM n";
    let sequence = client.send_execute(1, text, &[]).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(bytes.load(SeqCst) < 4 << 10);
    // The endless result is still in its first page or two: it ends as soon as it is cancelled.
    client.cancel(1, sequence).await;
    let started = std::time::Instant::now();
    let outcome = client.result(1, sequence).await;
    assert_eq!(outcome.unwrap_err().sqlstate, "57014");
    assert!(bytes.load(SeqCst) < 2 << 20, "{} bytes were on their way", bytes.load(SeqCst));
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}

#[tokio::test]
async fn a_temporary_table_whose_drop_was_undone_is_still_there() {
    let host = Host::start();
    let mut client = host.session().await;
    client.run("CREATE TABLE t (a UNIQUE)").await;
    client.run("INSERT INTO t VALUES (1)").await;
    client.run("CREATE TEMP TABLE u (y)").await;
    for undo in ["ROLLBACK", "INSERT OR ROLLBACK INTO t VALUES (1)"] {
        client.run("INSERT INTO u VALUES (7)").await;
        client.run("BEGIN").await;
        client.run("DROP TABLE u").await;
        let _ = client.try_run(undo).await;
        // Takes note of a transaction that SQLite itself has undone.
        let _ = client.try_run("ROLLBACK").await;
        client.rows("SELECT a FROM t").await;
        client.fails("CREATE TEMP TABLE u (y)").await;
    }
    assert_eq!(client.rows("SELECT count(*) FROM u").await, [[Value::Integer(2)]]);
}

/// The look at a changed schema must not tie a transaction that has done nothing yet to the past.
#[tokio::test]
async fn a_transaction_that_waits_for_its_first_write_does_not_fail_for_having_waited() {
    let host = Host::start();
    let mut other = host.session().await;
    other.run("CREATE TABLE t (a)").await;
    let mut client = host.session().await;
    for round in 0..5 {
        client.run("BEGIN").await;
        other.run(&format!("CREATE TABLE u{round} (a)")).await;
        other.run("BEGIN IMMEDIATE").await;
        let waiting = client.send_execute(1, "INSERT INTO t VALUES (1)", &[]).await;
        // Meanwhile the insertion is prepared, finds that it needs its turn and waits for it.
        for _ in 0..20 {
            other.run("INSERT INTO t VALUES (2)").await;
        }
        other.run("COMMIT").await;
        client.result(1, waiting).await.unwrap();
        client.run("COMMIT").await;
    }
    // Once it has read, it is tied to what it read, and is told so.
    client.run("BEGIN").await;
    client.rows("SELECT count(*) FROM t").await;
    other.run("INSERT INTO t VALUES (2)").await;
    assert_eq!(client.fails("INSERT INTO t VALUES (1)").await, "40001");
    client.run("ROLLBACK").await;
    assert_eq!(client.rows("SELECT count(*) FROM t WHERE a = 1").await, [[Value::Integer(5)]]);
}
