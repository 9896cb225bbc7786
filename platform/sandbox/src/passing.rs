//! Bytes with descriptors over a Unix socket (`SCM_RIGHTS`), taken or looked at, and who sent them.

#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, UCred, recvmsg, sendmsg,
};

use crate::limits::PASSED_FDS_MAX;

/// Sends `bytes` with `fds` attached to the first of them; how many bytes went.
///
/// # Errors
/// As `sendmsg(2)`; more than [`PASSED_FDS_MAX`] descriptors are invalid input.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PASSED_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives into `buffer`, appending to `fds` every descriptor that came along; how many bytes came, 0 at
/// the end of the stream.
///
/// # Errors
/// As `recvmsg(2)`.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    Ok(receive_from(socket, buffer, fds, RecvFlags::empty())?.0)
}

/// As [`receive`], but everything stays in the socket: the descriptors are duplicates. Looks behind what was
/// looked at last, if [`look_from`] said where to start.
///
/// # Errors
/// As `recvmsg(2)`.
pub fn peek(socket: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    Ok(receive_from(socket, buffer, fds, RecvFlags::PEEK)?.0)
}

/// As [`receive`], and who sent it, as the kernel says: known once [`rustix::net::sockopt::set_socket_passcred`] is
/// in force.
///
/// # Errors
/// As `recvmsg(2)`.
pub fn receive_signed(
    socket: impl AsFd,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<(usize, Option<UCred>)> {
    receive_from(socket, buffer, fds, RecvFlags::empty())
}

fn receive_from(
    socket: impl AsFd,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    flags: RecvFlags,
) -> io::Result<(usize, Option<UCred>)> {
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(PASSED_FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let mut sender = None;
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(passed) => fds.extend(passed),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials),
            _ => {}
        }
    }
    Ok((received.bytes, sender))
}

/// Makes the next [`peek`] start at byte `offset` of what has not been taken, and every later one behind it.
/// The offset belongs to the socket, not to this process: it shrinks by what is taken, and tells whoever
/// holds the socket next how much was looked at and not taken.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn look_from(socket: impl AsFd, offset: i32) -> io::Result<()> {
    let (socket, size) = (socket.as_fd().as_raw_fd(), size_of::<i32>() as libc::socklen_t);
    // SAFETY: `offset` is an `int` of the size given, and lives until the call has returned.
    let set = unsafe {
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, (&raw const offset).cast(), size)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many bytes were looked at since [`look_from`] and not taken.
///
/// # Errors
/// As `getsockopt(2)`.
pub fn looked_at(socket: impl AsFd) -> io::Result<usize> {
    let (mut offset, mut size) = (0i32, size_of::<i32>() as libc::socklen_t);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: `offset` has room for an `int`, as `size` says; both live until the call has returned.
    let got = unsafe {
        libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, (&raw mut offset).cast(), &raw mut size)
    };
    // -1 says that nobody has looked.
    if got == 0 { Ok(usize::try_from(offset).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Whether the peer has not read everything that was sent to it.
///
/// # Errors
/// As `ioctl(2)`.
pub fn has_unread(socket: impl AsFd) -> io::Result<bool> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one `int` to the address given, which lives until the call has returned.
    let got = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if got == 0 { Ok(bytes > 0) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_travels_with_its_bytes() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut inner, passed) = UnixStream::pair().unwrap();
        assert_eq!(send(&left, b"take", &[passed.as_fd()]).unwrap(), 4);
        drop(passed);
        let (mut buffer, mut fds) = ([0; 8], Vec::new());
        assert_eq!(receive(&right, &mut buffer, &mut fds).unwrap(), 4);
        let mut taken = UnixStream::from(fds.pop().unwrap());
        inner.write_all(b"x").unwrap();
        let mut byte = [0];
        taken.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn what_was_looked_at_stays_and_the_socket_remembers_how_much() {
        let (left, right) = UnixStream::pair().unwrap();
        send(&left, b"head and body", &[left.as_fd()]).unwrap();
        assert_eq!(looked_at(&right).unwrap(), 0);
        let (mut buffer, mut fds) = ([0; 4], Vec::new());
        look_from(&right, 0).unwrap();
        peek(&right, &mut buffer, &mut fds).unwrap();
        assert_eq!((&buffer, fds.len()), (b"head", 1));
        peek(&right, &mut buffer, &mut fds).unwrap();
        assert_eq!(&buffer, b" and");
        assert_eq!(looked_at(&right).unwrap(), 8);
        assert!(has_unread(&left).unwrap());
        (&right).read_exact(&mut [0; 6]).unwrap();
        let also = right.try_clone().unwrap();
        drop(right);
        assert_eq!(looked_at(&also).unwrap(), 2, "the rest of what was looked at");
        (&also).read_exact(&mut [0; 7]).unwrap();
        assert!(!has_unread(&left).unwrap());
    }

    #[test]
    fn the_kernel_says_who_sent() {
        let (left, right) = UnixStream::pair().unwrap();
        rustix::net::sockopt::set_socket_passcred(&right, true).unwrap();
        send(&left, b"!", &[left.as_fd()]).unwrap();
        let mut fds = Vec::new();
        let (count, sender) = receive_signed(&right, &mut [0; 1], &mut fds).unwrap();
        assert_eq!((count, fds.len()), (1, 1));
        assert_eq!(sender.unwrap().pid, rustix::process::getpid());
    }

    #[test]
    fn as_many_descriptors_as_the_kernel_allows_arrive() {
        let (left, right) = UnixStream::pair().unwrap();
        let many = vec![left.as_fd(); PASSED_FDS_MAX];
        send(&left, b"!", &many).unwrap();
        let mut fds = Vec::new();
        receive(&right, &mut [0; 1], &mut fds).unwrap();
        assert_eq!(fds.len(), PASSED_FDS_MAX);
    }
}
