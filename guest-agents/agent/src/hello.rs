//! `hello`, the conversation on port 1: what this VM may use, now and whenever it changes.

use std::io;

use bytes::BytesMut;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use vamos_proto::frame::{self, Decoder, FrameError};
use vamos_proto::hello::{Hello, KIND_HELLO, KIND_WELCOME, PROTOCOL, Welcome};
use vamos_proto::limits::HELLO_BODY_BYTES_MAX;

use crate::limits::HELLO_REPLY_MAX;

/// Why the host cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The stream broke or ended.
    #[error("talk to the host")]
    Io(#[from] io::Error),
    /// The host sent something that is not a frame.
    #[error("cut the host's stream into frames")]
    Frame(#[from] FrameError),
    /// The host sent something that is not a Welcome.
    #[error("expected a Welcome, got a frame of kind {0}")]
    Kind(u16),
    /// The Welcome could not be parsed.
    #[error("parse the host's Welcome")]
    Body(#[from] prost::DecodeError),
    /// The host speaks a version this agent does not.
    #[error("the host speaks hello version {0}, this agent {PROTOCOL}")]
    Protocol(u32),
    /// No answer.
    #[error("the host did not answer hello within {} seconds", HELLO_REPLY_MAX.as_secs())]
    Silent,
}

/// An open conversation.
pub struct Conversation<S> {
    stream: S,
    input: BytesMut,
    decoder: Decoder,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    /// Says hello and waits for the first Welcome.
    ///
    /// # Errors
    /// [`HelloError`].
    pub async fn begin(mut stream: S) -> Result<(Self, Welcome), HelloError> {
        let hello = Hello { agent_version: env!("CARGO_PKG_VERSION").to_owned(), protocol: PROTOCOL };
        let mut wire = BytesMut::new();
        frame::encode(&mut wire, 0, 1, KIND_HELLO, |out| hello.encode_raw(out));
        stream.write_all(&wire).await?;
        stream.flush().await?;
        let mut conversation =
            Self { stream, input: BytesMut::new(), decoder: Decoder::new(HELLO_BODY_BYTES_MAX) };
        match tokio::time::timeout(HELLO_REPLY_MAX, conversation.welcome()).await {
            Ok(welcome) => Ok((conversation, welcome?)),
            Err(_) => Err(HelloError::Silent),
        }
    }

    /// Waits for the next Welcome: the VM's bindings changed. May be dropped and called again.
    ///
    /// # Errors
    /// [`HelloError`]; the end of the stream is one.
    pub async fn welcome(&mut self) -> Result<Welcome, HelloError> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.input)? {
                if frame.header.kind != KIND_WELCOME {
                    return Err(HelloError::Kind(frame.header.kind));
                }
                let welcome = Welcome::decode(frame.body)?;
                if welcome.protocol != PROTOCOL {
                    return Err(HelloError::Protocol(welcome.protocol));
                }
                return Ok(welcome);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vamos_proto::hello::Binding;

    fn welcome(names: &[&str]) -> BytesMut {
        let binding = |name: &&str| Binding {
            name: (*name).to_owned(),
            kind: "sql".to_owned(),
            port: 1024,
            ..Binding::default()
        };
        let welcome = Welcome {
            protocol: PROTOCOL,
            vm: "a".to_owned(),
            generation: 1,
            bindings: names.iter().map(binding).collect(),
        };
        let mut wire = BytesMut::new();
        frame::encode(&mut wire, 0, 1, KIND_WELCOME, |out| welcome.encode_raw(out));
        wire
    }

    #[tokio::test]
    async fn bindings_come_at_once_and_when_they_change() {
        let (guest, mut host) = tokio::io::duplex(1024);
        host.write_all(&welcome(&["a"])).await.unwrap();
        let (mut conversation, first) = Conversation::begin(guest).await.unwrap();
        assert_eq!(first.bindings[0].name, "a");
        host.write_all(&welcome(&["a", "b"])).await.unwrap();
        assert_eq!(conversation.welcome().await.unwrap().bindings.len(), 2);
        drop(host);
        assert!(matches!(conversation.welcome().await, Err(HelloError::Io(_))));
    }

    #[tokio::test]
    async fn what_is_no_welcome_is_refused() {
        let (guest, mut host) = tokio::io::duplex(1024);
        let mut wire = BytesMut::new();
        frame::encode(&mut wire, 0, 1, 77, |_| {});
        host.write_all(&wire).await.unwrap();
        assert!(matches!(Conversation::begin(guest).await, Err(HelloError::Kind(77))));
    }
}
