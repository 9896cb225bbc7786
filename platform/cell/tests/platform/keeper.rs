//! A cell is killed under a running guest, whose device goes on: no front-end attaches anew here.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use vamos_proto::control::VmState;
use vamos_proto::id::VsockPort;

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
        // What waited for an answer is told that there will be none.
        let lost = timeout(PATIENCE, session.execute("SELECT 1", &[])).await.expect("it waits for ever");
        assert!(lost.is_err(), "{lost:?}");
        assert_eq!(answered(&guest, "SELECT count(*) FROM t").await, round + 1);
        times.push(killed.elapsed());
    }
    times.sort();
    println!("kill to next answered statement: median {:?}, longest {:?}", times[8], times[15]);
    assert_eq!(host.vm("a").await.status.cell_starts, KILLS as u64 + 1);
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
