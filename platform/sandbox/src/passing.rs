//! Bytes with descriptors over a Unix socket (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
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
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PASSED_FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    Ok(received.bytes)
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
    fn as_many_descriptors_as_the_kernel_allows_arrive() {
        let (left, right) = UnixStream::pair().unwrap();
        let many = vec![left.as_fd(); PASSED_FDS_MAX];
        send(&left, b"!", &many).unwrap();
        let mut fds = Vec::new();
        receive(&right, &mut [0; 1], &mut fds).unwrap();
        assert_eq!(fds.len(), PASSED_FDS_MAX);
    }
}
