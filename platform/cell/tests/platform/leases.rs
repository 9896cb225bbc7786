//! One volume, two hosts: at any time one of them has it, whatever is done to the processes of the other.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process, test_kill_process};
use tokio::time::{sleep, timeout};
use vamos_host::migration::Departing;
use vamos_host::names::ServiceName;
use vamos_host::registry::{Terms, Volume};
use vamos_proto::control::VmState;
use vamos_sql_client::{ClientError, Session};

use crate::daemon::Daemon;
use crate::migration::Guest;
use crate::support::{DATABASE, Host, PATIENCE, number, vm_id};

/// How long a lease is valid here.
const VALID: Duration = Duration::from_millis(600);

fn lease(etcd: &str) -> String {
    format!("[lease]\nvalid_ms = {}\n{etcd}", VALID.as_millis())
}

fn shared(volume: &Path) -> String {
    format!("volume = {{ class = 'shared', path = '{}' }}", volume.display())
}

fn host(name: &str, volume: &Path, etcd: &str) -> Daemon {
    Daemon::configured(name, &lease(etcd), &shared(volume))
}

/// A session on whatever device the host offers, as soon as it offers one.
async fn session(daemon: &Daemon) -> (Arc<Guest>, Session) {
    let guest = Guest::of(daemon.socket());
    let end = Instant::now() + PATIENCE;
    loop {
        if daemon.cell().is_some()
            && let Ok(Ok(session)) = timeout(Duration::from_secs(5), guest.try_session()).await
        {
            return (guest, session);
        }
        assert!(Instant::now() < end, "no session: {}", daemon.log());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k74_the_second_of_two_hosts_that_claim_a_volume_waits_and_says_for_whom() {
    let keep = tempfile::tempdir().unwrap();
    let head = lease("");
    let (first, second) = (Host::configured(&[], &head).await, Host::configured(&[], &head).await);
    let volume = Volume::Shared(keep.path().into());
    for host in [&first, &second] {
        host.platform.create_vm(vm_id("a"), None, volume.clone()).await.unwrap();
    }
    first.until("a", VmState::Ready).await;
    for _ in 0..4 {
        let view = second.until("a", VmState::BackingOff).await;
        assert!(view.status.detail.contains("is held by host"), "{}", view.status.detail);
        assert!(view.status.detail.contains("lease epoch 1"), "{}", view.status.detail);
        assert_eq!(view.status.cell_pid, 0);
        sleep(VALID).await;
    }
    assert_eq!(first.vm("a").await.status.state, VmState::Ready, "renewed all the time");
    // Given back, it is taken over at once, as it is.
    first.platform.delete_vm(vm_id("a"), false).await.unwrap();
    second.until("a", VmState::Ready).await;
    assert!(keep.path().join("data-2").is_dir() && !keep.path().join("data-1").exists());
    let gone = Volume::Shared(keep.path().join("not mounted"));
    let view = first.platform.create_vm(vm_id("b"), None, gone).await.unwrap();
    assert_eq!(view.status.state, VmState::BackingOff);
    assert!(view.status.detail.contains("not mounted"), "{}", view.status.detail);
    first.stop().await;
    second.stop().await;
}

/// A shared volume does not move: it is given back here and claimed there, and sessions go on.
#[tokio::test(flavor = "multi_thread")]
async fn k73_a_vm_with_a_shared_volume_moves_without_a_copy() {
    let keep = tempfile::tempdir().unwrap();
    let head = lease("");
    let (first, second) = (Host::configured(&[], &head).await, Host::configured(&[], &head).await);
    let (name, volume) = (vm_id("a"), Volume::Shared(keep.path().join("mounted")));
    std::fs::create_dir(keep.path().join("mounted")).unwrap();
    first.platform.create_vm(name.clone(), None, volume).await.unwrap();
    let service = ServiceName::new(DATABASE).unwrap();
    first.platform.bind(name.clone(), service, Terms::default()).await.unwrap();
    let guest = Guest::of(first.socket("a"));
    let session = guest.session().await;
    session.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    // Where it is not mounted it does not go.
    let hidden = keep.path().join("hidden");
    std::fs::rename(keep.path().join("mounted"), &hidden).unwrap();
    let departing = first.platform.leave(&name, "second".into()).await.unwrap();
    let arrive = |departing: Departing| {
        second.platform.arrive(departing.vm, departing.bindings, departing.token, "first".into())
    };
    let refused = arrive(departing.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("is not a directory of this host"), "{refused}");
    std::fs::rename(hidden, keep.path().join("mounted")).unwrap();
    let token = departing.token;
    arrive(departing).await.unwrap();
    for mut pieces in [
        first.platform.export(&name, token).await.unwrap(),
        first.platform.freeze(&name, token).await.unwrap(),
    ] {
        assert!(pieces.recv().await.is_none(), "something is copied");
    }
    second.platform.activate(&name, token).await.unwrap();
    first.platform.forget(&name, token).await.unwrap();
    guest.plug_at(second.socket("a"));
    session.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    assert_eq!(number(&session, "SELECT count(*) FROM t").await, 1);
    assert!(keep.path().join("mounted/data-2").is_dir());
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_of_one_class_and_what_needs_another_is_refused() {
    let host = Host::with_vms(&["a"]).await;
    let service = ServiceName::new(DATABASE).unwrap();
    let view = host.platform.create_vm(vm_id("far"), None, Volume::Remote).await.unwrap();
    assert_eq!(view.status.state, VmState::Ready);
    let refused = host.platform.bind(vm_id("far"), service, Terms::default()).await.unwrap_err();
    assert!(refused.to_string().contains("keeps its data in the volume"), "{refused}");
    for (class, path) in [("shared", ""), ("shared", "relative"), ("local", "/x"), ("nfs", "/x")] {
        Volume::new(class, path).unwrap_err();
    }
    host.platform.delete_vm(vm_id("far"), false).await.unwrap();
    let refused = host.platform.create_vm(vm_id("far"), None, Volume::Local).await.unwrap_err();
    assert!(
        refused.to_string().contains("the volume of VM far is remote, and cannot be made local"),
        "{refused}"
    );
    host.stop().await;
}

/// Inserts one row after the other, and counts those that were acknowledged.
async fn write(session: Session, acknowledged: Arc<AtomicI64>, ended: Arc<AtomicBool>) -> Session {
    while !ended.load(Ordering::SeqCst) {
        let row = acknowledged.load(Ordering::SeqCst);
        session.execute(&format!("INSERT INTO t VALUES ({row})"), &[]).await.unwrap();
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    session
}

/// The holder is stopped at random instants of its work, past the hand-over, and goes on. Whatever it does then, it
/// acknowledges nothing that the other has not, and commits nothing.
async fn stopped_past_the_hand_over(name: &str, etcd: &str, rounds: u64) {
    let keep = tempfile::tempdir().unwrap();
    std::fs::set_permissions(keep.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut first = host(&format!("{name}-1"), keep.path(), etcd);
    first.start();
    first.wait_until_ready();
    let (_guest, session_of_first) = session(&first).await;
    session_of_first.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)", &[]).await.unwrap();
    session_of_first.execute("CREATE TABLE other (n INTEGER PRIMARY KEY)", &[]).await.unwrap();
    let (acknowledged, ended) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let writing = tokio::spawn(write(session_of_first, acknowledged.clone(), ended.clone()));
    let mut second = host(&format!("{name}-2"), keep.path(), etcd);
    for round in 0..rounds {
        let before = acknowledged.load(Ordering::SeqCst);
        second.start();
        // Some time of its work, and at no particular instant of it.
        sleep(Duration::from_micros(100_000 + round * 37_123 % 50_000)).await;
        let cell = first.cell().unwrap();
        for process in [first.pid(), cell] {
            kill_process(process, Signal::STOP).unwrap();
        }
        let known = acknowledged.load(Ordering::SeqCst);
        assert!(known > before, "the first host does not work: {}", first.log());
        second.wait_until_ready();
        let (guest, taken_over) = session(&second).await;
        let there = number(&taken_over, "SELECT count(*) FROM t").await;
        assert!(there >= known, "{known} rows were acknowledged, {there} are there");
        taken_over.execute(&format!("INSERT INTO other VALUES ({round})"), &[]).await.unwrap();
        for process in [cell, first.pid()] {
            kill_process(process, Signal::CONT).unwrap();
        }
        let end = Instant::now() + PATIENCE;
        while test_kill_process(cell).is_ok() {
            assert!(Instant::now() < end, "the cell lives without a lease: {}", first.log());
            sleep(Duration::from_millis(2)).await;
        }
        // All that the first had acknowledged by its end is what the second had taken over.
        let told = acknowledged.load(Ordering::SeqCst);
        assert!(told <= there, "{told} rows were acknowledged, {there} had been taken over");
        assert_eq!(number(&taken_over, "SELECT count(*) FROM t").await, there, "somebody still writes");
        assert_eq!(number(&taken_over, "SELECT count(*) FROM other").await, round as i64 + 1);
        // And back, given away this time; the client of the first goes on, and has noticed nothing.
        drop(taken_over);
        guest.unplug().await;
        drop(guest);
        second.end();
        let end = Instant::now() + PATIENCE;
        while acknowledged.load(Ordering::SeqCst) <= told + 10 {
            assert!(Instant::now() < end, "the first does not go on: {}", first.log());
            sleep(Duration::from_millis(2)).await;
        }
    }
    ended.store(true, Ordering::SeqCst);
    let session = timeout(PATIENCE, writing).await.expect("no end").unwrap();
    let told = acknowledged.load(Ordering::SeqCst);
    assert_eq!(number(&session, "SELECT count(*) FROM t").await, told);
    assert_eq!(number(&session, "SELECT count(*) FROM other").await, rounds as i64);
    let intact = "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'";
    assert_eq!(number(&session, intact).await, 1);
    println!("{rounds} take-overs, {told} rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn k74_a_host_that_is_stopped_past_the_hand_over_commits_nothing_more() {
    stopped_past_the_hand_over("files", "", 4).await;
}

/// Its vamosd alone is stopped: nobody renews, the cell waits; it goes on when vamosd does, for nobody had the volume.
#[tokio::test(flavor = "multi_thread")]
async fn a_cell_whose_lease_is_not_renewed_waits_and_goes_on_when_it_is() {
    let keep = tempfile::tempdir().unwrap();
    std::fs::set_permissions(keep.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut only = host("only", keep.path(), "");
    only.start();
    only.wait_until_ready();
    let (_guest, session) = session(&only).await;
    session.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)", &[]).await.unwrap();
    let cell = only.cell();
    kill_process(only.pid(), Signal::STOP).unwrap();
    sleep(VALID * 2).await;
    let write = session.execute("INSERT INTO t VALUES (1)", &[]);
    tokio::pin!(write);
    assert!(timeout(VALID, &mut write).await.is_err(), "acknowledged without a lease");
    kill_process(only.pid(), Signal::CONT).unwrap();
    timeout(PATIENCE, write).await.expect("no answer").unwrap();
    assert_eq!(only.cell(), cell, "the cell was replaced");
    // And when another vamosd follows one that was killed.
    only.kill();
    sleep(VALID * 2).await;
    only.start();
    only.wait_until_ready();
    let told: Result<_, ClientError> =
        timeout(PATIENCE, session.execute("INSERT INTO t VALUES (2)", &[])).await.unwrap();
    told.unwrap();
    assert_eq!(only.cell(), cell, "the cell was replaced");
}

/// Members of etcd on loopback, each with a directory of its own.
struct Etcd {
    members: Vec<Child>,
    _keep: tempfile::TempDir,
    addresses: String,
}

impl Etcd {
    fn start(first_port: u16) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let client = |member: u16| format!("http://127.0.0.1:{}", first_port + 2 * member);
        let peer = |member: u16| format!("http://127.0.0.1:{}", first_port + 2 * member + 1);
        let cluster: Vec<_> = (0..3).map(|member| format!("m{member}={}", peer(member))).collect();
        let start = |member: u16| {
            Command::new("etcd")
                .args(["--name", &format!("m{member}")])
                .arg("--data-dir")
                .arg(keep.path().join(format!("m{member}")))
                .args(["--listen-client-urls", &client(member), "--advertise-client-urls", &client(member)])
                .args(["--listen-peer-urls", &peer(member), "--initial-advertise-peer-urls", &peer(member)])
                .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"])
                .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("etcd-server is installed by cargo verify")
        };
        let members = (0..3).map(start).collect();
        let addresses: Vec<_> = (0..3).map(client).collect();
        Self { members, addresses: addresses.join(" "), _keep: keep }
    }

    fn kill(&mut self, member: usize) {
        let _ = self.members[member].kill();
        let _ = self.members[member].wait();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill(member));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k74_the_same_with_leases_in_etcd_one_of_whose_members_is_killed() {
    let mut etcd = Etcd::start(23_790);
    let settings = format!("[lease.etcd]\nmembers = '{}'\n", etcd.addresses);
    stopped_past_the_hand_over("etcd", &settings, 1).await;
    etcd.kill(0);
    stopped_past_the_hand_over("two", &settings, 1).await;
}
