//! A process guest against a device, over a real socket pair: what a stream promises.

mod support;

use std::time::Duration;

use support::ECHO;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vamos_link::ProcessGuest;

async fn limited<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

#[tokio::test]
async fn bytes_come_back() {
    let (device, front) = support::start();
    limited(async {
        let guest = ProcessGuest::attach_stream(front).await.unwrap();
        assert_eq!(guest.cid(), support::CID);
        let mut stream = guest.open(ECHO).await.unwrap();
        for size in [1usize, 100, 16_384, 16_385, 300_000] {
            let sent: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
            let mut got = vec![0; size];
            let (mut read, mut write) = tokio::io::split(&mut stream);
            let (wrote, ()) = tokio::join!(write.write_all(&sent), async {
                read.read_exact(&mut got).await.map(drop).unwrap()
            });
            wrote.unwrap();
            assert!(got == sent, "{size} bytes");
        }
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    })
    .await;
    device.join().unwrap();
}
