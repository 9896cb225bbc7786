//! A cell is killed under a running guest, whose device goes on: no front-end attaches anew here.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use vamos_proto::control::VmState;
use vamos_proto::id::VsockPort;
use vamos_sql_client::{Session, Value};

use crate::support::{Guest, Host, PATIENCE, number, vm_id};

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

/// Kills the VM's cell and waits until vamosd knows.
async fn kill_cell(host: &Host, vm: &str) {
    let before = host.until(vm, VmState::Attached).await.status;
    kill(before.cell_pid);
    let killed = Instant::now();
    while host.vm(vm).await.status.cell_starts == before.cell_starts {
        assert!(killed.elapsed() < PATIENCE, "no other cell was started");
        sleep(Duration::from_millis(1)).await;
    }
}

/// A session on the guest's first binding, as soon as there can be one.
async fn answered(guest: &Guest, sql: &str) -> i64 {
    timeout(PATIENCE, async { number(&guest.session().await, sql).await }).await.expect("no answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_guest_has_its_device_again_when_its_cell_is_killed() {
    const KILLS: i64 = 16;
    let host = Host::with_vms(&["a"]).await;
    let guest = host.attach("a").await;
    guest.session().await.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    let mut times = Vec::new();
    for round in 0..KILLS {
        let session = guest.session().await;
        session.execute(&format!("INSERT INTO t VALUES ({round})"), &[]).await.unwrap();
        let pid = host.until("a", VmState::Attached).await.status.cell_pid;
        if round == 8 {
            // Longer in a row, and they would be slowed down as those of a cell that cannot live.
            sleep(Duration::from_millis(1100)).await;
        }
        kill(pid);
        let killed = Instant::now();
        let counted = timeout(PATIENCE, number(&session, "SELECT count(*) FROM t")).await;
        times.push(killed.elapsed());
        assert_eq!(counted.expect("no answer"), round + 1);
    }
    times.sort();
    println!("kill to next answered statement: median {:?}, longest {:?}", times[8], times[15]);
    assert_eq!(host.vm("a").await.status.cell_starts, KILLS as u64 + 1);
    host.stop().await;
}

/// One client: autocommit writes, and transactions that read and write; how often it had to repeat one.
async fn work(session: Session, client: i64, rounds: i64) -> usize {
    let insert = session.prepare("INSERT INTO done VALUES (?1, ?2)").await.unwrap();
    let mut repeated = 0;
    for round in 0..rounds {
        let key = [Value::Integer(client), Value::Integer(round)];
        if round % 2 == 0 {
            assert_eq!(session.run(&insert, &key).await.unwrap().changes, 1);
            continue;
        }
        loop {
            session.execute("BEGIN IMMEDIATE", &[]).await.unwrap();
            let transaction = async {
                let total = session.execute("SELECT n + 1 FROM total", &[]).await?.rows()?.remove(0);
                session.run(&insert, &key).await?;
                session.execute("UPDATE total SET n = ?1", &total).await?;
                session.execute("COMMIT", &[]).await
            };
            match transaction.await {
                Ok(_) => break,
                // Another one was first after the loss, and has written what this one had read.
                Err(error) if error.sqlstate() == "40001" => repeated += 1,
                Err(error) => panic!("{error}"),
            }
            // If it was COMMIT that was refused, there is nothing left to roll back.
            if let Err(error) = session.execute("ROLLBACK", &[]).await {
                assert_eq!(error.sqlstate(), "25P01", "{error}");
            }
        }
    }
    repeated
}

/// Nothing acknowledged is lost, nothing is done twice, no statement fails.
#[tokio::test(flavor = "multi_thread")]
async fn clients_do_not_notice_that_cells_are_killed() {
    const CLIENTS: i64 = 12;
    const ROUNDS: i64 = 500;
    let host = Host::with_vms(&["a"]).await;
    let guest = host.attach("a").await;
    let first = guest.session().await;
    for statement in [
        "CREATE TABLE done(client, round, PRIMARY KEY (client, round))",
        "CREATE TABLE total(n)",
        "INSERT INTO total VALUES (0)",
    ] {
        first.execute(statement, &[]).await.unwrap();
    }
    let mut working = Vec::new();
    for client in 0..CLIENTS {
        working.push(tokio::spawn(work(guest.session().await, client, ROUNDS)));
    }
    let mut kills = 0;
    while working.iter().any(|work| !work.is_finished()) {
        // As soon as the one before serves, and some time later; but not like a cell that cannot live.
        let pause = if kills % 7 == 6 { 1_100_000 } else { 500 + kills * 7_919 % 40_000 };
        sleep(Duration::from_micros(pause)).await;
        let cell = host.until("a", VmState::Attached).await.status.cell_pid;
        // vamosd may not have heard yet that the one before is dead.
        kills += u64::from(kill_process(Pid::from_raw(cell as i32).unwrap(), Signal::KILL).is_ok());
        assert!(kills < 2_000, "the work does not come to an end");
    }
    let mut repeated = 0;
    for work in working {
        repeated += timeout(PATIENCE, work).await.expect("no end").unwrap();
    }
    println!("{kills} kills, {repeated} transactions repeated");
    assert!(kills > 3, "{kills} kills prove nothing");
    assert_eq!(number(&first, "SELECT count(*) FROM done").await, CLIENTS * ROUNDS);
    assert_eq!(number(&first, "SELECT n FROM total").await, CLIENTS * ROUNDS / 2);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stream_of_a_killed_cell_is_reset() {
    const STREAMS: usize = 600;
    let host = Host::with_vms(&["a"]).await;
    let guest = host.attach("a").await;
    // They say nothing and hear nothing: only a reset can tell them.
    let mut idle = Vec::new();
    for _ in 0..STREAMS {
        idle.push(guest.channel.open(VsockPort::HELLO).await.unwrap());
    }
    // Closed ones need no reset, and their places in the table are used again.
    idle.drain(..100);
    for _ in 0..50 {
        idle.push(guest.channel.open(VsockPort::HELLO).await.unwrap());
    }
    kill_cell(&host, "a").await;
    for mut stream in idle {
        let end = timeout(PATIENCE, stream.read_u8()).await.expect("a stream waits for ever");
        assert!(end.is_err());
    }
    assert_eq!(answered(&guest, "SELECT 1").await, 1);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_killed_while_they_take_over_are_succeeded_too() {
    let host = Host::with_vms(&["a"]).await;
    let guest = host.attach("a").await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(guest.channel.open(VsockPort::HELLO).await.unwrap());
    }
    // Each as early as it can be seen, at another instant of its start.
    let mut last = host.until("a", VmState::Attached).await.status.cell_pid;
    kill(last);
    let mut killed = 0;
    while killed < 5 {
        let pid = host.vm("a").await.status.cell_pid;
        if pid != 0 && pid != last {
            sleep(Duration::from_micros(300 * killed)).await;
            kill(pid);
            (last, killed) = (pid, killed + 1);
        }
        tokio::task::yield_now().await;
    }
    for mut stream in idle {
        assert!(timeout(PATIENCE, stream.read_u8()).await.expect("a stream waits for ever").is_err());
    }
    assert_eq!(answered(&guest, "SELECT 1").await, 1);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_cell_keeps_its_guest() {
    let host = Host::with_vms(&["a"]).await;
    let guest = host.attach("a").await;
    guest.session().await.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    for drain in [Some(Duration::from_secs(2)), None] {
        let starts = host.vm("a").await.status.cell_starts;
        host.platform.replace_cell(&vm_id("a"), drain).await.unwrap();
        assert_eq!(host.until("a", VmState::Attached).await.status.cell_starts, starts + 1);
        assert_eq!(answered(&guest, "SELECT count(*) FROM t").await, 0);
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_leaves_while_it_has_no_cell_makes_room_for_another() {
    let host = Host::with_vms(&["a"]).await;
    let guest = host.attach("a").await;
    assert_eq!(answered(&guest, "SELECT 1").await, 1);
    kill(host.until("a", VmState::Attached).await.status.cell_pid);
    drop(guest);
    host.until("a", VmState::Ready).await;
    assert_eq!(answered(&host.attach("a").await, "SELECT 2").await, 2);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_on_their_way_at_the_kill_are_not_taken_for_another_stream_s() {
    let host = Host::with_vms(&["a"]).await;
    let guest = host.attach("a").await;
    let session = guest.session().await;
    session.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    for round in 0..5 {
        // A service that reads nothing of this keeps it in the rings and windows.
        let mut stream = guest.channel.open(VsockPort::HELLO).await.unwrap();
        let writer = tokio::spawn(async move { while stream.write_all(&[0xff; 4096]).await.is_ok() {} });
        sleep(Duration::from_millis(5 * round)).await;
        kill_cell(&host, "a").await;
        timeout(PATIENCE, writer).await.expect("the writer waits for ever").unwrap();
        assert_eq!(answered(&guest, "SELECT count(*) FROM t").await, 0);
    }
    host.stop().await;
}
