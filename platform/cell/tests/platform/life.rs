//! A statement's way to disk, and what becomes of cells.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use vamos_host::names::{ServiceKind, ServiceName};
use vamos_host::registry::Terms;
use vamos_host::registry::Volume;
use vamos_proto::control::VmState;
use vamos_proto::frame::{Decoder, encode};
use vamos_proto::hello::{Hello, KIND_HELLO, KIND_WELCOME, PROTOCOL, Welcome};
use vamos_proto::id::VsockPort;
use vamos_proto::limits::HELLO_BODY_BYTES_MAX;
use vamos_sql_client::Client;

use crate::support::{Host, PATIENCE, number, vm_id};

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_vms_bound_to_one_service_have_two_databases() {
    let host = Host::with_vms(&["a", "b"]).await;
    let (first, second) = (host.attach("a").await, host.attach("b").await);
    let (first, second) = (first.session().await, second.session().await);
    first.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    first.execute("INSERT INTO t VALUES (7)", &[]).await.unwrap();
    let error = second.execute("SELECT * FROM t", &[]).await.unwrap_err();
    assert!(error.to_string().contains("no such table"), "{error}");
    assert_eq!(number(&first, "SELECT x FROM t").await, 7);
    for vm in ["a", "b"] {
        assert!(host.volume(vm).join("catalog.db").exists());
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cell_disturbs_no_other_vm_and_loses_nothing() {
    let host = Host::with_vms(&["a", "b"]).await;
    let (attached, b) = (host.attach("a").await, host.attach("b").await);
    let (in_a, in_b) = (attached.session().await, b.session().await);
    for session in [&in_a, &in_b] {
        session.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    }
    in_b.execute("BEGIN", &[]).await.unwrap();
    in_b.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    in_a.execute("INSERT INTO t VALUES (5)", &[]).await.unwrap();
    let other = host.vm("b").await.status.cell_pid;
    for _ in 0..3 {
        let before = host.until("a", VmState::Attached).await.status;
        kill(before.cell_pid);
        let killed = Instant::now();
        let after = loop {
            let now = host.vm("a").await.status;
            if now.cell_starts > before.cell_starts && now.cell_pid != 0 {
                break now;
            }
            assert!(killed.elapsed() < PATIENCE, "{now:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        assert_ne!(after.cell_pid, before.cell_pid);
        assert_eq!(number(&attached.session().await, "SELECT x FROM t").await, 5);
        // The transaction that was open in the other VM still is.
        assert_eq!(number(&in_b, "SELECT count(*) FROM t").await, 1);
    }
    drop(attached);
    in_b.execute("COMMIT", &[]).await.unwrap();
    assert_eq!(host.vm("b").await.status.cell_pid, other);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_come_and_go_while_the_vm_runs() {
    let host = Host::with_vms(&["a"]).await;
    let guest = host.attach("a").await;
    let mut hello = guest.channel.open(VsockPort::HELLO).await.unwrap();
    let mut request = BytesMut::new();
    let body = Hello { agent_version: "test".into(), protocol: PROTOCOL };
    encode(&mut request, 0, 1, KIND_HELLO, |out| body.encode(out).unwrap());
    hello.write_all(&request).await.unwrap();
    let mut input = BytesMut::new();
    let mut welcome = async || {
        let decoder = Decoder::new(HELLO_BODY_BYTES_MAX);
        loop {
            if let Some(frame) = decoder.decode(&mut input).unwrap() {
                assert_eq!(frame.header.kind, KIND_WELCOME);
                return Welcome::decode(frame.body).unwrap();
            }
            let count = timeout(PATIENCE, hello.read_buf(&mut input)).await.unwrap().unwrap();
            assert!(count > 0, "hello ended");
        }
    };
    let names = |welcome: &Welcome| welcome.bindings.iter().map(|b| b.name.clone()).collect::<Vec<_>>();
    let first = welcome().await;
    assert_eq!((first.vm.as_str(), names(&first)), ("a", vec!["catalog".to_string()]));

    let orders = ServiceName::new("orders").unwrap();
    host.platform.register_service(orders.clone(), ServiceKind::Sql).await.unwrap();
    let bound = host.platform.bind(vm_id("a"), orders.clone(), Terms::default()).await.unwrap();
    assert_eq!(names(&welcome().await), ["catalog", "orders"]);
    let client = Client::connect(&guest.channel, bound.port).await.unwrap();
    let session = client.open("orders", "tests").await.unwrap();
    assert_eq!(number(&session, "SELECT 1").await, 1);

    host.platform.unbind(vm_id("a"), orders).await.unwrap();
    assert_eq!(names(&welcome().await), ["catalog"]);
    timeout(PATIENCE, client.ended()).await.unwrap();
    assert!(Client::connect(&guest.channel, bound.port).await.is_err());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_cell_is_replaced_and_a_discarded_one_at_once() {
    let host = Host::with_vms(&["a"]).await;
    host.attach("a").await.session().await.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    for drain in [Some(Duration::from_secs(2)), None] {
        let before = host.vm("a").await.status.cell_starts;
        host.platform.replace_cell(&vm_id("a"), drain).await.unwrap();
        let after = host.until("a", VmState::Ready).await.status;
        assert_eq!(after.cell_starts, before + 1);
        let session = host.attach("a").await.session().await;
        assert_eq!(number(&session, "SELECT count(*) FROM t").await, 0);
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_vm_leaves_its_volume_unless_purged() {
    let host = Host::with_vms(&[]).await;
    let created = host.platform.create_vm(vm_id("a"), None, Volume::Local).await.unwrap();
    assert_eq!(created.status.state, VmState::Ready);
    host.platform.delete_vm(vm_id("a"), false).await.unwrap();
    assert!(host.volume("a").exists() && !host.socket("a").exists());
    let again = host.platform.create_vm(vm_id("a"), None, Volume::Local).await.unwrap();
    assert_eq!(again.row.uid, created.row.uid);
    host.platform.delete_vm(vm_id("a"), true).await.unwrap();
    assert!(!host.volume("a").exists());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_the_platform_has_ended() {
    let host = Host::with_vms(&["a", "b"]).await;
    let pids = [host.vm("a").await.status.cell_pid, host.vm("b").await.status.cell_pid];
    let _attached = host.attach("a").await;
    let started = Instant::now();
    host.platform.stop(Duration::from_millis(200)).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for pid in pids {
        assert!(!Path::new("/proc").join(pid.to_string()).exists(), "cell {pid} lives");
    }
    assert_eq!(fs::read_dir(host.path("run/vms")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_is_quick_and_an_idle_cell_small() {
    let host = Host::with_vms(&["a"]).await;
    // The first attachment creates the database.
    host.attach("a").await.session().await.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..5 {
        host.until("a", VmState::Ready).await;
        let started = Instant::now();
        let guest = host.attach("a").await;
        assert_eq!(number(&guest.session().await, "SELECT 1").await, 1);
        times.push(started.elapsed());
    }
    times.sort();
    host.until("a", VmState::Ready).await;
    let pid = host.vm("a").await.status.cell_pid;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("attach: {times:?}; idle cell: {kib} KiB PSS");
    // Times are for `bench-channel`; on a busy machine only the best of them says what attaching takes.
    assert!(times[0] <= Duration::from_millis(50), "attach: {times:?}");
    assert!(kib <= 8 << 10, "an idle cell takes {kib} KiB");
    host.stop().await;
}
