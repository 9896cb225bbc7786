//! The fence: a lease that lapses holds everything back, one that is lost ends it, and nothing is acknowledged meanwhile.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use support::{Host, int};
use tokio::time::timeout;
use vamos_sql_server::SqlConfig;
use vamos_sqlite::{Fence, GiveUp, SqliteConfig, SqliteEngine};

/// Long enough for a reply to come if one were to come; nothing is asserted about it being short.
const A_WHILE: Duration = Duration::from_millis(300);

fn host(fence: &Fence, given_up: &Arc<AtomicUsize>) -> Host {
    let given_up = given_up.clone();
    let give_up = GiveUp::new(move |_| {
        given_up.fetch_add(1, SeqCst);
    });
    let config = SqliteConfig { fence: fence.clone(), give_up, ..SqliteConfig::default() };
    Host::with(config, SqlConfig::default())
}

/// A fence by a clock that stands at 0: valid from the first renewal on.
fn fence() -> Fence {
    let fence = Fence::lapsed(|| 0);
    fence.renew(1);
    fence
}

/// Which of the requests that commit, or read, are answered while the lease has lapsed.
async fn answered_without_the_lease(lapses: impl Fn(&Fence)) -> Vec<&'static str> {
    let mut answered = Vec::new();
    for (before, text) in [
        ("SELECT 1", "INSERT INTO t VALUES (2)"),
        ("SELECT x FROM t", "SELECT x FROM t"),
        ("BEGIN; INSERT INTO t VALUES (2)", "COMMIT"),
        ("SELECT 1", "VACUUM"),
    ] {
        let (fence, given_up) = (fence(), Arc::default());
        let host = host(&fence, &given_up);
        let mut client = host.session().await;
        client.run("CREATE TABLE t(x)").await;
        for text in before.split("; ") {
            client.run(text).await;
        }
        lapses(&fence);
        if timeout(A_WHILE, client.try_run(text)).await.is_ok() {
            answered.push(text);
        }
        fence.renew(1);
    }
    answered
}

#[tokio::test]
async fn nothing_is_answered_while_the_lease_has_lapsed() {
    assert_eq!(answered_without_the_lease(|fence| fence.renew(0)).await, Vec::<&str>::new());
}

/// The test above would notice an engine that does not ask.
#[tokio::test]
async fn a_dropped_fence_is_noticed() {
    assert_eq!(answered_without_the_lease(|_| {}).await.len(), 4);
}

#[tokio::test]
async fn what_waits_goes_on_when_the_lease_is_renewed() {
    let (fence, given_up) = (fence(), Arc::default());
    let host = host(&fence, &given_up);
    let mut client = host.session().await;
    client.run("CREATE TABLE t(x)").await;
    fence.renew(0);
    let (renewed, writing) = (fence.clone(), client.run("INSERT INTO t VALUES (2)"));
    let renewal = tokio::task::spawn_blocking(move || {
        std::thread::sleep(A_WHILE);
        renewed.renew(1);
    });
    writing.await;
    renewal.await.unwrap();
    assert_eq!(client.rows("SELECT x FROM t").await, [[int(2)]]);
    assert_eq!(given_up.load(SeqCst), 0);
}

#[tokio::test]
async fn a_lost_lease_ends_the_process_and_acknowledges_nothing() {
    let (fence, given_up) = (fence(), Arc::default());
    let host = host(&fence, &given_up);
    let mut client = host.session().await;
    client.run("CREATE TABLE t(x)").await;
    fence.lose();
    // Renewals that were under way change nothing.
    fence.renew(1);
    client.fails("INSERT INTO t VALUES (2)").await;
    assert_eq!(given_up.load(SeqCst), 1);
    client.fails("SELECT x FROM t").await;
    let other = rusqlite::Connection::open(host.path()).unwrap();
    let rows: i64 = other.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
}

#[test]
fn k70_validity_is_counted_by_the_clock_the_fence_was_given_and_no_other() {
    static NOW: AtomicU64 = AtomicU64::new(100);
    let fence = Fence::lapsed(|| NOW.load(SeqCst));
    assert!(!fence.holds());
    fence.renew(110);
    assert!(fence.holds());
    NOW.store(110, SeqCst);
    assert!(!fence.holds());
    fence.renew(120);
    assert!(fence.holds());
    fence.lose();
    assert!(!fence.holds());
    assert!(Fence::always().holds());
}

#[test]
fn a_database_is_not_opened_without_the_lease() {
    let volume = tempfile::tempdir().unwrap();
    let fence = Fence::lapsed(|| 0);
    fence.lose();
    let config = SqliteConfig { fence, ..SqliteConfig::default() };
    assert!(SqliteEngine::open(volume.path(), "app", config).is_err());
    assert_eq!(std::fs::read_dir(volume.path()).unwrap().count(), 0);
}
