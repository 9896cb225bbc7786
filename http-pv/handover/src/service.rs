//! The cell's part: the service behind `http` bindings.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingStream;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tracing::{debug, info};
use vamos_proto::edge::{Object, Opened, on_link};
use vamos_service::{ByteStream, Service, ServiceError, Serving, VmContext};

use crate::limits::{COPY_BYTES, STREAMS_MAX};
use crate::link::LinkSocket;
use crate::object::{Objects, open};

/// The edge, as a cell knows it: the link of the moment.
#[derive(Debug, Clone)]
pub struct Edge {
    objects: Objects,
    link: Arc<Mutex<Option<Linked>>>,
}

#[derive(Debug)]
struct Linked {
    socket: Arc<LinkSocket>,
    answers: AbortHandle,
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

impl Edge {
    /// None yet. Objects are those of `objects`.
    pub fn new(objects: Objects) -> Self {
        Self { objects, link: Arc::default() }
    }

    /// Hands over to `socket` from now on. Streams that were handed over before go on.
    ///
    /// # Errors
    /// If it cannot be watched.
    pub fn link(&self, socket: OwnedFd) -> io::Result<()> {
        let socket = Arc::new(LinkSocket::new(socket)?);
        let answers = tokio::spawn(answer(socket.clone(), self.objects.clone())).abort_handle();
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(Linked { socket, answers });
        Ok(())
    }

    fn socket(&self) -> Option<Arc<LinkSocket>> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.as_ref().map(|linked| linked.socket.clone())
    }
}

/// Opens what the edge wants, one after the other, for as long as it is there.
async fn answer(socket: Arc<LinkSocket>, objects: Objects) {
    loop {
        let want = match socket.receive().await {
            Ok(Some((on_link::Message::Want(want), _))) => want,
            Ok(Some(_)) => continue,
            Ok(None) => return debug!("the edge has gone"),
            Err(error) => return info!(%error, "the link to the edge is given up"),
        };
        // A few calls, on names the system mostly has in memory: not worth another thread.
        let opened = open(&objects, &want.name);
        let (object, file) = match opened {
            Ok((object, file)) => (object, Some(file)),
            Err(error) => (Object { error: error.to_string(), ..Object::default() }, None),
        };
        let object = on_link::Message::Object(Object { request: want.request, ..object });
        let fds: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        if let Err(error) = socket.send(object, &fds).await {
            return info!(%error, "the link to the edge is given up");
        }
    }
}

/// What answers on the port of an `http` binding: the edge, as soon as there is one.
#[derive(Debug)]
pub struct HttpService {
    binding: String,
    edge: Edge,
    streams: Arc<Semaphore>,
}

impl HttpService {
    /// For the binding of this name.
    pub fn new(binding: String, edge: Edge) -> Self {
        Self { binding, edge, streams: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    async fn hand_over(&self) -> io::Result<UnixStream> {
        let socket = self.edge.socket().ok_or(io::ErrorKind::NotConnected)?;
        let (ours, theirs) = BlockingStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let opened = on_link::Message::Opened(Opened { binding: self.binding.clone() });
        socket.send(opened, &[theirs.as_fd()]).await?;
        UnixStream::from_std(ours)
    }
}

impl Service for HttpService {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn serve(self: Arc<Self>, mut stream: ByteStream, _vm: Arc<VmContext>) -> Serving {
        Box::pin(async move {
            let Ok(_turn) = self.streams.clone().try_acquire_owned() else {
                return Err(ServiceError::Quota(format!(
                    "{STREAMS_MAX} streams are open for {}",
                    self.binding
                )));
            };
            let mut edge = match self.hand_over().await {
                Ok(edge) => edge,
                // Its end tells the guest, which tries again.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    debug!(binding = self.binding, "there is no edge yet");
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            copy_bidirectional_with_sizes(&mut stream, &mut edge, COPY_BYTES, COPY_BYTES).await?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use vamos_proto::edge::Want;
    use vamos_proto::id::VmId;

    use super::*;

    fn vm() -> Arc<VmContext> {
        Arc::new(VmContext { vm: VmId::new("web").unwrap(), generation: 1 })
    }

    #[tokio::test]
    async fn streams_and_objects_go_over_the_link_of_the_moment() {
        let volume = tempfile::tempdir().unwrap();
        fs::create_dir(volume.path().join("objects")).unwrap();
        fs::write(volume.path().join("objects/page"), "hello").unwrap();
        let edge = Edge::new(Objects::of_volume(volume.path()));
        let service = Arc::new(HttpService::new("site".into(), edge.clone()));
        let (_guest, stream) = duplex(1024);
        let refused = service.clone().serve(ByteStream::new(stream), vm()).await;
        assert!(refused.is_ok(), "there is no edge yet: the stream has ended");

        for _ in 0..2 {
            let (ours, theirs) = LinkSocket::pair().unwrap();
            edge.link(theirs).unwrap();
            let link = LinkSocket::new(ours).unwrap();
            let (mut guest, stream) = duplex(1024);
            let serving = tokio::spawn(service.clone().serve(ByteStream::new(stream), vm()));
            let (message, fd) = link.receive().await.unwrap().unwrap();
            assert_eq!(message, on_link::Message::Opened(Opened { binding: "site".into() }));
            let mut handed = UnixStream::from_std(fd.unwrap().into()).unwrap();
            guest.write_all(b"from the guest").await.unwrap();
            let mut heard = [0; 14];
            handed.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"from the guest");
            handed.write_all(b"to it").await.unwrap();
            drop(handed);
            let mut heard = Vec::new();
            guest.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"to it");
            drop(guest);
            serving.await.unwrap().unwrap();

            for (request, name, there) in [(1, "page", true), (2, "../page", false)] {
                link.send(on_link::Message::Want(Want { request, name: name.into() }), &[]).await.unwrap();
                let (message, fd) = link.receive().await.unwrap().unwrap();
                let on_link::Message::Object(object) = message else { panic!("{message:?}") };
                assert_eq!((object.request, object.error.is_empty(), fd.is_some()), (request, there, there));
            }
        }
    }
}
