//! `hello`: tells the guest's agent which bindings its VM has, and again whenever they change.

use std::sync::Arc;

use bytes::BytesMut;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;
use vamos_proto::frame::{self, Decoder, Frame};
use vamos_proto::hello::{self, KIND_HELLO, KIND_WELCOME, PROTOCOL, Welcome};
use vamos_proto::limits::HELLO_BODY_BYTES_MAX;
use vamos_service::{ByteStream, Service, ServiceError, Serving, VmContext};

use crate::limits::HELLO_DEADLINE;

/// The service of port 1.
pub(crate) struct Hello {
    welcome: watch::Receiver<Welcome>,
}

impl Hello {
    /// Tells what `welcome` holds.
    pub(crate) fn new(welcome: watch::Receiver<Welcome>) -> Self {
        Self { welcome }
    }
}

impl Service for Hello {
    fn kind(&self) -> &'static str {
        "hello"
    }

    fn serve(self: Arc<Self>, stream: ByteStream, _: Arc<VmContext>) -> Serving {
        Box::pin(greet(stream, self.welcome.clone()))
    }
}

async fn greet(mut stream: ByteStream, mut welcome: watch::Receiver<Welcome>) -> Result<(), ServiceError> {
    let hello =
        timeout(HELLO_DEADLINE, receive(&mut stream)).await.map_err(|_| broken("no hello in time"))??;
    if hello.protocol == 0 {
        return Err(broken("protocol version 0"));
    }
    tracing::debug!(agent = hello.agent_version, protocol = hello.protocol, "agent says hello");
    let protocol = hello.protocol.min(PROTOCOL);
    loop {
        let message = Welcome { protocol, ..welcome.borrow_and_update().clone() };
        let mut wire = BytesMut::new();
        frame::encode(&mut wire, 0, 0, KIND_WELCOME, |out| {
            // A BytesMut grows as needed, so encoding into it cannot fail.
            let _ = message.encode(out);
        });
        stream.write_all(&wire).await?;
        stream.flush().await?;
        tokio::select! {
            changed = welcome.changed() => if changed.is_err() { return Ok(()) },
            ended = until_end(&mut stream) => return ended,
        }
    }
}

async fn receive(stream: &mut ByteStream) -> Result<hello::Hello, ServiceError> {
    let (decoder, mut input) = (Decoder::new(HELLO_BODY_BYTES_MAX), BytesMut::new());
    loop {
        if let Some(Frame { header, body }) =
            decoder.decode(&mut input).map_err(|e| broken(&e.to_string()))?
        {
            if header.kind != KIND_HELLO {
                return Err(broken(&format!("frame of kind {} before hello", header.kind)));
            }
            return hello::Hello::decode(body).map_err(|e| broken(&e.to_string()));
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Err(broken("end of stream before hello"));
        }
    }
}

/// After hello the agent has nothing more to say: it stays until it leaves.
async fn until_end(stream: &mut ByteStream) -> Result<(), ServiceError> {
    match stream.read(&mut [0; 1]).await? {
        0 => Ok(()),
        _ => Err(broken("bytes after hello")),
    }
}

fn broken(reason: &str) -> ServiceError {
    ServiceError::Protocol { protocol: "hello", reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;
    use vamos_proto::hello::Binding;

    fn started() -> (DuplexStream, watch::Sender<Welcome>, tokio::task::JoinHandle<Result<(), ServiceError>>)
    {
        let (agent, cell) = tokio::io::duplex(4096);
        let (sender, receiver) = watch::channel(Welcome { vm: "web-1".into(), ..Welcome::default() });
        (agent, sender, tokio::spawn(greet(ByteStream::new(cell), receiver)))
    }

    async fn say_hello(agent: &mut DuplexStream, protocol: u32) {
        let mut wire = BytesMut::new();
        let hello = hello::Hello { agent_version: "test".into(), protocol };
        frame::encode(&mut wire, 0, 0, KIND_HELLO, |out| hello.encode(out).unwrap());
        agent.write_all(&wire).await.unwrap();
    }

    async fn next_welcome(agent: &mut DuplexStream) -> Welcome {
        let (decoder, mut input) = (Decoder::new(HELLO_BODY_BYTES_MAX), BytesMut::new());
        loop {
            if let Some(frame) = decoder.decode(&mut input).unwrap() {
                assert_eq!(frame.header.kind, KIND_WELCOME);
                return Welcome::decode(frame.body).unwrap();
            }
            assert_ne!(agent.read_buf(&mut input).await.unwrap(), 0, "stream ended");
        }
    }

    #[tokio::test]
    async fn an_agent_learns_its_bindings_and_every_change() {
        let (mut agent, sender, serving) = started();
        say_hello(&mut agent, PROTOCOL + 5).await;
        let welcome = next_welcome(&mut agent).await;
        assert_eq!((welcome.protocol, welcome.vm.as_str(), welcome.bindings.len()), (PROTOCOL, "web-1", 0));
        sender.send_modify(|welcome| {
            welcome.bindings.push(Binding { name: "app".into(), ..Binding::default() })
        });
        assert_eq!(next_welcome(&mut agent).await.bindings[0].name, "app");
        drop(agent);
        assert!(serving.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn what_is_no_hello_ends_the_stream() {
        for bytes in
            [&[0xff; 16][..], &[0; 16], &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0xff, 0xff, 0xff]]
        {
            let (mut agent, _sender, serving) = started();
            agent.write_all(bytes).await.unwrap();
            let ended = serving.await.unwrap();
            assert!(
                matches!(ended, Err(ServiceError::Protocol { protocol: "hello", .. })),
                "{bytes:?}: {ended:?}"
            );
        }
    }
}
