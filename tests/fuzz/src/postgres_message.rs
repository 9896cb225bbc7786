//! `postgres_message`: what the agent's PostgreSQL door makes of a client's bytes.
//!
//! An input's first byte chooses how its rest is cut into reads. The rest is read twice: as a
//! connection from its start-up, and as messages of a connection that is under way. What must hold: every
//! message is read, refused or ends the connection; each takes bytes, so that it comes to an end; what
//! was read does not depend on the cut; nothing is kept that is longer than what was sent.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vamos_agent::postgres::frontend::{self, Frontend, FrontendError};
use vamos_agent::postgres::startup::{self, Opening};
use vamos_agent::postgres::wire::{Wire, WireError};

/// Reads `input` as a client's bytes.
pub fn run(input: &[u8]) {
    let Some((cut, bytes)) = input.split_first() else { return };
    let cut = usize::from(*cut).max(1);
    connection(bytes, cut);
    assert_eq!(
        messages(bytes, bytes.len().max(1)),
        messages(bytes, cut),
        "the cut of the reads must not matter"
    );
}

/// A connection from its first byte to its last.
fn connection(bytes: &[u8], cut: usize) {
    let mut wire = Wire::new(Client { unread: bytes, cut });
    let Ok(Opening::Session(startup)) = now(startup::read(&mut wire)) else { return };
    assert!(!startup.user.is_empty() && !startup.database.is_empty());
    let mut requests = 0;
    loop {
        match now(wire.next()) {
            Ok(None) | Err(WireError::Io(_)) => return,
            Err(WireError::Frontend(error)) if error.is_fatal() => return,
            Ok(Some(_)) | Err(WireError::Frontend(_)) => requests += 1,
        }
        assert!(requests <= bytes.len(), "every request takes bytes");
    }
}

/// The messages in `bytes`, read in pieces of `cut` bytes.
fn messages(bytes: &[u8], cut: usize) -> Vec<Result<Frontend, FrontendError>> {
    let (mut input, mut messages) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(cut) {
        input.extend_from_slice(piece);
        loop {
            let before = input.len();
            match frontend::next(&mut input) {
                Ok(None) => {
                    assert_eq!(input.len(), before, "a message that is not whole stays where it is");
                    break;
                }
                Ok(Some(message)) => messages.push(Ok(message)),
                Err(error) => {
                    // Past a message that is too long, where the next one starts depends on the caller.
                    let end = error.is_fatal() || matches!(error, FrontendError::TooLong(_));
                    messages.push(Err(error));
                    if end {
                        return messages;
                    }
                }
            }
            assert!(input.len() < before, "a message takes bytes");
        }
    }
    messages
}

/// A client that has said all it will say, and takes whatever it is told.
struct Client<'a> {
    unread: &'a [u8],
    cut: usize,
}

impl AsyncRead for Client<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.cut.min(self.unread.len()).min(buf.remaining());
        let (piece, rest) = self.unread.split_at(length);
        buf.put_slice(piece);
        self.unread = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The outcome of a future that has nothing to wait for.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("everything is there, and something is waited for"),
    }
}
