//! A disk that gives back something else than was written, under a platform that serves what is on it.

use std::fs;

use rusqlite::Connection;
use tokio::time::timeout;
use vamos_host::names::{ServiceKind, ServiceName, SnapshotName};
use vamos_host::registry::Terms;
use vamos_proto::control::VmState;
use vamos_proto::id::VsockPort;
use vamos_sql_client::{Client, ClientError};

use crate::support::{DATABASE, Host, PATIENCE, number, vm_id};

const VM: &str = "kept";
const SECOND: &str = "ledger";
const PAGE: usize = 4_096;

/// One bit of one row: its database is refused with the page named, the VM's other one and everything else goes on, there is
/// no snapshot of it, and going back to one from before heals it.
#[tokio::test(flavor = "multi_thread")]
async fn k68_a_bit_that_flipped_in_a_row_is_refused_by_name_and_healed_by_a_snapshot() {
    let host = Host::with_vms(&[VM]).await;
    let service = ServiceName::new(SECOND).unwrap();
    host.platform.register_service(service.clone(), ServiceKind::Sql).await.unwrap();
    host.platform.bind(vm_id(VM), service, Terms::default()).await.unwrap();
    let file = host.volume(VM).join(format!("{DATABASE}.db"));
    {
        let guest = host.attach(VM).await;
        let session = guest.session().await;
        session.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)", &[]).await.unwrap();
        let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
                    INSERT INTO t SELECT i, printf('%064d', i) FROM n";
        session.execute(fill, &[]).await.unwrap();
        session.execute("CREATE TABLE small (x)", &[]).await.unwrap();
    }
    let sound = SnapshotName::new("sound").unwrap();
    host.platform.take_snapshot(&vm_id(VM), sound.clone()).await.unwrap();
    host.platform.stop(std::time::Duration::ZERO).await;
    // All of it into the file, which any SQLite may do.
    Connection::open(&file).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let row = format!("{:064}", 1_234);
    let at = bytes.windows(64).position(|window| window == row.as_bytes()).unwrap() + 40;
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    let page = format!("page {} is not what was written", at / PAGE + 1);
    let host = host.restart().await;
    let guest = host.attach(VM).await;
    let session = timeout(PATIENCE, guest.session()).await.expect("no session");
    // Nobody has come upon it.
    assert_eq!(number(&session, "SELECT count(*) FROM small").await, 0);
    for text in
        ["SELECT b FROM t WHERE a = 1234", "SELECT count(*) FROM small", "INSERT INTO small VALUES (1)"]
    {
        match session.execute(text, &[]).await {
            Err(ClientError::Sql(error)) => {
                assert_eq!(error.sqlstate, "XX001", "{error:?}");
                assert!(error.message.contains(&page), "{error:?}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let port = VsockPort(VsockPort::FIRST_BINDING.0 + 1);
    let second = Client::connect(&guest.channel, port).await.unwrap().open(SECOND, "tests").await.unwrap();
    second.execute("CREATE TABLE t (x)", &[]).await.unwrap();
    second.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    assert_eq!(number(&second, "SELECT count(*) FROM t").await, 1);
    let refused = host.platform.take_snapshot(&vm_id(VM), SnapshotName::new("late").unwrap()).await;
    let refused = refused.expect_err("damage was copied").to_string();
    assert!(refused.contains(&page), "{refused}");
    drop((session, second, guest));
    host.platform.restore_vm(&vm_id(VM), sound).await.unwrap();
    host.until(VM, VmState::Ready).await;
    let healed = host.attach(VM).await;
    let session = timeout(PATIENCE, healed.session()).await.expect("no session");
    let found = number(&session, "SELECT count(*) FROM t WHERE b = printf('%064d', a)").await;
    assert_eq!(found, 3_000);
    host.stop().await;
}
