//! Entry points for `tests/fuzz`: bytes in, the device's own code, no panic out.

use std::io::{IoSlice, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vamos_proto::id::{GuestCid, VsockPort};
use vamos_service::ByteStream;
use vhost::vhost_user::VhostUserBackendReqHandlerMut;
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{Bytes, GuestAddress};

use crate::control::{Control, FEATURES};
use crate::socket::ControlSocket;
use crate::transport::Transport;
use crate::{Acceptor, Counters};

/// Guest memory of [`rings`], bytes: the input is its beginning. Rings lie at the addresses below.
pub const MEMORY_BYTES: usize = 64 << 10;
/// Entries of both rings of [`rings`].
pub const RING_ENTRIES: u16 = 16;
/// Descriptor table, available ring and used ring of the receive ring, guest addresses.
pub const RECEIVE_RING: [u64; 3] = [0x1000, 0x1400, 0x1800];
/// The same of the transmit ring.
pub const TRANSMIT_RING: [u64; 3] = [0x2000, 0x2400, 0x2800];

/// Keeps the streams it is given, so that connections stay open.
#[derive(Default)]
struct Keeper(std::sync::Mutex<Vec<ByteStream>>);

impl Acceptor for Keeper {
    fn accept(&self, port: VsockPort, stream: ByteStream) -> bool {
        let Ok(mut kept) = self.0.lock() else { return false };
        if port.0 % 2 == 1 {
            return false;
        }
        kept.push(stream);
        true
    }
}

fn device() -> Option<Control> {
    let cid = GuestCid::FIRST;
    let transport = Transport::new(cid, Arc::new(Keeper::default()), Arc::new(Counters::default())).ok()?;
    Some(Control::new(cid, transport))
}

/// `data` is what a guest has in its memory, rings and all (see the constants), when it kicks; the
/// device runs passes until it finds no more.
pub fn rings(data: &[u8]) {
    let Some(mut control) = device() else { return };
    let Ok(fd) = memfd_create("fuzz", MemfdFlags::CLOEXEC) else { return };
    if ftruncate(&fd, MEMORY_BYTES as u64).is_err() {
        return;
    }
    let region = VhostUserMemoryRegion::new(0, MEMORY_BYTES as u64, 0, 0);
    let _ = control.set_features(FEATURES);
    if control.set_mem_table(&[region], vec![fd.into()], None).is_err() {
        return;
    }
    let data = &data[..data.len().min(MEMORY_BYTES)];
    if control.transport.table.memory.write_slice(data, GuestAddress(0)).is_err() {
        return;
    }
    for (ring, [descriptors, available, used]) in [(0u8, RECEIVE_RING), (1, TRANSMIT_RING)] {
        let index = u32::from(ring);
        let _ = control.set_vring_num(index, RING_ENTRIES.into());
        let flags = vhost::vhost_user::message::VhostUserVringAddrFlags::empty();
        let _ = control.set_vring_addr(index, flags, descriptors, used, available, 0);
        let _ = control.set_vring_base(index, 0);
        let _ = control.set_vring_kick(ring, None);
        let _ = control.set_vring_enable(index, true);
    }
    // A ring of 16 entries is drained by one pass; more passes only if the guest had more.
    for _ in 0..8 {
        if control.transport.pass(true).received == 0 {
            break;
        }
    }
    let held = control.transport.streams.lock().committed_bytes();
    assert!(held <= 16 * (512 << 10), "{held} bytes held for a ring of 16 packets");
}

/// `data` is what a front-end sends on its control socket: pieces, each after a byte with the
/// number of file descriptors that go with it (0 to 40) and two bytes of length.
pub fn control(data: &[u8]) {
    let (Some(control), Ok((front, back))) = (device(), UnixStream::pair()) else { return };
    let Ok(mut socket) = ControlSocket::new(back, control) else { return };
    let mut rest = data;
    while let [fds, low, high, tail @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
        let (piece, tail) = tail.split_at(length);
        rest = tail;
        if piece.is_empty() || send(&front, piece, usize::from(*fds % 41)).is_err() {
            continue;
        }
        if socket.handle_available(false).is_err() {
            return;
        }
        let _ = socket.control().transport.pass(true);
    }
    let _ = (&front).flush();
    drop(front);
    let _ = socket.handle_available(true);
}

fn send(socket: &UnixStream, piece: &[u8], fds: usize) -> rustix::io::Result<usize> {
    let file = memfd_create("fuzz", MemfdFlags::CLOEXEC)?;
    ftruncate(&file, MEMORY_BYTES as u64)?;
    let fds = vec![file.as_fd(); fds];
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(socket, &[IoSlice::new(piece)], &mut ancillary, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}
