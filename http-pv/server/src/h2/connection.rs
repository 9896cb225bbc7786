//! One connection: its requests are handled side by side, in the connection's own task.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use ::h2::Reason;
use ::h2::server::{Builder, Connection};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::exchange::exchange;
use super::gate::{Gate, Verdict};
use super::heads::FRAME_BYTES;
use crate::io::linger;
use crate::limits::{
    CONNECTION_WINDOW_BYTES, LEAVE_WITHIN_MAX, Limits, MALFORMED_STREAMS_MAX, STREAM_SEND_BYTES_MAX,
    STREAM_WINDOW_BYTES, STREAMS_MAX, UNSEEN_RESETS_MAX,
};
use crate::{Handler, Peer};

pub(crate) async fn serve<IO, H>(
    mut io: IO,
    peer: Peer,
    handler: &H,
    limits: &Limits,
    draining: watch::Receiver<bool>,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let verdict = Verdict::default();
    let gate = Gate::new(&mut io, verdict.clone(), limits.write_pause_max);
    match timeout(limits.head_within, builder(limits).handshake(gate)).await {
        Ok(Ok(connection)) => requests(connection, &verdict, &peer, handler, limits, draining).await,
        Ok(Err(error)) => debug!(%error, peer = %peer.address, "what came is not HTTP/2"),
        Err(_) => debug!(peer = %peer.address, "HTTP/2 was not begun in time"),
    }
    linger(&mut io, limits.drained_bytes_max).await;
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(STREAM_SEND_BYTES_MAX)
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
        .max_local_error_reset_streams(Some(MALFORMED_STREAMS_MAX))
        .enable_connect_protocol();
    builder
}

/// Serves until the client goes, is too long without a request, breaks a rule, or has what it asked for before the drain.
async fn requests<IO, H>(
    mut connection: Connection<Gate<IO>, Bytes>,
    verdict: &Verdict,
    peer: &Peer,
    handler: &H,
    limits: &Limits,
    mut draining: watch::Receiver<bool>,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let mut exchanges = FuturesUnordered::new();
    let mut drained = pin!(async move {
        // Nobody is left who could begin a drain.
        if draining.wait_for(|draining| *draining).await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    let mut idle = pin!(sleep(limits.idle_max));
    let (mut was_idle, mut leaving, mut ended) = (true, false, false);
    poll_fn(|cx| {
        if !leaving && drained.as_mut().poll(cx).is_ready() {
            leaving = true;
            connection.graceful_shutdown();
            reset(idle.as_mut(), LEAVE_WITHIN_MAX);
        }
        loop {
            while let Poll::Ready(Some(())) = exchanges.poll_next_unpin(cx) {}
            match connection.poll_accept(cx) {
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Ready(Some(Err(error))) => {
                    debug!(%error, peer = %peer.address, "an HTTP/2 connection broke");
                    return Poll::Ready(());
                }
                Poll::Ready(Some(Ok((request, respond)))) => {
                    exchanges.push(exchange(request, respond, peer, handler, limits));
                }
                Poll::Pending => {
                    let Some(reason) = verdict.reason().filter(|_| !ended) else { break };
                    debug!(%reason, peer = %peer.address, "an HTTP/2 connection is ended");
                    ended = true;
                    connection.abrupt_shutdown(reason);
                }
            }
        }
        if !exchanges.is_empty() {
            was_idle = false;
            return Poll::Pending;
        }
        if !was_idle {
            was_idle = true;
            reset(idle.as_mut(), if leaving { LEAVE_WITHIN_MAX } else { limits.idle_max });
        }
        while idle.as_mut().poll(cx).is_ready() {
            if ended {
                return Poll::Ready(());
            }
            if leaving {
                ended = true;
                connection.abrupt_shutdown(Reason::NO_ERROR);
            } else {
                leaving = true;
                connection.graceful_shutdown();
            }
            reset(idle.as_mut(), LEAVE_WITHIN_MAX);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

fn reset(sleep: Pin<&mut tokio::time::Sleep>, after: std::time::Duration) {
    sleep.reset(Instant::now() + after);
}
