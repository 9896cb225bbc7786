//! The edge's end of a VM's link to its cell.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};
use vamos_http_handover::LinkSocket;
use vamos_proto::edge::{Object, Want, on_link};

use crate::limits::{OBJECT_WAIT_MAX, OBJECTS_WANTED_MAX};
use crate::shared::Opened;
use crate::upstream::Target;

/// An object of a VM's volume, open for reading.
#[derive(Debug)]
pub struct OpenObject {
    /// What it is.
    pub about: Object,
    /// Its content.
    pub file: OwnedFd,
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    socket: LinkSocket,
    wanted: Mutex<Wanted>,
}

#[derive(Debug, Default)]
struct Wanted {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<io::Result<OpenObject>>>,
}

impl Link {
    /// Over `socket`, on the runtime this is called on.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: LinkSocket::new(socket)?, wanted: Mutex::default() })
    }

    /// Does what the cell says until it ends. `target` is asked by a binding's name.
    pub async fn follow(&self, target: impl Fn(String) -> Arc<Target>, worker: mpsc::Sender<Opened>) {
        loop {
            match self.socket.receive().await {
                Ok(Some((on_link::Message::Opened(opened), Some(stream)))) => {
                    if worker.send((target(opened.binding), stream)).await.is_err() {
                        return;
                    }
                }
                Ok(Some((on_link::Message::Object(about), file))) => self.found(about, file),
                Ok(Some(_)) => warn!("a cell said something that an edge has no use for"),
                Ok(None) => return debug!("a cell has ended"),
                Err(error) => return warn!(%error, "the link to a cell is given up"),
            }
        }
    }

    fn found(&self, about: Object, file: Option<OwnedFd>) {
        let waiting =
            self.wanted.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&about.request);
        let Some(waiting) = waiting else { return };
        let found = match file {
            Some(file) if about.error.is_empty() => Ok(OpenObject { about, file }),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, about.error)),
        };
        // Whoever wanted it may have given up.
        let _ = waiting.send(found);
    }

    /// Asks the cell for an object of its volume ("bucket/key").
    ///
    /// # Errors
    /// There is none, or the cell does not answer.
    pub async fn object(&self, name: String) -> io::Result<OpenObject> {
        let (sender, receiver) = oneshot::channel();
        let request = {
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if wanted.waiting.len() >= OBJECTS_WANTED_MAX {
                return Err(io::Error::other("too many objects are wanted of this VM at once"));
            }
            wanted.last += 1;
            let request = wanted.last;
            wanted.waiting.insert(request, sender);
            request
        };
        let asked = async {
            self.socket.send(on_link::Message::Want(Want { request, name }), &[]).await?;
            receiver.await.map_err(io::Error::other)?
        };
        let found = timeout(OBJECT_WAIT_MAX, asked).await;
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&request);
        found?
    }
}
