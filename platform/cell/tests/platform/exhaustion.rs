//! A cell, or vamosd, runs out of what the kernel gives: it alone suffers, and recovers.

use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::net::UnixStream;
use tokio::time::sleep;
use vamos_proto::control::VmState;
use vamos_sql_client::{ClientError, Session};

use crate::daemon::Daemon;
use crate::support::{Host, PATIENCE, number};

/// What is left to a process, until this is dropped.
struct Squeezed {
    process: Pid,
    resource: Resource,
    before: Rlimit,
}

impl Squeezed {
    fn to(process: Pid, resource: Resource, left: u64) -> Self {
        // The hard limit stays: not every root may raise it again.
        let before = prlimit(
            Some(process),
            resource,
            Rlimit { current: Some(left), maximum: hard(process, resource) },
        )
        .unwrap();
        Self { process, resource, before }
    }
}

impl Drop for Squeezed {
    fn drop(&mut self) {
        let _ = prlimit(Some(self.process), self.resource, self.before);
    }
}

/// The process' hard limit; none if it is unlimited.
fn hard(process: Pid, resource: Resource) -> Option<u64> {
    let name = match resource {
        Resource::Nofile => "Max open files",
        Resource::Nproc => "Max processes",
        _ => "Max file size",
    };
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.as_raw_nonzero())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().ok()
}

async fn table(session: &Session) {
    session.execute("CREATE TABLE t (x)", &[]).await.unwrap();
    session.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn k71_a_cell_at_its_memory_limit_dies_alone() {
    let host = Host::configured(&["a", "b"], "cells = { memory_bytes = 16777216 }").await;
    let (greedy, guest, neighbour) = (host.attach("a").await, host.attach("b").await, host.vm("b").await);
    let (session, other) = (greedy.session().await, guest.session().await);
    table(&session).await;
    table(&other).await;
    host.until("b", VmState::Attached).await;
    let starts = host.vm("a").await.status.cell_starts;
    let eater = greedy.session().await;
    let eating = tokio::spawn(async move {
        // Texts of 14 MB, and as much to make them grow: SQLite itself may take far more.
        let eat = "SELECT sum(length(x)) FROM (SELECT group_concat(hex(randomblob(600000)), '') AS x
            FROM (WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 48) SELECT n FROM i)
            GROUP BY n / 12)";
        eater.execute(eat, &[]).await.map(drop)
    });
    let end = Instant::now() + PATIENCE;
    while host.vm("a").await.status.cell_starts == starts {
        assert!(Instant::now() < end, "the cell has not been killed");
        assert_eq!(number(&other, "SELECT count(*) FROM t").await, 1);
        sleep(std::time::Duration::from_millis(1)).await;
    }
    // Whoever would be repeated until nobody lives has gone.
    eating.abort();
    let _ = eating.await;
    let killed = Instant::now();
    assert_eq!(number(&session, "SELECT count(*) FROM t").await, 1);
    println!("to the next answered statement: {:?}", killed.elapsed());
    other.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
    let now = host.vm("b").await.status;
    assert_eq!((now.cell_pid, now.cell_starts), (neighbour.status.cell_pid, neighbour.status.cell_starts));
    host.stop().await;
}

/// Many sessions that each want a connection to the database of their own, all at once: what went wrong.
async fn crowd(sessions: &[Session]) -> Vec<String> {
    let opened = futures::future::join_all(sessions.iter().map(|session| async move {
        session.execute("BEGIN", &[]).await?;
        session.execute("SELECT count(*) FROM t", &[]).await.map(drop)
    }));
    let told = |outcome: Result<(), ClientError>| outcome.err().map(|error| error.sqlstate().to_owned());
    let told: Vec<String> = opened.await.into_iter().filter_map(told).collect();
    for session in sessions {
        // It says so where there is none.
        let _ = session.execute("ROLLBACK", &[]).await;
    }
    told
}

/// More sessions than there is room for, all at once, and then as many as there is.
async fn a_cell_with_few(limit: &str) {
    let host = Host::configured(&["a"], &format!("cells = {{ {limit} }}")).await;
    let guest = host.attach("a").await;
    let session = guest.session().await;
    table(&session).await;
    let before = host.until("a", VmState::Attached).await.status;
    let mut sessions = Vec::new();
    for _ in 0..40 {
        sessions.push(guest.session().await);
    }
    let told = crowd(&sessions).await;
    println!("{limit}: {} of {} were refused: {told:?}", told.len(), sessions.len());
    assert!(!told.is_empty() && told.len() < sessions.len(), "{told:?}");
    assert!(told.iter().all(|sqlstate| sqlstate.starts_with("53")), "{told:?}");
    // Who was there goes on, and who comes is heard.
    session.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
    assert_eq!(number(&guest.session().await, "SELECT count(*) FROM t").await, 2);
    for few in sessions.chunks(2) {
        assert_eq!(crowd(few).await, [""; 0]);
    }
    let after = host.vm("a").await.status;
    assert_eq!((after.cell_pid, after.cell_starts), (before.cell_pid, before.cell_starts));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k72_a_cell_without_descriptors_refuses_and_recovers() {
    a_cell_with_few("open_files = 64").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k72_a_cell_without_threads_refuses_and_recovers() {
    // A uid's threads are counted, of whichever cell: this one has a uid that no other has.
    a_cell_with_few("threads = 16, uid_first = 1900000, uid_count = 4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k72_a_file_at_its_limit_is_an_error_and_the_cell_lives() {
    let host = Host::configured(&["a"], "cells = { file_bytes = 4194304 }").await;
    let guest = host.attach("a").await;
    let session = guest.session().await;
    table(&session).await;
    let before = host.until("a", VmState::Attached).await.status;
    // In one transaction, which makes the log as long; and in many, which make the database so.
    let large = session.execute("INSERT INTO t VALUES (zeroblob(6000000))", &[]).await;
    assert_eq!(large.unwrap_err().sqlstate(), "53100");
    let mut acknowledged = 1;
    let refusal = loop {
        match session.execute("INSERT INTO t VALUES (randomblob(100000))", &[]).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100, "more than the file takes");
    };
    assert_eq!(refusal.sqlstate(), "53100");
    assert_eq!(number(&session, "SELECT count(*) FROM t").await, acknowledged);
    session.execute("DELETE FROM t", &[]).await.unwrap();
    session.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    let after = host.vm("a").await.status;
    assert_eq!((after.cell_pid, after.cell_starts), (before.cell_pid, before.cell_starts));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k72_a_vamosd_without_descriptors_lives_and_accepts_again() {
    let mut daemon = Daemon::ready("k72");
    let session = daemon.attach().await.session().await;
    table(&session).await;
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid().as_raw_nonzero())).unwrap().count();
    let squeezed = Squeezed::to(daemon.pid(), Resource::Nofile, open as u64);
    let control = daemon.path("run/control.sock");
    // They wait in the kernel's queue.
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(UnixStream::connect(&control).await.unwrap());
    }
    for row in 2..12 {
        session.execute(&format!("INSERT INTO t VALUES ({row})"), &[]).await.unwrap();
    }
    drop(squeezed);
    drop(waiting);
    // A channel to the control plane is heard again: HTTP/2's server speaks first.
    let end = Instant::now() + PATIENCE;
    let stream = UnixStream::connect(&control).await.unwrap();
    let mut greeting = [0; 9];
    loop {
        assert!(Instant::now() < end, "vamosd accepts nobody any more");
        stream.readable().await.unwrap();
        match stream.try_read(&mut greeting) {
            Ok(read) if read > 0 => break,
            Ok(_) => panic!("vamosd hung up:\n{}", daemon.log()),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
    assert_eq!(number(&session, "SELECT count(*) FROM t").await, 11);
    daemon.kill();
}
