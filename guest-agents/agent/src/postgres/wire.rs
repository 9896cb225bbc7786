//! One client's socket: requests cut out of what arrives, replies collected and written together.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::{PgError, Severity};
use super::frontend::{self, Frontend, FrontendError};
use crate::limits::{POSTGRES_OUTPUT_BYTES, POSTGRES_READ_BYTES};

/// A client's socket.
pub struct Wire<S> {
    stream: S,
    input: BytesMut,
    output: BytesMut,
    /// Bytes of an oversized message that are still to be thrown away.
    discard: usize,
    /// Times the output was written.
    writes: u64,
}

/// A queued reply that can still be taken back, as long as nothing was queued or written after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    writes: u64,
    start: usize,
    end: usize,
}

/// Why no further request comes from a client.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The socket broke, or ended within a message.
    #[error("read or write a client's socket")]
    Io(#[from] io::Error),
    /// The bytes are not a request.
    #[error(transparent)]
    Frontend(#[from] FrontendError),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// A wire over a fresh connection.
    pub fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), output: BytesMut::new(), discard: 0, writes: 0 }
    }

    /// The bytes that have arrived and are not yet part of a request.
    pub fn arrived(&self) -> &[u8] {
        &self.input
    }

    /// Waits for at least `count` bytes and takes exactly these; `None` if the client leaves before the first.
    pub async fn take(&mut self, count: usize) -> io::Result<Option<BytesMut>> {
        while self.input.len() < count {
            if !self.read().await? {
                return if self.input.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
        Ok(Some(self.input.split_to(count)))
    }

    /// The next request; `None` if the client left. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Frontend>, WireError> {
        loop {
            if self.discard > 0 {
                let now = self.discard.min(self.input.len());
                self.input.advance(now);
                self.discard -= now;
            }
            if self.discard == 0 {
                match frontend::next(&mut self.input) {
                    Ok(Some(message)) => return Ok(Some(message)),
                    Ok(None) => {}
                    Err(FrontendError::TooLong(length)) => {
                        self.discard = length;
                        return Err(FrontendError::TooLong(length).into());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if !self.read().await? {
                let whole = self.input.is_empty() && self.discard == 0;
                return if whole {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }

    async fn read(&mut self) -> io::Result<bool> {
        // Grows with what really arrives, whatever a length announces.
        self.input.reserve(POSTGRES_READ_BYTES);
        Ok(self.stream.read_buf(&mut self.input).await? > 0)
    }

    /// Queues a reply of `pgwire`'s.
    pub fn put(&mut self, message: &impl Message) {
        let start = self.output.len();
        if let Err(error) = message.encode(&mut self.output) {
            // Only a reply of more than 2 GiB can fail to be encoded; none is sent then.
            tracing::error!(%error, "could not encode a reply");
            self.output.truncate(start);
        }
    }

    /// Queues a reply of `pgwire`'s that may have to be taken back.
    pub fn put_marked(&mut self, message: &impl Message) -> Mark {
        let start = self.output.len();
        self.put(message);
        Mark { writes: self.writes, start, end: self.output.len() }
    }

    /// Takes a reply back; false if the client may have seen it, or something follows it.
    pub fn take_back(&mut self, mark: Mark) -> bool {
        let last = mark.writes == self.writes && mark.end == self.output.len();
        if last {
            self.output.truncate(mark.start);
        }
        last
    }

    /// Queues one raw byte: the answer to a request for encryption.
    pub fn put_byte(&mut self, byte: u8) {
        self.output.put_u8(byte);
    }

    /// Queues a message whose body `write` writes in place.
    pub fn put_with<E>(
        &mut self,
        kind: u8,
        write: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.output.len();
        self.output.put_u8(kind);
        self.output.put_u32(0);
        if let Err(error) = write(&mut self.output) {
            self.output.truncate(start);
            return Err(error);
        }
        let length = (self.output.len() - start - 1) as u32;
        self.output[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Queues an error or notice. `text` is what its position counts characters of.
    pub fn put_error(&mut self, error: &PgError, text: Option<&str>) {
        let mut fields = vec![
            (b'S', error.severity.as_str().to_owned()),
            (b'V', error.severity.as_str().to_owned()),
            (b'C', error.sqlstate.clone()),
            (b'M', error.message.clone()),
        ];
        if !error.hint.is_empty() {
            fields.push((b'H', error.hint.clone()));
        }
        if !error.context.is_empty() {
            fields.push((b'W', error.context.clone()));
        }
        if let (Some(position), Some(text)) = (error.position, text) {
            let before = text.bytes().take(position).filter(|byte| byte & 0xC0 != 0x80).count();
            fields.push((b'P', (before + 1).to_string()));
        }
        for (_, value) in &mut fields {
            // A zero byte would end the field, and the rest would be taken for another one.
            value.retain(|c| c != '\0');
        }
        match error.severity {
            Severity::Error | Severity::Fatal => self.put(&ErrorResponse::new(fields)),
            Severity::Warning => self.put(&NoticeResponse::new(fields)),
        }
    }

    /// Whether enough is queued to be worth a write.
    pub fn is_full(&self) -> bool {
        self.output.len() >= POSTGRES_OUTPUT_BYTES
    }

    /// Writes what is queued.
    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.writes += 1;
            self.stream.write_all(&self.output).await?;
            self.output.clear();
            if self.output.capacity() > 8 * POSTGRES_OUTPUT_BYTES {
                self.output = BytesMut::new();
            }
        }
        self.stream.flush().await
    }

    /// Ends the connection: what is queued is written first.
    pub async fn close(&mut self) {
        // A client that is gone needs no farewell.
        if self.flush().await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }
}
