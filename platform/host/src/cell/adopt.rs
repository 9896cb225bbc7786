//! Collecting a cell that an earlier vamosd started and that has outlived it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, UCred, connect, socket_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tracing::info;
use vamos_channel::ChannelError;
use vamos_proto::cell::{
    CellMessageError, FromCell, Keep, Kept, LENGTH_BYTES, Start, StatsRequest, body_length, from_cell,
    to_cell,
};
use vamos_proto::envelope::Envelope;
use vamos_sandbox::passing;

use super::spawn::{Cell, Process, Recipe};
use super::{CellChannel, logs};
use crate::keeper::custody::{Custody, CustodyError};
use crate::keeper::relay::Relay;
use crate::keeper::socket::MessageSocket;
use crate::limits::CELL_ADOPT_MAX;

/// How often is looked whether a device has read what it was sent.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Why a cell that is there cannot be collected. It is ended.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The connection broke.
    #[error("talk to the cell")]
    Io(#[from] io::Error),
    /// So did the channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It did not answer in time.
    #[error("the cell did not answer within {CELL_ADOPT_MAX:?}")]
    Silent,
    /// Another process answered in its place, or one that is not what it should be.
    #[error("who answers is not the cell: {0}")]
    Stranger(&'static str),
    /// It is the cell, but what it kept is not what it was given.
    #[error("what the cell kept is of no use: {0}")]
    Kept(&'static str),
    /// The same.
    #[error(transparent)]
    Custody(#[from] CustodyError),
}

/// A cell of an earlier vamosd, with everything it kept.
#[derive(Debug)]
pub struct Adopted {
    /// The cell.
    pub cell: Cell,
    /// As it was started, with the bindings it has now.
    pub start: Start,
    /// Where the VM's front-ends connect.
    pub listener: UnixListener,
    /// The front-end that is attached.
    pub front_end: Option<Held>,
}

/// An attached front-end that a dead vamosd has left behind.
#[derive(Debug)]
pub struct Held {
    /// Its relay.
    pub relay: Relay,
    /// The memory of its streams.
    pub roster: OwnedFd,
    /// Its number.
    pub attachment: u64,
    /// How many messages the device has handled; `None` if the cell was never told everything.
    pub handled: Option<u64>,
}

/// Collects the VM's cell, if there is one.
///
/// # Errors
/// [`AdoptError`]; there may be one, which is to be ended.
pub async fn adopt(recipe: &Recipe) -> Result<Option<Adopted>, AdoptError> {
    let Some(socket) = reach(&recipe.rendezvous)? else { return Ok(None) };
    let given = timeout(CELL_ADOPT_MAX, receive::<FromCell>(&socket)).await;
    match given.unwrap_or(Err(AdoptError::Silent))? {
        (from_cell::Message::Kept(kept), fds, sender) => {
            collect(recipe, socket, (kept, fds, sender)).await.map(Some)
        }
        _ => Err(AdoptError::Kept("it says something else first")),
    }
}

/// The first message of a cell, its descriptors, and who sent it.
type Given = (Kept, Vec<OwnedFd>, UCred);

/// A connection to whoever waits at `path`, if anybody does.
pub(crate) fn reach(path: &Path) -> io::Result<Option<UnixStream>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before the first byte can come: the kernel signs each.
    set_socket_passcred(&socket, true)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(Some(UnixStream::from_std(net::UnixStream::from(socket))?)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn collect(recipe: &Recipe, socket: UnixStream, given: Given) -> Result<Adopted, AdoptError> {
    let (kept, mut fds, sender) = given;
    let start = kept.start.ok_or(AdoptError::Kept("no start message"))?;
    if sender.uid.as_raw() != start.uid || start.uid != recipe.start.uid || start.vm != recipe.start.vm {
        return Err(AdoptError::Stranger("it has another name or another user"));
    }
    let pidfd = pidfd_open(sender.pid, PidfdFlags::empty()).map_err(io::Error::from)?;
    // The number may have passed to another process meanwhile, but no other has this user.
    if uid_of(sender.pid).is_none_or(|uid| uid != start.uid) {
        return Err(AdoptError::Stranger("it has ended"));
    }
    // From here on the process is ended if it cannot be collected.
    let process = Process { pidfd: Some(pidfd), cgroup: recipe.make_cgroup()? };
    let mut channel = CellChannel::new(socket.into_std()?)?;
    let mut next =
        || if fds.is_empty() { Err(AdoptError::Kept("descriptors are missing")) } else { Ok(fds.remove(0)) };
    let (listener, log) = (next()?, next()?);
    let mut held = None;
    if kept.attachment != 0 {
        let (front_end, device, roster) = (message_socket(next()?)?, message_socket(next()?)?, next()?);
        let mut messages: Vec<(Keep, Vec<OwnedFd>)> = Vec::new();
        for keep in kept.messages {
            let own = (0..keep.descriptors).map(|_| next()).collect::<Result<_, _>>()?;
            messages.push((keep, own));
        }
        let custody = Custody::of(channel.sender());
        let (relay, told) = Relay::adopted(front_end, device, kept.succeeds, messages)?;
        let (relay, handled) = (relay.kept_by(custody), told.then_some(0));
        held = Some(Held { relay, roster, attachment: kept.attachment, handled });
    }
    // One that does not answer is ended, but its front-end is not lost.
    let handled = timeout(CELL_ADOPT_MAX, quiet(&mut channel, held.as_ref())).await;
    let handled = handled.ok().and_then(Result::ok);
    if let Some(held) = &mut held {
        held.handled = held.handled.and(handled);
    }
    let listener = net::UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    tokio::spawn(logs::relay(recipe.vm.clone(), pipe::Receiver::from_owned_fd(log)?));
    let pid = sender.pid.as_raw_pid().unsigned_abs();
    info!(vm = %recipe.vm, pid, attached = held.is_some(), "the cell of an earlier vamosd is collected");
    Ok(Adopted {
        cell: Cell { channel, pid, layers: kept.layers, process },
        start,
        listener: UnixListener::from_std(listener)?,
        front_end: held,
    })
}

fn message_socket(fd: OwnedFd) -> io::Result<MessageSocket> {
    MessageSocket::new(net::UnixStream::from(fd))
}

/// The first message of whoever has kept something for us, its descriptors, and who sent it.
pub(crate) async fn receive<In: Envelope>(
    socket: &UnixStream,
) -> Result<(In::Message, Vec<OwnedFd>, UCred), AdoptError> {
    let (mut input, mut fds, mut from) = (Vec::new(), Vec::new(), None);
    let mut missing = LENGTH_BYTES;
    while missing > 0 {
        let mut piece = vec![0; missing];
        let (count, sender) = socket
            .async_io(Interest::READABLE, || passing::receive_signed(socket, &mut piece, &mut fds))
            .await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        from = from.or(sender);
        input.extend_from_slice(&piece[..count]);
        missing -= count;
        if missing == 0 && input.len() == LENGTH_BYTES {
            let length =
                <[u8; LENGTH_BYTES]>::try_from(&*input).map_err(|_| AdoptError::Kept("no length"))?;
            missing = body_length(length).map_err(ChannelError::from)?;
        }
    }
    let envelope = In::decode(&input[LENGTH_BYTES..]).map_err(CellMessageError::from);
    let message = envelope.map_err(ChannelError::from)?.open();
    let message = message.ok_or(AdoptError::Kept("it says something that is not known here"))?;
    Ok((message, fds, from.ok_or(AdoptError::Stranger("the kernel does not know it"))?))
}

/// Waits until the device has read all that was sent to it, and answered: how many messages it has handled.
async fn quiet(channel: &mut CellChannel, held: Option<&Held>) -> Result<u64, AdoptError> {
    while let Some(held) = held
        && held.relay.cell().has_unread()?
        && !held.relay.cell().has_hung_up()
    {
        sleep(LOOK_EVERY).await;
    }
    // It handles and answers what it reads in one go, on the thread that answers this.
    channel.send(to_cell::Message::Stats(StatsRequest { request: 0 }), &[]).await?;
    loop {
        match channel.receive().await? {
            Some((from_cell::Message::Stats(stats), _)) => return Ok(stats.messages),
            Some(_) => {}
            None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// The real user of a process.
pub(crate) fn uid_of(pid: Pid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}
