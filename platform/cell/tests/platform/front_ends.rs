//! Front-ends that misbehave, on the way through the keeper to a real cell.

use crate::support::{Host, number};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_front_end_is_refused_and_the_first_undisturbed() {
    let host = Host::with_vms(&["a"]).await;
    let first = host.attach("a").await;
    let session = first.session().await;
    session.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    for _ in 0..20 {
        assert!(vamos_link::ProcessGuest::attach(&host.socket("a")).await.is_err());
    }
    session.execute("INSERT INTO t VALUES (3)", &[]).await.unwrap();
    assert_eq!(number(&session, "SELECT x FROM t").await, 3);
    assert_eq!(host.vm("a").await.status.cell_starts, 1);
    host.stop().await;
}
