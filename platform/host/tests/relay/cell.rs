//! Both ends of a relay: raw bytes for the front-end, the cell's side to look at what arrives.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use tokio::task::JoinHandle;
use vamos_host::keeper::message::{HEADER_BYTES, Header};
use vamos_host::keeper::relay::{Relay, RelayError};
use vamos_host::keeper::socket::MessageSocket;
use vamos_sandbox::passing;

pub const NEED_REPLY: u32 = 1 << 3;
pub const SET_OWNER: u32 = 3;
pub const SET_MEM_TABLE: u32 = 5;
pub const SET_VRING_NUM: u32 = 8;
pub const SET_VRING_KICK: u32 = 12;
pub const GET_FEATURES: u32 = 1;
pub const GET_PROTOCOL_FEATURES: u32 = 15;
pub const SET_PROTOCOL_FEATURES: u32 = 16;

/// A relay with both its ends.
pub struct Conversation {
    pub front_end: UnixStream,
    pub cell: UnixStream,
    pub relay: JoinHandle<Result<(), RelayError>>,
}

/// A message as it arrived.
#[derive(Debug, PartialEq)]
pub struct Arrived {
    pub request: u32,
    pub body: Vec<u8>,
    pub fds: usize,
}

impl Conversation {
    pub fn start() -> Self {
        let (front_end, outer) = UnixStream::pair().unwrap();
        let (cell, inner) = UnixStream::pair().unwrap();
        for socket in [&front_end, &cell] {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        let mut relay = Relay::new(MessageSocket::new(outer).unwrap(), MessageSocket::new(inner).unwrap());
        Self { front_end, cell, relay: tokio::spawn(async move { relay.run().await }) }
    }

    pub fn say(&self, request: u32, flags: u32, body: &[u8], fds: &[BorrowedFd<'_>]) {
        let wire = message(request, flags, body);
        assert_eq!(passing::send(&self.front_end, &wire, fds).unwrap(), wire.len());
    }

    /// What the cell hears next.
    pub fn cell_hears(&self) -> Arrived {
        arrived(&self.cell)
    }

    /// What the front-end hears next.
    pub fn hears(&self) -> Arrived {
        arrived(&self.front_end)
    }

    pub fn cell_replies(&self, request: u32, body: &[u8]) {
        (&self.cell).write_all(&message(request, 1 << 2, body)).unwrap();
    }

    /// Negotiates REPLY_ACK.
    pub fn negotiate_acknowledgements(&self) {
        self.say(SET_PROTOCOL_FEATURES, 0, &(1u64 << 3).to_ne_bytes(), &[]);
        assert_eq!(self.cell_hears().request, SET_PROTOCOL_FEATURES);
    }
}

pub fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let header = Header { request, flags: flags | 1, size: body.len() as u32 };
    [&header.encode(), body].concat()
}

pub fn arrived(mut socket: &UnixStream) -> Arrived {
    let (mut wire, mut fds) = ([0; HEADER_BYTES], Vec::new());
    let first = passing::receive(socket, &mut wire, &mut fds).unwrap();
    socket.read_exact(&mut wire[first..]).unwrap();
    let header = Header::decode(&wire);
    let mut body = vec![0; header.size as usize];
    socket.read_exact(&mut body).unwrap();
    Arrived { request: header.request, body, fds: fds.len() }
}

/// Memory of so many bytes.
pub fn memory(bytes: u64) -> OwnedFd {
    let memory = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, bytes).unwrap();
    memory
}

/// A memory table: count as announced, then guest address and size of each region.
pub fn table(announced: u32, regions: &[(u64, u64)]) -> Vec<u8> {
    let mut body = [announced.to_ne_bytes(), [0; 4]].concat();
    for (guest, size) in regions {
        for word in [*guest, *size, 0x7f00_0000_0000, 0] {
            body.extend_from_slice(&word.to_ne_bytes());
        }
    }
    body
}

pub fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}
