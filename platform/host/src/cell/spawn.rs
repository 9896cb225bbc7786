//! Starting a cell: a volume that is its own, a process with one socket and one pipe, the sandbox it builds
//! around itself, and the confirmation that it stands.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use tokio::net::unix::pipe;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, warn};
use vamos_channel::ChannelError;
use vamos_proto::cell::{Layer, Limits, Start, from_cell, to_cell};
use vamos_proto::id::VmId;
use vamos_sandbox::cgroup::{Cgroup, CgroupLimits, Hierarchy};

use super::{CellChannel, logs};
use crate::limits::CELL_START_MAX;
use crate::snapshot::volume::{Remaking, RemakingError};

/// Everything that starting one VM's cell takes.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The program.
    pub binary: PathBuf,
    /// Whose cell it is.
    pub vm: VmId,
    /// The VM's directory; made if it does not exist.
    pub volume: PathBuf,
    /// The cell's limits in the control group.
    pub cgroup_limits: CgroupLimits,
    /// Where its group goes: hierarchy, and the parent's name in it. `None` where best effort found none.
    pub cgroup: Option<(Hierarchy, String)>,
    /// Limits of the process.
    pub limits: Limits,
    /// What the cell is told. Bindings are filled in at each start.
    pub start: Start,
    /// Where the next vamosd finds the cell.
    pub rendezvous: PathBuf,
    /// What is to be done to the volume before there is a cell.
    pub remaking: Option<Remaking>,
}

/// Why a cell did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its directory cannot be used. Only the operator can change that.
    #[error("volume {}: {reason}", .path.display())]
    Volume {
        /// Which.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// The volume is not made of its snapshot yet.
    #[error("make the volume of its snapshot: {0}")]
    Remaking(#[from] RemakingError),
    /// The volume is not this host's now.
    #[error("{0}")]
    Waiting(String),
    /// The program cannot be run.
    #[error("run {}: {source}", .binary.display())]
    Spawn {
        /// Which program.
        binary: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its control group cannot be made.
    #[error("control group of the cell: {0}")]
    Cgroup(#[source] io::Error),
    /// The socket for the next vamosd cannot be made.
    #[error("prepare {} for the next vamosd: {source}", .path.display())]
    Rendezvous {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The cell said why it cannot serve.
    #[error("{0}")]
    Refused(String),
    /// The cell ended without a word.
    #[error("the cell ended while it started ({0}); its log may say why")]
    Ended(String),
    /// The cell took too long.
    #[error("the cell was not ready within {CELL_START_MAX:?}")]
    Slow,
    /// The channel to it broke.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

impl StartError {
    /// Whether trying again is pointless until somebody does something.
    pub fn needs_operator(&self) -> bool {
        matches!(
            self,
            Self::Volume { .. } | Self::Remaking(_) | Self::Spawn { .. } | Self::Cgroup(_) | Self::Refused(_)
        )
    }
}

/// A cell that serves.
#[derive(Debug)]
pub struct Cell {
    /// The channel to it.
    pub channel: CellChannel,
    /// Its process, as vamosd sees it.
    pub pid: u32,
    /// What its sandbox is made of.
    pub layers: Vec<Layer>,
    pub(crate) process: Process,
}

/// The cell's process and its control group; killed, reaped and removed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pidfd: Option<OwnedFd>,
    pub(crate) cgroup: Option<Cgroup>,
}

impl Recipe {
    /// Makes the volume of a snapshot, if that is still to be done.
    ///
    /// # Errors
    /// [`StartError::Remaking`]; it is still to be done.
    pub async fn remake(&mut self) -> Result<(), StartError> {
        if let Some(remaking) = self.remaking.clone() {
            let made = spawn_blocking(move || remaking.run()).await;
            made.map_err(|gone| StartError::Ended(gone.to_string()))??;
            self.remaking = None;
        }
        Ok(())
    }

    /// Starts the cell and waits until it serves. It keeps a duplicate of `listener`, where front-ends connect.
    ///
    /// # Errors
    /// [`StartError`]; nothing of the attempt is left.
    pub async fn start(&self, listener: BorrowedFd<'_>) -> Result<Cell, StartError> {
        prepare_volume(&self.volume, self.start.uid)?;
        let cgroup = self.make_cgroup().map_err(StartError::Cgroup)?;
        let mut process = Process { pidfd: None, cgroup };
        let (ours, theirs) = UnixStream::pair().map_err(ChannelError::Io)?;
        let (log, log_writer) = log_pipe().map_err(ChannelError::Io)?;
        let first = self.spawn(theirs, log_writer)?;
        if let Some(group) = &process.cgroup {
            group.add(first.id()).map_err(StartError::Cgroup)?;
        }
        let given = self.given(listener, &log)?;
        tokio::spawn(logs::relay(self.vm.clone(), log));
        let mut channel = CellChannel::new(ours).map_err(ChannelError::Io)?;
        let result = timeout(CELL_START_MAX, self.introduce(given, &mut channel, &mut process)).await;
        // The first process only forks: by now it has ended, or ends with the channel.
        let introduced = result.unwrap_or(Err(StartError::Slow));
        reap_first(first, introduced.is_err());
        let (pid, layers) = match introduced {
            Err(StartError::Ended(_)) => return Err(StartError::Ended(process.kill_and_reap().await)),
            introduced => introduced?,
        };
        Ok(Cell { channel, pid, layers, process })
    }

    /// What the cell keeps for the next vamosd, and where it waits for it.
    fn given(&self, listener: BorrowedFd<'_>, log: &pipe::Receiver) -> Result<[OwnedFd; 3], StartError> {
        let failed = |source| StartError::Rendezvous { path: self.rendezvous.clone(), source };
        // The one of the last cell: nobody listens there any more.
        let _ = fs::remove_file(&self.rendezvous);
        let rendezvous = UnixListener::bind(&self.rendezvous).map_err(failed)?;
        fs::set_permissions(&self.rendezvous, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let listener = listener.try_clone_to_owned().map_err(failed)?;
        let log = log.as_fd().try_clone_to_owned().map_err(failed)?;
        Ok([rendezvous.into(), listener, log])
    }

    pub(super) fn make_cgroup(&self) -> io::Result<Option<Cgroup>> {
        let Some((hierarchy, parent)) = &self.cgroup else { return Ok(None) };
        hierarchy.group(parent, self.vm.as_str(), &self.cgroup_limits).map(Some)
    }

    /// Descriptor 0 is the channel, 2 the log; everything else arrives over the channel.
    fn spawn(&self, channel: UnixStream, log: OwnedFd) -> Result<Child, StartError> {
        Command::new(&self.binary)
            .arg(self.vm.as_str())
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(channel)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(|source| StartError::Spawn { binary: self.binary.clone(), source })
    }

    async fn introduce(
        &self,
        given: [OwnedFd; 3],
        channel: &mut CellChannel,
        process: &mut Process,
    ) -> Result<(u32, Vec<Layer>), StartError> {
        let fds = given.each_ref().map(AsFd::as_fd);
        channel.send(to_cell::Message::Start(self.start.clone()), &fds).await?;
        drop(given);
        let mut pid = 0;
        loop {
            let (message, mut fds) =
                channel.receive().await?.ok_or_else(|| StartError::Ended(String::new()))?;
            match message {
                from_cell::Message::Forked(forked) => {
                    pid = forked.pid;
                    process.pidfd = fds.pop();
                }
                from_cell::Message::Ready(ready) => return Ok((pid, ready.layers)),
                from_cell::Message::Refused(refused) => return Err(StartError::Refused(refused.reason)),
                other => debug!(?other, "a cell that is not ready yet said something else"),
            }
        }
    }
}

impl Cell {
    /// Ends the process at once.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Ends the process and waits for it; says how it ended.
    pub async fn end(self) -> String {
        self.kill();
        self.reap().await
    }

    /// Waits for the process, which has closed its channel, and says how it ended.
    pub async fn reap(mut self) -> String {
        self.process.kill_and_reap().await
    }
}

impl Process {
    fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            // It may have ended by itself, which is as good.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    pub(crate) async fn kill_and_reap(&mut self) -> String {
        // A cell that closes its channel and lives on is not a cell any more. One that is ending keeps
        // the status it ended with.
        self.kill();
        let pidfd = self.pidfd.take();
        let cgroup = self.cgroup.take();
        spawn_blocking(move || reap(pidfd, cgroup)).await.unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let (pidfd, cgroup) = (self.pidfd.take(), self.cgroup.take());
        if let Some(pidfd) = &pidfd {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
        if pidfd.is_some() || cgroup.is_some() {
            reap(pidfd, cgroup);
        }
    }
}

/// Waits for a process that has ended or is about to; blocks for as long as the kernel takes.
fn reap(pidfd: Option<OwnedFd>, cgroup: Option<Cgroup>) -> String {
    let mut how = "ended before it was known".to_string();
    if let Some(pidfd) = &pidfd {
        // Somebody else reaps one that an earlier vamosd started; its end can be waited for all the same.
        let mut end = [PollFd::new(pidfd, PollFlags::IN)];
        while poll(&mut end, None).is_err_and(|error| error == Errno::INTR) {}
        how = match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (_, Some(signal)) if signal == Signal::SYS.as_raw() => {
                    "killed for a system call that is not allowed".into()
                }
                (_, Some(signal)) => format!("signal {signal}"),
                _ => "unknown status".into(),
            },
            Ok(None) => "no status".into(),
            Err(Errno::CHILD) => "it was started by an earlier vamosd, how is not known".into(),
            Err(error) => format!("not known: {error}"),
        };
    }
    if let Some(Err(error)) = cgroup.map(|group| group.remove()) {
        warn!(%error, "the cell's control group stays until the next start");
    }
    how
}

pub(crate) fn reap_first(mut first: Child, kill: bool) {
    spawn_blocking(move || {
        if kill {
            let _ = first.kill();
        }
        first.wait()
    });
}

/// A pipe whose writer never blocks: a cell must not wait for its log.
pub(crate) fn log_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    use rustix::fs::{OFlags, fcntl_setfl};
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    fcntl_setfl(&writer, OFlags::NONBLOCK)?;
    Ok((pipe::Receiver::from_owned_fd(reader)?, writer))
}

/// Makes the VM's directory, or checks that the one there is what it should be.
fn prepare_volume(path: &Path, uid: u32) -> Result<(), StartError> {
    let wrong = |reason: String| StartError::Volume { path: path.into(), reason };
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            return chown(path, Some(uid), Some(uid))
                .map_err(|error| wrong(format!("change owner: {error}")));
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(wrong(format!("create: {error}"))),
    }
    let metadata = fs::symlink_metadata(path).map_err(|error| wrong(format!("look up: {error}")))?;
    if !metadata.is_dir() {
        return Err(wrong("is not a directory; move it away".into()));
    }
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
    if owner != uid {
        return Err(wrong(format!(
            "belongs to uid {owner}, the cell's is {uid}; run: chown -R {uid}:{uid} on it"
        )));
    }
    if mode != 0o700 {
        return Err(wrong(format!("has mode {mode:03o}; run: chmod 700 on it")));
    }
    Ok(())
}
