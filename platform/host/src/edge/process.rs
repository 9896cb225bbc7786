//! Starting the edge, and finding the one that an earlier vamosd has left behind.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::net::unix::pipe;
use tokio::time::timeout;
use tracing::{debug, info};
use vamos_channel::{Channel, ChannelError};
use vamos_proto::edge::{FromEdge, Listener, Start, ToEdge, from_edge, to_edge};

use super::{CGROUP, EdgeError, Recipe};
use crate::cell::adopt::{self, uid_of};
use crate::cell::logs;
use crate::cell::spawn::{Process, log_pipe, reap_first};
use crate::limits::{CELL_ADOPT_MAX, EDGE_START_MAX};

/// vamosd's end of the channel.
pub(super) type EdgeChannel = Channel<ToEdge, FromEdge>;

/// An edge that serves.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) channel: EdgeChannel,
    pub(super) pid: u32,
    pub(super) process: Process,
}

/// Sockets that listen, by address and whether TLS is spoken.
pub(super) type Listeners = Vec<(Listener, OwnedFd)>;

fn failed(action: &'static str, what: impl ToString) -> impl FnOnce(io::Error) -> EdgeError {
    move |source| EdgeError::File { action, what: what.to_string(), source }
}

/// Listens on an address.
pub(super) fn listen(address: SocketAddr) -> Result<OwnedFd, EdgeError> {
    let socket = TcpListener::bind(address).map_err(failed("listen on", address))?;
    socket.set_nonblocking(true).map_err(failed("listen on", address))?;
    Ok(socket.into())
}

impl Recipe {
    /// Starts the edge and waits until it serves.
    pub(super) async fn start(&self, listeners: &Listeners) -> Result<Running, EdgeError> {
        self.prepare_directory()?;
        let group = self
            .cgroup
            .as_ref()
            .map(|(hierarchy, parent)| hierarchy.group(parent, CGROUP, &self.cgroup_limits));
        let cgroup = group.transpose().map_err(failed("make the control group", CGROUP))?;
        let mut process = Process { pidfd: None, cgroup };
        let (ours, theirs) = UnixStream::pair().map_err(ChannelError::Io)?;
        let (log, log_writer) = log_pipe().map_err(ChannelError::Io)?;
        let first = self.spawn(theirs, log_writer)?;
        if let Some(group) = &process.cgroup {
            group.add(first.id()).map_err(failed("use the control group", CGROUP))?;
        }
        let kept_log = log.as_fd().try_clone_to_owned().map_err(ChannelError::Io)?;
        tokio::spawn(logs::relay_as("edge", log));
        let mut channel = EdgeChannel::new(ours).map_err(ChannelError::Io)?;
        let introduced =
            timeout(EDGE_START_MAX, self.introduce((kept_log, listeners), &mut channel, &mut process)).await;
        let introduced = introduced.unwrap_or(Err(EdgeError::Slow));
        // It only forks: by now it has ended, or ends with the channel.
        reap_first(first, introduced.is_err());
        let pid = introduced?;
        Ok(Running { channel, pid, process })
    }

    fn prepare_directory(&self) -> Result<(), EdgeError> {
        let uid = self.start.uid;
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(failed("create", self.directory.display())(error))
            }
            _ => chown(&self.directory, Some(uid), Some(uid))
                .map_err(failed("change the owner of", self.directory.display())),
        }
    }

    fn spawn(&self, channel: UnixStream, log: OwnedFd) -> Result<Child, EdgeError> {
        Command::new(&self.binary)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(channel)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(failed("run", self.binary.display()))
    }

    async fn introduce(
        &self,
        (kept_log, listeners): (OwnedFd, &Listeners),
        channel: &mut EdgeChannel,
        process: &mut Process,
    ) -> Result<u32, EdgeError> {
        let rendezvous = rendezvous(&self.rendezvous)?;
        let mut options = OpenOptions::new();
        let log = options.append(true).create(true).mode(0o640).open(&self.access_log);
        let log = log.map_err(failed("open", self.access_log.display()))?;
        let about = listeners.iter().map(|(about, _)| about.clone()).collect();
        let start = Start { listeners: about, ..self.start.clone() };
        let mut fds = vec![rendezvous.as_fd(), kept_log.as_fd(), log.as_fd()];
        fds.extend(listeners.iter().map(|(_, socket)| socket.as_fd()));
        channel.send(to_edge::Message::Start(start), &fds).await?;
        let mut pid = 0;
        loop {
            let (message, mut fds) = channel.receive().await?.ok_or(EdgeError::Ended)?;
            match message {
                from_edge::Message::Forked(forked) => {
                    pid = forked.pid;
                    process.pidfd = fds.pop();
                }
                from_edge::Message::Ready(ready) => {
                    for layer in ready.layers.iter().filter(|layer| !layer.applied) {
                        tracing::warn!(layer = layer.name, "the edge runs without a layer of its sandbox");
                    }
                    return Ok(pid);
                }
                from_edge::Message::Refused(refused) => return Err(EdgeError::Refused(refused.reason)),
                other => debug!(?other, "an edge that is not ready yet said something else"),
            }
        }
    }

    /// The edge that an earlier vamosd has left behind, if there is one, and its listeners.
    pub(super) async fn left_behind(&self) -> Option<(EdgeChannel, Listeners)> {
        let found = async {
            let Some(socket) = adopt::reach(&self.rendezvous)? else { return Ok(None) };
            let (message, fds, sender) = adopt::receive::<FromEdge>(&socket).await?;
            let from_edge::Message::Kept(kept) = message else {
                return Err(adopt::AdoptError::Kept("it says something else first"));
            };
            if sender.uid.as_raw() != self.start.uid || uid_of(sender.pid) != Some(self.start.uid) {
                return Err(adopt::AdoptError::Stranger("it has another user"));
            }
            let (channel, mut fds) = (EdgeChannel::new(socket.into_std()?)?, fds.into_iter());
            let log = fds.next().ok_or(adopt::AdoptError::Kept("descriptors are missing"))?;
            tokio::spawn(logs::relay_as("edge", pipe::Receiver::from_owned_fd(log)?));
            Ok(Some((channel, kept.listeners.into_iter().zip(fds).collect())))
        };
        match timeout(CELL_ADOPT_MAX, found).await.unwrap_or(Err(adopt::AdoptError::Silent)) {
            Ok(found) => found,
            Err(error) => {
                info!(%error, "the edge of an earlier vamosd is not collected");
                None
            }
        }
    }
}

fn rendezvous(path: &Path) -> Result<UnixListener, EdgeError> {
    // The one of the last edge: nobody of ours connects there any more.
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(failed("bind", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(failed("protect", path.display()))?;
    Ok(listener)
}
