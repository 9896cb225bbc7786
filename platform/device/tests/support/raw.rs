//! A driver and a front-end that do what no honest one does: rings written by hand, word by word,
//! and control messages written byte by byte.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vamos_proto::id::{GuestCid, VsockPort};
use vamos_vsock::protocol::{HEADER_BYTES, TYPE_STREAM};
use vamos_vsock::{Header, Operation};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

/// Entries of both rings.
pub const ENTRIES: u16 = 16;
/// Guest memory: from 0, with a hole behind it.
pub const MEMORY_BYTES: u64 = 0x20_0000;
/// What the front-end calls guest address 0.
pub const USER_BASE: u64 = 0x7f00_0000_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Where packets lie that tests write: slot `n` has 128 KiB.
pub fn packet_address(slot: u16) -> u64 {
    0x2_0000 + u64::from(slot % 12) * 0x2_0000
}

/// One ring, guest addresses.
#[derive(Clone, Copy)]
pub struct RawRing {
    pub queue: u32,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

pub const RX: RawRing = RawRing { queue: 0, descriptors: 0x1000, available: 0x2000, used: 0x3000 };
pub const TX: RawRing = RawRing { queue: 1, descriptors: 0x4000, available: 0x5000, used: 0x6000 };

/// A front-end and driver without manners.
pub struct RawGuest {
    pub socket: UnixStream,
    pub memory: Arc<GuestMemoryMmap<()>>,
    pub file: File,
    pub kicks: [EventFd; 2],
    pub calls: [EventFd; 2],
    next_available: [u16; 2],
    seen_used: [u16; 2],
}

pub fn memfd(bytes: u64) -> File {
    let fd = memfd_create("raw-guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, bytes).unwrap();
    File::from(fd)
}

pub fn event() -> EventFd {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).unwrap()
}

pub fn borrowed(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is `event`'s, which outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// vhost-user requests, by number.
pub mod request {
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const GET_CONFIG: u32 = 24;
}

/// Sends `bytes` with `fds` over a control socket.
pub fn send_raw(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
}

/// A message: header (version 1, reply wanted) and body.
pub fn message(request: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [request, 1 | 8, body.len() as u32] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

impl RawGuest {
    /// Attaches properly, with every feature the device offers.
    pub fn attach(socket: UnixStream) -> Self {
        let mut guest = Self::attach_without_rings(socket);
        for ring in [RX, TX] {
            guest.start_ring(ring, ENTRIES.into(), 0);
        }
        guest
    }

    /// The same up to the memory table.
    pub fn attach_without_rings(socket: UnixStream) -> Self {
        Self::attach_with_features(socket, u64::MAX)
    }

    /// The same with only those of the device's features that are in `wanted`.
    pub fn attach_with_features(socket: UnixStream, wanted: u64) -> Self {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let file = memfd(MEMORY_BYTES);
        let regions =
            [(GuestAddress(0), MEMORY_BYTES as usize, Some(FileOffset::new(file.try_clone().unwrap(), 0)))];
        let memory = Arc::new(GuestMemoryMmap::from_ranges_with_files(regions).unwrap());
        let mut guest = Self {
            socket,
            memory,
            file,
            kicks: [event(), event()],
            calls: [event(), event()],
            next_available: [0; 2],
            seen_used: [0; 2],
        };
        let features = guest.ask(request::GET_FEATURES, &[]);
        guest.ask(request::GET_PROTOCOL_FEATURES, &[]);
        // REPLY_ACK, CONFIG and BACKEND_REQ: from now on every request is answered.
        guest.expect_ok(request::SET_PROTOCOL_FEATURES, &longs(&[1 << 3 | 1 << 9 | 1 << 5]), &[]);
        guest.expect_ok(request::SET_OWNER, &[], &[]);
        guest.expect_ok(request::SET_FEATURES, &longs(&[features & wanted]), &[]);
        assert_eq!(guest.set_memory(&[(0, MEMORY_BYTES, USER_BASE, 0)], None), 0);
        guest
    }

    /// Sets the memory table, each region backed by `file` or the guest's own.
    pub fn set_memory(&mut self, regions: &[(u64, u64, u64, u64)], file: Option<&File>) -> u64 {
        let mut body = words(&[regions.len() as u32, 0]);
        for &(guest, size, user, offset) in regions {
            body.extend_from_slice(&longs(&[guest, size, user, offset]));
        }
        let file = file.unwrap_or(&self.file).try_clone().unwrap();
        let fds = vec![file.as_fd(); regions.len()];
        self.request(request::SET_MEM_TABLE, &body, &fds)
    }

    pub fn start_ring(&mut self, ring: RawRing, entries: u32, base: u32) {
        let queue = ring.queue as usize;
        self.expect_ok(request::SET_VRING_NUM, &words(&[ring.queue, entries]), &[]);
        self.expect_ok(request::SET_VRING_BASE, &words(&[ring.queue, base]), &[]);
        let at = |address| USER_BASE + address;
        let mut body = words(&[ring.queue, 0]);
        body.extend_from_slice(&longs(&[at(ring.descriptors), at(ring.used), at(ring.available), 0]));
        self.expect_ok(request::SET_VRING_ADDR, &body, &[]);
        let index = longs(&[ring.queue.into()]);
        let (kick, call) = (self.kicks[queue].try_clone().unwrap(), self.calls[queue].try_clone().unwrap());
        self.expect_ok(request::SET_VRING_CALL, &index, &[borrowed(&call)]);
        self.expect_ok(request::SET_VRING_KICK, &index, &[borrowed(&kick)]);
        self.expect_ok(request::SET_VRING_ENABLE, &words(&[ring.queue, 1]), &[]);
        self.next_available[queue] = base as u16;
    }

    /// Starts a stopped ring again where it was: no size, no index is touched.
    pub fn resume_ring(&mut self, ring: RawRing, base: u32) {
        let next = self.next_available[ring.queue as usize];
        self.start_ring(ring, ENTRIES.into(), base);
        self.next_available[ring.queue as usize] = next;
    }

    /// Empties a stopped ring, as a driver does that begins anew.
    pub fn forget_ring(&mut self, ring: RawRing) {
        self.write(ring.available, &[0; 4]);
        self.write(ring.used, &[0; 4]);
        self.seen_used[ring.queue as usize] = 0;
    }

    /// Sends a request that is answered with a number: 0 for "done", unless it asks for one.
    pub fn request(&mut self, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> u64 {
        send_raw(&self.socket, &message(request, body), fds).unwrap();
        self.reply()
    }

    fn ask(&mut self, request: u32, body: &[u8]) -> u64 {
        self.request(request, body, &[])
    }

    fn expect_ok(&mut self, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) {
        // Until REPLY_ACK is negotiated only questions are answered; that request itself is already.
        assert_eq!(self.request(request, body, fds), 0, "request {request}");
    }

    fn reply(&mut self) -> u64 {
        let mut reply = [0; 20];
        self.socket.read_exact(&mut reply).expect("an answer from the device");
        u64::from_ne_bytes(reply[12..].try_into().unwrap())
    }

    // --- rings ---

    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub fn descriptor(&self, table: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.write(table + u64::from(index) * 16, &bytes);
    }

    /// Makes `head` available, without a kick.
    pub fn offer(&mut self, ring: RawRing, head: u16) {
        let next = &mut self.next_available[ring.queue as usize];
        let entry = ring.available + 4 + 2 * u64::from(*next % ENTRIES);
        self.memory.write_obj(head.to_le(), GuestAddress(entry)).unwrap();
        *next = next.wrapping_add(1);
        let index = next.to_le();
        self.memory.store(index, GuestAddress(ring.available + 2), Ordering::Release).unwrap();
    }

    pub fn set_available_index(&self, ring: RawRing, index: u16) {
        self.memory.store(index.to_le(), GuestAddress(ring.available + 2), Ordering::Release).unwrap();
    }

    pub fn set_used_event(&self, ring: RawRing, event: u16) {
        let address = ring.available + 4 + 2 * u64::from(ENTRIES);
        self.memory.store(event.to_le(), GuestAddress(address), Ordering::SeqCst).unwrap();
    }

    pub fn kick(&self, ring: RawRing) {
        self.kicks[ring.queue as usize].write(1).unwrap();
    }

    /// The next chain the device gives back: head and bytes.
    pub fn used(&mut self, ring: RawRing) -> (u16, u32) {
        self.used_within(ring, Duration::from_secs(10)).expect("the device gives a chain back")
    }

    pub fn used_within(&mut self, ring: RawRing, time: Duration) -> Option<(u16, u32)> {
        let deadline = Instant::now() + time;
        let seen = self.seen_used[ring.queue as usize];
        let mut turns = 0;
        loop {
            let index: u16 = self.memory.load(GuestAddress(ring.used + 2), Ordering::Acquire).unwrap();
            if u16::from_le(index) != seen {
                break;
            }
            if Instant::now() > deadline {
                return None;
            }
            turns += 1;
            if turns < 200 {
                std::thread::yield_now()
            } else {
                std::thread::sleep(Duration::from_micros(100))
            }
        }
        let entry = ring.used + 4 + 8 * u64::from(seen % ENTRIES);
        let (head, bytes): (u32, u32) = (
            self.memory.read_obj(GuestAddress(entry)).unwrap(),
            self.memory.read_obj(GuestAddress(entry + 4)).unwrap(),
        );
        self.seen_used[ring.queue as usize] = seen.wrapping_add(1);
        Some((u32::from_le(head) as u16, u32::from_le(bytes)))
    }

    /// Whether the device interrupts within `time`.
    pub fn called_within(&self, ring: RawRing, time: Duration) -> bool {
        let call = borrowed(&self.calls[ring.queue as usize]);
        let time = Timespec { tv_sec: 0, tv_nsec: time.as_nanos() as i64 };
        let ready = poll(&mut [PollFd::from_borrowed_fd(call, PollFlags::IN)], Some(&time)).unwrap() > 0;
        ready && self.calls[ring.queue as usize].read().is_ok()
    }

    // --- packets ---

    /// A header from this guest's `port` to the service on `service`.
    pub fn header(operation: Operation, port: u32, service: VsockPort) -> Header {
        Header {
            src_cid: super::CID,
            dst_cid: GuestCid::HOST,
            src_port: VsockPort(port),
            dst_port: service,
            socket_type: TYPE_STREAM,
            op: operation as u16,
            buf_alloc: 1 << 20,
            ..Header::decode(&[0; HEADER_BYTES])
        }
    }

    /// Makes a packet without payload available, without a kick.
    pub fn offer_packet(&mut self, header: &Header) {
        let slot = self.next_available[1] % ENTRIES;
        self.write(packet_address(slot), &header.encode());
        self.descriptor(TX.descriptors, slot, packet_address(slot), HEADER_BYTES as u32, 0, 0);
        self.offer(TX, slot);
    }

    /// Sends a packet in one descriptor, and waits until it is given back.
    pub fn send(&mut self, header: &Header, payload: &[u8]) {
        let slot = self.next_available[1] % ENTRIES;
        let address = packet_address(slot);
        self.write(address, &header.encode());
        self.write(address + HEADER_BYTES as u64, payload);
        self.descriptor(TX.descriptors, slot, address, (HEADER_BYTES + payload.len()) as u32, 0, 0);
        self.offer(TX, slot);
        self.kick(TX);
        assert_eq!(self.used(TX), (slot, 0));
    }

    /// Gives the device `count` buffers of `bytes` each, and kicks.
    pub fn lend(&mut self, count: u16, bytes: u32) {
        for _ in 0..count {
            let slot = self.next_available[0] % ENTRIES;
            self.descriptor(RX.descriptors, slot, 0x1a_0000 + u64::from(slot) * 0x5000, bytes, WRITE, 0);
            self.offer(RX, slot);
        }
        self.kick(RX);
    }

    /// The next packet from the device.
    pub fn receive(&mut self) -> (Header, Vec<u8>) {
        let (slot, bytes) = self.used(RX);
        self.packet(slot, bytes)
    }

    fn packet(&self, slot: u16, bytes: u32) -> (Header, Vec<u8>) {
        let mut packet = vec![0; bytes as usize];
        self.memory.read_slice(&mut packet, GuestAddress(0x1a_0000 + u64::from(slot) * 0x5000)).unwrap();
        let header = Header::decode(packet.first_chunk().expect("a header"));
        assert_eq!(header.len as usize, packet.len() - HEADER_BYTES);
        (header, packet.split_off(HEADER_BYTES))
    }

    pub fn receive_within(&mut self, time: Duration) -> Option<(Header, Vec<u8>)> {
        let (slot, bytes) = self.used_within(RX, time)?;
        Some(self.packet(slot, bytes))
    }

    /// Expects a packet that does `operation`, for the guest's `port`.
    pub fn expect(&mut self, operation: Operation, port: u32) -> (Header, Vec<u8>) {
        let (header, payload) = self.receive();
        assert_eq!(Operation::from_wire(header.op), Some(operation), "{header:?}");
        assert_eq!(header.dst_port, VsockPort(port), "{header:?}");
        (header, payload)
    }

    /// Opens a stream from `port` to `service`; one buffer is lent for the answer.
    pub fn open(&mut self, port: u32, service: VsockPort) -> Header {
        self.lend(1, 4096);
        self.send(&Self::header(Operation::Request, port, service), &[]);
        self.expect(Operation::Response, port).0
    }

    /// The device still serves: a fresh stream echoes.
    pub fn prove_alive(&mut self, port: u32) {
        self.open(port, super::ECHO);
        self.lend(1, 4096);
        let header = Header { len: 5, ..Self::header(Operation::ReadWrite, port, super::ECHO) };
        self.send(&header, b"alive");
        let (_, payload) = self.expect(Operation::ReadWrite, port);
        assert_eq!(payload, b"alive");
    }
}

/// Open file descriptors of this process.
pub fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
