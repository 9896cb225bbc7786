//! The long transfer: more than 4 GiB each way at once on one stream, so that the byte counters of
//! both directions wrap, every byte verified, through readers that are slow and read odd amounts,
//! ended by a half-close from each side. Six independent vsock stacks advanced `fwd_cnt` before
//! the bytes were taken; this is what finds that.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::KEEP;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use vamos_link::ProcessGuest;

/// Each way, bytes: 2^32 and some more.
const TRANSFER_BYTES: u64 = (4 << 30) + (16 << 20) + 12_345;

/// Bytes that repeat with a period no packet or buffer size shares.
struct Pattern(Vec<u8>);

impl Pattern {
    const PERIOD: usize = (1 << 20) + 61;

    fn new(seed: u64) -> Self {
        let mut state = seed;
        // Twice the period less one: any run up to a period long is one slice.
        let mut bytes = Vec::with_capacity(2 * Self::PERIOD + 8);
        while bytes.len() < Self::PERIOD {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(Self::PERIOD);
        bytes.extend_from_within(..);
        Self(bytes)
    }

    /// `len` bytes from position `at`.
    fn at(&self, at: u64, len: usize) -> &[u8] {
        let start = (at % Self::PERIOD as u64) as usize;
        &self.0[start..start + len]
    }
}

async fn send(mut stream: impl AsyncWrite + Unpin, pattern: Arc<Pattern>) {
    let mut sent = 0;
    while sent < TRANSFER_BYTES {
        let len = (TRANSFER_BYTES - sent).min(200_000) as usize;
        sent += stream.write(pattern.at(sent, len)).await.expect("write") as u64;
    }
    stream.shutdown().await.expect("half-close");
}

/// Reads odd amounts, and sometimes not at all for a while.
async fn verify(mut stream: impl AsyncRead + Unpin, pattern: Arc<Pattern>) {
    let mut buffer = vec![0; 160_000];
    let (mut got, mut reads) = (0u64, 0u64);
    loop {
        reads += 1;
        let room = if reads.is_multiple_of(3) { 70_001 } else { buffer.len() };
        let bytes = stream.read(&mut buffer[..room]).await.expect("read");
        if bytes == 0 {
            break;
        }
        assert!(buffer[..bytes] == *pattern.at(got, bytes), "wrong within {bytes} bytes from {got}");
        got += bytes as u64;
        if reads.is_multiple_of(2_000) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(got, TRANSFER_BYTES);
}

#[tokio::test]
async fn more_than_4_gib_each_way_arrive_byte_for_byte() {
    let (device, front) = support::start();
    let (up, down) = (Arc::new(Pattern::new(1)), Arc::new(Pattern::new(2)));
    let (service_up, service_down) = (Arc::clone(&up), Arc::clone(&down));
    let (verified, mut service_verified) = tokio::sync::mpsc::channel(1);
    *device.services.on_keep.lock().unwrap() = Some(Box::new(move |stream| {
        let (read, write) = tokio::io::split(stream);
        tokio::spawn(send(write, Arc::clone(&service_down)));
        let (verifying, verified) = (verify(read, Arc::clone(&service_up)), verified.clone());
        tokio::spawn(async move {
            verifying.await;
            verified.send(()).await.expect("the test waits for it");
        });
    }));
    let guest = ProcessGuest::attach_stream(front).await.unwrap();
    let stream = guest.open(KEEP).await.unwrap();
    let (read, write) = tokio::io::split(stream);
    let sending = tokio::spawn(send(write, up));
    let receiving = tokio::spawn(verify(read, down));
    tokio::time::timeout(Duration::from_secs(300), async {
        sending.await.unwrap();
        receiving.await.unwrap();
        service_verified.recv().await.expect("the service has verified every byte");
    })
    .await
    .expect("in time");
    let counters = device.counters();
    assert_eq!((counters.bytes_received, counters.bytes_sent), (TRANSFER_BYTES, TRANSFER_BYTES));
    assert_eq!((counters.streams_reset, counters.protocol_errors), (0, 0));
    drop(guest);
    device.join().unwrap();
}
