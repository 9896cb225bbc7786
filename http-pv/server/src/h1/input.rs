//! What has come on a connection and was not used yet.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

use crate::limits::READ_BYTES;

/// The reading half of a connection with its buffer, which takes no memory while it is empty.
pub(super) struct Input<R> {
    source: R,
    /// What has come.
    pub(super) bytes: BytesMut,
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, bytes: BytesMut::new() }
    }

    /// Waits for more; whether there was any. Nothing is lost when the future is dropped.
    pub(super) async fn more(&mut self) -> io::Result<bool> {
        poll_fn(|cx| {
            // On the stack, and only for as long as there is something to read: a connection that waits has no buffer.
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let mut piece = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.source).poll_read(cx, &mut piece))?;
            self.bytes.extend_from_slice(piece.filled());
            Ok(!piece.filled().is_empty()).into()
        })
        .await
    }

    /// Gives the buffer back if nothing is in it.
    pub(super) fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }
}
