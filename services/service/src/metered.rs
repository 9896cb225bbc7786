//! A service behind a token bucket: so many bytes per second from the guest, over all of its streams.
//!
//! The bucket holds one second's worth. A stream that finds it empty is not read until enough has
//! flowed in: what the guest sends waits in its own window, at nobody else's cost.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{ByteStream, Service, Serving, VmContext};

/// Any service, its streams metered.
pub struct Metered<S> {
    service: Arc<S>,
    bucket: Arc<Bucket>,
}

impl<S: Service> Metered<S> {
    /// `service`, given at most `bytes_per_second` (at least 1) on average.
    pub fn new(service: Arc<S>, bytes_per_second: u64) -> Self {
        Self { service, bucket: Arc::new(Bucket::new(bytes_per_second)) }
    }
}

impl<S: Service> Service for Metered<S> {
    fn kind(&self) -> &'static str {
        self.service.kind()
    }

    fn serve(self: Arc<Self>, stream: ByteStream, vm: Arc<VmContext>) -> Serving {
        let metered = MeteredStream { stream, bucket: self.bucket.clone(), wait: None };
        self.service.clone().serve(ByteStream::new(metered), vm)
    }
}

/// Tokens are bytes; the level may fall below zero by one read, which the next one waits for.
struct Bucket {
    bytes_per_second: f64,
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    fn new(bytes_per_second: u64) -> Self {
        let bytes_per_second = bytes_per_second.max(1) as f64;
        Self { bytes_per_second, state: Mutex::new((bytes_per_second, Instant::now())) }
    }

    /// Takes `bytes` out; when something may be taken again, if not at once.
    fn take(&self, bytes: usize) -> Option<Instant> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let flowed = now.duration_since(state.1).as_secs_f64() * self.bytes_per_second;
        let level = (state.0 + flowed).min(self.bytes_per_second) - bytes as f64;
        *state = (level, now);
        (level < 0.0).then(|| now + Duration::from_secs_f64(-level / self.bytes_per_second))
    }
}

struct MeteredStream {
    stream: ByteStream,
    bucket: Arc<Bucket>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for MeteredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let again = self.bucket.take(buf.filled().len() - before);
        self.wait = again.map(|at| Box::pin(sleep_until(at)));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MeteredStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_stream_gets_its_rate_and_no_more() {
        let (mut guest, host) = tokio::io::duplex(1 << 20);
        let bucket = Arc::new(Bucket::new(1_000));
        let mut stream = MeteredStream { stream: ByteStream::new(host), bucket, wait: None };
        guest.write_all(&[0; 5_000]).await.unwrap();
        drop(guest);
        let (start, mut piece, mut total) = (Instant::now(), [0; 100], 0);
        loop {
            match stream.read(&mut piece).await.unwrap() {
                0 => break,
                bytes => total += bytes,
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(total, 5_000);
        // One second's worth is there at the start.
        assert!((3.8..4.2).contains(&seconds), "{seconds} s");
    }
}
