//! Volumes that cannot be used: the operator is told, the other VMs serve, nothing is lost.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use vamos_proto::control::VmState;

use crate::support::{Host, number, vm_id};

async fn refuses_until_mended(
    host: &Host,
    breaks: impl FnOnce(&Path),
    expected: &str,
    mends: impl FnOnce(&Path),
) {
    breaks(&host.volume("a"));
    host.platform.replace_cell(&vm_id("a"), None).await.unwrap();
    let broken = host.until("a", VmState::Broken).await.status;
    assert!(broken.detail.contains(expected), "{:?} does not say {expected:?}", broken.detail);
    // A VMM that attaches now is not left hanging.
    assert!(vamos_link::ProcessGuest::attach(&host.socket("a")).await.is_err());
    let other = host.attach("b").await.session().await;
    assert_eq!(number(&other, "SELECT 1").await, 1);
    drop(other);
    mends(&host.volume("a"));
    host.platform.replace_cell(&vm_id("a"), None).await.unwrap();
    host.until("a", VmState::Ready).await;
    let session = host.attach("a").await.session().await;
    assert_eq!(number(&session, "SELECT x FROM t").await, 7);
    drop(session);
    host.until("a", VmState::Ready).await;
    host.until("b", VmState::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_volume_is_reported_and_served_again_when_mended() {
    let host = Host::with_vms(&["a", "b"]).await;
    let session = host.attach("a").await.session().await;
    session.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    session.execute("INSERT INTO t VALUES (7)", &[]).await.unwrap();
    drop(session);
    host.until("a", VmState::Ready).await;
    let uid = fs::metadata(host.volume("a")).unwrap().uid();

    let to_root = |volume: &Path| chown(volume, Some(0), Some(0)).unwrap();
    let back = move |volume: &Path| chown(volume, Some(uid), Some(uid)).unwrap();
    refuses_until_mended(&host, to_root, "run: chown", back).await;

    let aside = host.path("aside");
    let (to, from) = (aside.clone(), aside);
    let no_directory = move |volume: &Path| {
        fs::rename(volume, &to).unwrap();
        fs::write(volume, "not a directory").unwrap();
    };
    let directory_again = move |volume: &Path| {
        fs::remove_file(volume).unwrap();
        fs::rename(&from, volume).unwrap();
    };
    refuses_until_mended(&host, no_directory, "is not a directory", directory_again).await;

    let lock_out = |volume: &Path| {
        chown(volume.join("catalog.db"), Some(0), Some(0)).unwrap();
        fs::set_permissions(volume.join("catalog.db"), PermissionsExt::from_mode(0o600)).unwrap();
    };
    let readable = move |volume: &Path| chown(volume.join("catalog.db"), Some(uid), Some(uid)).unwrap();
    refuses_until_mended(&host, lock_out, "catalog.db", readable).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let host = Host::with_vms(&["a", "b"]).await;
    let session = host.attach("a").await.session().await;
    session.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    drop(session);
    host.until("a", VmState::Ready).await;
    let file = host.volume("a").join("catalog.db");
    // The log alone would be enough to recover from.
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(host.volume("a").join(format!("catalog.db{suffix}")));
    }
    fs::write(&file, vec![0x55; 8192]).unwrap();
    host.platform.replace_cell(&vm_id("a"), None).await.unwrap();
    let broken = host.until("a", VmState::Broken).await.status;
    assert!(broken.detail.contains("catalog.db"), "{}", broken.detail);
    assert_eq!(fs::read(&file).unwrap(), vec![0x55; 8192]);
    assert_eq!(number(&host.attach("b").await.session().await, "SELECT 1").await, 1);
    host.stop().await;
}
