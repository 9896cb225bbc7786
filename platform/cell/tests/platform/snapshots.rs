//! Snapshots of a running VM's volume, going back to one, and another VM made of one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::timeout;
use vamos_host::names::{ServiceKind, ServiceName, SnapshotName};
use vamos_host::registry::{Registry, Restoration, Terms, UidRange};
use vamos_proto::control::VmState;
use vamos_proto::id::VsockPort;
use vamos_sql_client::{Client, ClientError, Session};

use crate::migration::Guest;
use crate::support::{DATABASE, Host, PATIENCE, number, vm_id};

const VM: &str = "kept";
const SECOND: &str = "ledger";

fn named(name: &str) -> SnapshotName {
    SnapshotName::new(name).unwrap()
}

fn snapshot_file(host: &Host, name: &str, database: &str) -> PathBuf {
    host.path("state/snapshots").join(VM).join(name).join(format!("{database}.db"))
}

fn counted(file: &Path, sql: &str) -> i64 {
    let db = Connection::open(file).unwrap();
    let intact: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(intact, "ok");
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Binds the VM to a second service.
async fn bind_second(host: &Host) {
    let service = ServiceName::new(SECOND).unwrap();
    host.platform.register_service(service.clone(), ServiceKind::Sql).await.unwrap();
    host.platform.bind(vm_id(VM), service, Terms::default()).await.unwrap();
}

/// What a client of a VM that is another one by now is told.
async fn assert_fenced(session: &Session) {
    let told = timeout(PATIENCE, session.execute("SELECT count(*) FROM t", &[])).await.expect("no answer");
    match told {
        Err(ClientError::SessionLost { .. }) => {}
        other => panic!("a session of before goes on: {other:?}"),
    }
}

/// Writers put each row in one database first and in the other one second: at no instant is one in the second alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_of_one_instant_whatever_is_written_meanwhile() {
    const WRITERS: i64 = 4;
    let host = Host::with_vms(&[VM]).await;
    bind_second(&host).await;
    let guest = host.attach(VM).await;
    let second = Client::connect(&guest.channel, VsockPort(VsockPort::FIRST_BINDING.0 + 1)).await.unwrap();
    let create = "CREATE TABLE t (writer, n, PRIMARY KEY (writer, n))";
    guest.session().await.execute(create, &[]).await.unwrap();
    second.open(SECOND, "tests").await.unwrap().execute(create, &[]).await.unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let mut writing = Vec::new();
    for writer in 0..WRITERS {
        let (first, second) = (guest.session().await, second.open(SECOND, "tests").await.unwrap());
        let ended = ended.clone();
        writing.push(tokio::spawn(async move {
            let mut n = 0;
            while !ended.load(Ordering::Relaxed) {
                let insert = format!("INSERT INTO t VALUES ({writer}, {n})");
                first.execute(&insert, &[]).await.unwrap();
                second.execute(&insert, &[]).await.unwrap();
                n += 1;
            }
            n
        }));
    }
    let mut seen = 0;
    for round in 0..20 {
        let name = format!("s{round}");
        host.platform.take_snapshot(&vm_id(VM), named(&name)).await.unwrap();
        let mut firsts = 0;
        for writer in 0..WRITERS {
            let count = format!("SELECT count(*) FROM t WHERE writer = {writer}");
            let first = counted(&snapshot_file(&host, &name, DATABASE), &count);
            let second = counted(&snapshot_file(&host, &name, SECOND), &count);
            assert!(second <= first && first <= second + 1, "{first} rows, then {second}");
            firsts += first;
        }
        assert!(firsts >= seen, "a later snapshot has less");
        seen = firsts;
    }
    ended.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writing {
        written += writer.await.unwrap();
    }
    assert!(seen > 100 && written >= seen, "{seen} of {written} prove nothing");
    assert_eq!(number(&guest.session().await, "SELECT count(*) FROM t").await, written);
    let refused = host.platform.take_snapshot(&vm_id(VM), named("s0")).await.unwrap_err();
    assert!(refused.to_string().contains("snapshot s0 of VM kept exists already"), "{refused}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k74_a_restored_volume_is_the_snapshot_and_sessions_of_before_are_refused() {
    let host = Host::with_vms(&[VM]).await;
    let guest = host.attach(VM).await;
    let before = guest.session().await;
    before.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    before.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    host.platform.take_snapshot(&vm_id(VM), named("one")).await.unwrap();
    let open = guest.session().await;
    open.execute("BEGIN", &[]).await.unwrap();
    open.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
    // A database that there was not then, too, is gone afterwards.
    bind_second(&host).await;
    let generation = host.vm(VM).await.row.generation;
    for round in 1..=3 {
        let view = host.platform.restore_vm(&vm_id(VM), named("one")).await.unwrap();
        assert_eq!(view.row.generation, generation + round);
        host.until(VM, VmState::Attached).await;
        let after = timeout(PATIENCE, guest.session()).await.expect("no session");
        assert_eq!(number(&after, "SELECT count(*) FROM t").await, 1);
        after.execute("INSERT INTO t VALUES (3)", &[]).await.unwrap();
        assert_eq!(number(&after, "SELECT count(*) FROM t").await, 2);
    }
    assert_fenced(&before).await;
    let told = open.execute("COMMIT", &[]).await.unwrap_err();
    assert!(matches!(told, ClientError::SessionLost { .. }), "{told:?}");
    let unknown = host.platform.restore_vm(&vm_id(VM), named("two")).await.unwrap_err();
    assert!(unknown.to_string().contains("there is no snapshot two of VM kept"), "{unknown}");
    host.stop().await;
}

/// One state, two VMs that go on from it: each for itself.
#[tokio::test(flavor = "multi_thread")]
async fn k74_a_clone_has_the_data_and_is_nobody_elses_session() {
    const CLONE: &str = "clone";
    let host = Host::with_vms(&[VM]).await;
    let guest = Guest::of(host.socket(VM));
    let session = guest.session().await;
    session.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    session.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    host.platform.take_snapshot(&vm_id(VM), named("one")).await.unwrap();
    session.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
    let view = host.platform.clone_vm(&vm_id(VM), vm_id(CLONE), named("one")).await.unwrap();
    let parent = host.vm(VM).await.row;
    assert!(view.row.uid != parent.uid && view.row.cid != parent.cid && view.row.secret != parent.secret);
    let other = host.attach(CLONE).await.session().await;
    assert_eq!(number(&other, "SELECT count(*) FROM t").await, 1);
    other.execute("INSERT INTO t VALUES (3), (4)", &[]).await.unwrap();
    // The parent goes on as if nothing had been.
    session.execute("INSERT INTO t VALUES (5)", &[]).await.unwrap();
    assert_eq!(number(&session, "SELECT count(*) FROM t").await, 3);
    // And its state, in the clone, is refused: the guest's memory was cloned with its sessions.
    drop(other);
    guest.plug_at(host.socket(CLONE));
    host.platform.replace_cell(&vm_id(VM), None).await.unwrap();
    guest.unplug().await;
    assert_fenced(&session).await;
    let clone = Connection::open(host.volume(CLONE).join(format!("{DATABASE}.db"))).unwrap();
    let rows: i64 = clone.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 3, "the clone has what it had and wrote, and nothing of its parent's");
    drop(clone);
    for refused in [
        host.platform.clone_vm(&vm_id(VM), vm_id(CLONE), named("one")).await.map(drop),
        host.platform.clone_vm(&vm_id(VM), vm_id("other"), named("none")).await.map(drop),
    ] {
        refused.unwrap_err();
    }
    host.platform.remove_snapshot(&vm_id(VM), named("one")).await.unwrap();
    assert!(!host.path("state/snapshots").join(VM).join("one").exists());
    assert!(host.platform.snapshots_of(&vm_id(VM)).await.unwrap().is_empty());
    host.stop().await;
}

/// A vamosd that dies while a volume is made of a snapshot: the next one makes it, from whatever was left.
#[tokio::test(flavor = "multi_thread")]
async fn a_restoration_that_was_interrupted_anywhere_is_done_by_the_next_vamosd() {
    let mut host = Host::with_vms(&[VM]).await;
    bind_second(&host).await;
    {
        let guest = host.attach(VM).await;
        let session = guest.session().await;
        session.execute("CREATE TABLE t(x)", &[]).await.unwrap();
        session.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
        host.platform.take_snapshot(&vm_id(VM), named("one")).await.unwrap();
    }
    let volume = host.volume(VM);
    let remove = |name: &str| drop(fs::remove_file(volume.join(name)));
    let put = |name: &str| {
        fs::copy(snapshot_file_in(&volume, name), volume.join(format!("{name}.db.new"))).unwrap();
    };
    for left in 0..6 {
        host.until(VM, VmState::Ready).await;
        let guest = host.attach(VM).await;
        let session = timeout(PATIENCE, guest.session()).await.expect("no session");
        session.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
        drop((session, guest));
        host.platform.stop(Duration::ZERO).await;
        {
            let uids = UidRange { first: 1_000_000, count: 10 };
            let mut registry = Registry::open(&host.path("state/registry.db"), uids).unwrap();
            let from = Restoration { source: vm_id(VM), snapshot: named("one") };
            registry.begin_restoration(&vm_id(VM), &from).unwrap();
        }
        match left {
            0 => {}
            1 => fs::write(volume.join(format!("{DATABASE}.db.new")), b"half").unwrap(),
            2 => [DATABASE, SECOND].into_iter().for_each(put),
            3 => {
                [DATABASE, SECOND].into_iter().for_each(put);
                remove(&format!("{DATABASE}.db-wal"));
                remove(&format!("{DATABASE}.db"));
            }
            4 => {
                put(SECOND);
                fs::copy(snapshot_file_in(&volume, DATABASE), volume.join(format!("{DATABASE}.db"))).unwrap();
                remove(&format!("{DATABASE}.db-wal"));
            }
            _ => fs::remove_dir_all(&volume).unwrap(),
        }
        host = host.restart().await;
        let guest = host.attach(VM).await;
        let session = timeout(PATIENCE, guest.session()).await.expect("no session");
        assert_eq!(number(&session, "SELECT count(*) FROM t").await, 1, "left at {left}");
        assert!(!volume.join(format!("{DATABASE}.db.new")).exists());
    }
    host.stop().await;
}

fn snapshot_file_in(volume: &Path, database: &str) -> PathBuf {
    volume.join("../../snapshots").join(VM).join("one").join(format!("{database}.db"))
}
