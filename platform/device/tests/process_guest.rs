//! A process guest against a device, over a real socket pair: what a stream promises.

mod support;

use std::time::Duration;

use support::{ECHO, GUSH, KEEP, NOBODY, STALL};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vamos_link::{Channel, ChannelAddress, ProcessGuest};

async fn limited<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// Sends and receives `size` bytes over an echoing stream.
async fn round_trip(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), size: usize) {
    let sent: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
    let mut got = vec![0; size];
    let (mut read, mut write) = tokio::io::split(stream);
    let (wrote, read) = tokio::join!(write.write_all(&sent), read.read_exact(&mut got));
    wrote.unwrap();
    read.unwrap();
    assert!(got == sent, "{size} bytes");
}

async fn bytes_come_back() {
    let (device, front) = support::start();
    limited(async {
        let guest = ProcessGuest::attach_stream(front).await.unwrap();
        assert_eq!(guest.cid(), support::CID);
        let mut stream = guest.open(ECHO).await.unwrap();
        for size in [1usize, 100, 16_384, 16_385, 300_000, 3_000_000] {
            round_trip(&mut stream, size).await;
        }
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "half-close comes back as half-close");
    })
    .await;
    device.join().unwrap();
}

#[tokio::test]
async fn bytes_come_back_on_a_current_thread_runtime() {
    bytes_come_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn bytes_come_back_on_a_multi_thread_runtime() {
    bytes_come_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_streams_at_once_share_kicks_and_calls() {
    const ROUNDS: u64 = 200;
    let (device, front) = support::start();
    let guest = ProcessGuest::attach_stream(front).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let guest = guest.clone();
        tasks.spawn(async move {
            let mut stream = guest.open(ECHO).await.unwrap();
            for round in 0..ROUNDS {
                round_trip(&mut stream, 1 + round as usize).await;
            }
        });
    }
    limited(tasks.join_all()).await;
    let (device_counters, counters) = (device.counters(), guest.counters());
    assert!(counters.packets_sent >= 64 * ROUNDS);
    // One kick and one call a message at worst; that they are shared is what this is about.
    assert!(counters.transitions() < 64 * ROUNDS, "{counters:?}");
    assert!(device_counters.kicks_received <= counters.kicks_sent);
    assert_eq!((device_counters.streams_opened, device_counters.protocol_errors), (64, 0));
    drop(guest);
    device.join().unwrap();
}

#[tokio::test]
async fn a_port_nobody_serves_refuses() {
    let (device, front) = support::start();
    let guest = ProcessGuest::attach_stream(front).await.unwrap();
    let error = limited(guest.open(NOBODY)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    limited(guest.open(ECHO)).await.unwrap();
    drop(guest);
    device.join().unwrap();
}

#[tokio::test]
async fn a_stalled_stream_stalls_nobody_else() {
    let (device, front) = support::start();
    let guest = ProcessGuest::attach_stream(front).await.unwrap();
    // One service that does not read, and one whose client does not.
    let mut stalled = guest.open(STALL).await.unwrap();
    let unread = guest.open(GUSH).await.unwrap();
    let flooding = tokio::spawn(async move { while stalled.write_all(&[1; 50_000]).await.is_ok() {} });
    let mut stream = guest.open(ECHO).await.unwrap();
    for size in [1usize, 100, 100_000, 2_000_000] {
        limited(round_trip(&mut stream, size)).await;
    }
    assert!(!flooding.is_finished(), "the stalled stream is still stalled");
    assert!(device.counters().bytes_received < 4 << 20, "what it sent is bounded by its window");
    flooding.abort();
    drop((unread, stream, guest, flooding.await));
    device.join().unwrap();
}

#[tokio::test]
async fn streams_end_when_the_device_does_and_the_device_when_the_guest_does() {
    let (device, front) = support::start();
    let controlled = front.try_clone().unwrap();
    let guest = ProcessGuest::attach_stream(front).await.unwrap();
    let mut stream = guest.open(STALL).await.unwrap();
    controlled.shutdown(std::net::Shutdown::Both).unwrap();
    let error = limited(stream.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let error = limited(guest.open(ECHO)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let mut kept = device.services.kept.lock().unwrap().pop().unwrap();
    device.join().unwrap();
    let error = limited(kept.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the service hears of it too");
}

#[tokio::test]
async fn a_service_that_leaves_is_an_end_and_a_client_that_leaves_is_one_too() {
    let (device, front) = support::start();
    let guest = ProcessGuest::attach_stream(front).await.unwrap();
    let mut stream = guest.open(KEEP).await.unwrap();
    let mut service = device.services.kept.lock().unwrap().pop().unwrap();
    service.write_all(b"last words").await.unwrap();
    drop(service);
    let mut heard = Vec::new();
    limited(stream.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"last words");
    drop(stream);

    let mut stream = guest.open(KEEP).await.unwrap();
    let mut service = device.services.kept.lock().unwrap().pop().unwrap();
    stream.write_all(b"bye").await.unwrap();
    drop(stream);
    let mut heard = Vec::new();
    limited(service.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"bye");
    device.wait_for("both gone", |counters| counters.streams_open == 0);
    assert_eq!(device.counters().streams_reset, 0);
    drop(guest);
    device.join().unwrap();
}

#[tokio::test]
async fn an_address_that_is_no_device_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let address: ChannelAddress =
        format!("process:{}", folder.path().join("none.sock").display()).parse().unwrap();
    let error = limited(address.connect()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);

    // Somebody accepts and hangs up: the device belongs to another guest.
    let path = folder.path().join("busy.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let refuse = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let address = ChannelAddress::Process(path);
    let error = limited(address.connect()).await.unwrap_err();
    assert!(error.to_string().contains("in use by another guest"), "{error}");
    refuse.join().unwrap();
}

#[tokio::test]
async fn a_channel_opens_streams_of_the_process_guest() {
    let (device, front) = support::start();
    let channel = Channel::Process(ProcessGuest::attach_stream(front).await.unwrap());
    let mut stream = limited(channel.open(ECHO)).await.unwrap();
    limited(round_trip(&mut stream, 1000)).await;
    drop((stream, channel));
    device.join().unwrap();
}
