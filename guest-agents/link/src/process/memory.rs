//! The guest's memory: a memfd, mapped here and by the device, and nothing else in it than the
//! rings and the packets.
//!
//! The device may write to it at any time, so nothing in it is ever borrowed: bytes are copied in
//! and out, and the few words both sides look at are atomics. All of that is in this file.
#![allow(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::{BufMut, BytesMut};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Shared memory of a fixed size. Every access is checked against it; one outside is a bug of this
/// crate and panics.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    file: OwnedFd,
    start: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: the mapping belongs to this value alone until it is dropped, is not tied to a thread, and
// all access through it is by copy or atomic.
unsafe impl Send for SharedMemory {}
// SAFETY: as above; two threads that copy into the same bytes would garble a packet, not memory
// safety, because nobody ever borrows those bytes.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// `len` bytes of zeroes, sealed against resizing, so that the device need not fear SIGBUS.
    pub(crate) fn new(len: NonZeroUsize) -> io::Result<Self> {
        let file = memfd_create("vamos-guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, len.get() as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other.
        let start = unsafe { mmap(std::ptr::null_mut(), len.get(), access, flags, &file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { file, start, len })
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }

    /// Where it is mapped here: what vhost-user calls a user address.
    pub(crate) fn user_address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// The memfd, to be shared.
    pub(crate) fn file(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.len.get());
        assert!(inside, "{bytes} bytes at {offset} are outside the guest's memory");
        // SAFETY: just checked to lie within the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// A 16-bit word both sides look at.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU16 {
        assert!(offset.is_multiple_of(2), "misaligned word");
        // SAFETY: within the mapping, which lives as long as `self` and begins on a page; aligned;
        // and only ever accessed as an atomic while it is one.
        unsafe { AtomicU16::from_ptr(self.at(offset, 2).cast()) }
    }

    /// Reads a little-endian word.
    pub(crate) fn load(&self, offset: usize, order: Ordering) -> u16 {
        u16::from_le(self.word(offset).load(order))
    }

    /// Writes a little-endian word.
    pub(crate) fn store(&self, offset: usize, value: u16, order: Ordering) {
        self.word(offset).store(value.to_le(), order);
    }

    /// Copies `bytes` in.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: `to` has room for them, as just checked, and no Rust reference points there.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Copies bytes out.
    pub(crate) fn read<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        let from = self.at(offset, N);
        // SAFETY: `from` has that many bytes, as just checked; `bytes` is ours.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), N) }
        bytes
    }

    /// Copies `len` bytes to the end of `out`.
    pub(crate) fn append_to(&self, offset: usize, len: usize, out: &mut BytesMut) {
        let from = self.at(offset, len);
        out.reserve(len);
        // SAFETY: `reserve` made room for `len` bytes behind the buffer's end, which are
        // initialised by the copy before they are counted in.
        unsafe {
            std::ptr::copy_nonoverlapping(from, out.chunk_mut().as_mut_ptr(), len);
            out.advance_mut(len);
        }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, not unmapped since, and nothing borrows from it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len.get()) };
    }
}
