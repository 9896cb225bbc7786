//! vamosd is killed or upgraded under running guests. Their sessions live in the cells, which outlive it.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tokio::time::{sleep, timeout};
use vamos_link::{Channel, ProcessGuest};

use crate::daemon::Daemon;
use crate::support::{Guest, PATIENCE, number};

/// Waits until the cell is another one than `last`.
async fn another_cell(daemon: &Daemon, last: Option<rustix::process::Pid>) -> rustix::process::Pid {
    let end = Instant::now() + PATIENCE;
    loop {
        match daemon.cell() {
            Some(cell) if Some(cell) != last => return cell,
            _ => assert!(Instant::now() < end, "no other cell"),
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// The answer to a new session, as soon as there can be one.
async fn answered(guest: &Guest, sql: &str) -> i64 {
    timeout(PATIENCE, async { number(&guest.session().await, sql).await }).await.expect("no answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_sessions_outlive_a_killed_vamosd_and_the_next_one_collects_the_cell() {
    let mut daemon = Daemon::ready("outlives");
    let guest = daemon.attach().await;
    let session = guest.session().await;
    session.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    session.execute("BEGIN", &[]).await.unwrap();
    session.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    let cell = daemon.cell();
    for round in 1..=3 {
        daemon.kill();
        // Without a vamosd: in the transaction that was open, and with another session.
        assert_eq!(number(&session, "SELECT count(*) FROM t").await, round);
        assert_eq!(answered(&guest, "SELECT count(*) FROM t").await, 0);
        daemon.start();
        session.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
        daemon.wait_until_ready();
        assert_eq!(number(&session, "SELECT count(*) FROM t").await, round + 1);
        assert_eq!(daemon.cell(), cell, "the cell was restarted");
    }
    session.execute("COMMIT", &[]).await.unwrap();
    // What the next vamosd was given is enough for a successor of the cell.
    kill_process(cell.unwrap(), Signal::KILL).unwrap();
    another_cell(&daemon, cell).await;
    assert_eq!(answered(&guest, "SELECT count(*) FROM t").await, 4);
    // And for one after another death of vamosd.
    daemon.kill();
    daemon.start();
    daemon.wait_until_ready();
    assert_eq!(answered(&guest, "SELECT count(*) FROM t").await, 4);
    let second = daemon.cell();
    kill_process(second.unwrap(), Signal::KILL).unwrap();
    another_cell(&daemon, second).await;
    assert_eq!(answered(&guest, "SELECT count(*) FROM t").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_a_vamosd_killed_fifty_times_at_any_moment_is_not_noticed() {
    const KILLS: u64 = 50;
    let mut daemon = Daemon::ready("fifty");
    let guest = daemon.attach().await;
    let session = guest.session().await;
    session.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    let cell = daemon.cell();
    let (end, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (ended, count) = (end.clone(), written.clone());
    let client = tokio::spawn(async move {
        while !ended.load(Ordering::Relaxed) {
            session.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
        session
    });
    for round in 0..KILLS {
        daemon.kill();
        daemon.start();
        // From before it has read its configuration to long after it is ready.
        sleep(Duration::from_micros(round * 7919 % 60_000)).await;
    }
    daemon.kill();
    daemon.start();
    daemon.wait_until_ready();
    end.store(true, Ordering::Relaxed);
    let session = client.await.unwrap();
    let written = written.load(Ordering::Relaxed);
    println!("{written} statements during {KILLS} kills");
    assert_eq!(number(&session, "SELECT count(*) FROM t").await, written as i64);
    assert_eq!(daemon.cell(), cell, "the cell was restarted");
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_a_vamosd_killed_while_a_front_end_attaches_is_followed_by_one_that_goes_on() {
    const KILLS: u64 = 60;
    let mut daemon = Daemon::ready("attaches");
    let mut again = 0;
    for round in 0..KILLS {
        let socket = daemon.socket();
        let attaching = tokio::spawn(async move {
            let mut hung_up = 0;
            loop {
                match ProcessGuest::attach(&socket).await {
                    Ok(guest) => return (guest, hung_up),
                    // Accepted by a vamosd that was killed before it had given the connection to the cell.
                    Err(_) if hung_up < 3 => hung_up += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        sleep(Duration::from_micros(round * 97 % 3000)).await;
        daemon.kill();
        daemon.start();
        daemon.wait_until_ready();
        let (guest, hung_up) =
            timeout(PATIENCE, attaching).await.expect("the front-end waits for ever").unwrap();
        again += hung_up;
        let guest = Guest { channel: Channel::Process(guest) };
        assert_eq!(answered(&guest, "SELECT 1").await, 1);
        // What it said was kept whole: a successor of the cell is told all of it.
        let cell = daemon.cell();
        kill_process(cell.unwrap(), Signal::KILL).unwrap();
        another_cell(&daemon, cell).await;
        assert_eq!(answered(&guest, "SELECT 2").await, 2);
    }
    let in_hand = daemon.log().matches("had in hand").count();
    println!("{in_hand} of {KILLS} deaths with a message in hand; {again} front-ends had to connect again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_refuses_no_connect_restarts_no_vm_and_then_replaces_the_cells() {
    let daemon = Daemon::ready("upgrade");
    let guest = daemon.attach().await;
    let session = guest.session().await;
    session.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    let (cell, control) = (daemon.cell(), daemon.path("run/control.sock"));
    let (end, connects) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (ended, count) = (end.clone(), connects.clone());
    let client = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            UnixStream::connect(&control).expect("the control plane refuses a client");
            count.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    kill_process(daemon.pid(), Signal::HUP).unwrap();
    daemon.until_logged("the cell is of the new program").await;
    end.store(true, Ordering::Relaxed);
    client.join().unwrap();
    println!("{} connects during the upgrade", connects.load(Ordering::Relaxed));
    let log = daemon.log();
    let collected = log.find("the cell of an earlier vamosd is collected").expect("it was not collected");
    assert!(collected < log.find("the cell is replaced").expect("it was not replaced"));
    assert!(log.contains(&format!("pid={}", cell.unwrap().as_raw_pid())));
    assert_ne!(daemon.cell(), cell);
    assert_eq!(answered(&guest, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_a_lack_of_descriptors_ends_no_accept_loop() {
    let daemon = Daemon::ready("descriptors");
    let before = getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(4), ..before };
    prlimit(Some(daemon.pid()), Resource::Nofile, none).unwrap();
    let control = daemon.path("run/control.sock");
    let waiting: Vec<_> = (0..8).map(|_| UnixStream::connect(&control).unwrap()).collect();
    let socket = daemon.socket();
    let attaching = tokio::spawn(async move { ProcessGuest::attach(&socket).await });
    daemon.until_logged("cannot accept a client of the control plane now").await;
    daemon.until_logged("cannot accept a front-end now").await;
    prlimit(Some(daemon.pid()), Resource::Nofile, before).unwrap();
    let guest = timeout(PATIENCE, attaching).await.expect("it waits for ever").unwrap().unwrap();
    assert_eq!(answered(&Guest { channel: Channel::Process(guest) }, "SELECT 1").await, 1);
    drop(waiting);
}
