//! Sockets between processes of one machine: who is at the other end, and passing descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg,
};

use crate::sys::error::check;
use crate::sys::{Errno, Result};

/// So many descriptors go with one message (`SCM_MAX_FD` is 253).
const AT_ONCE: usize = 128;

/// Returns the user who is at the other end.
pub fn peer_user(socket: &UnixStream) -> Result<u32> {
    let peer = getsockopt(&socket.as_fd(), PeerCredentials);
    check(peer, || format!("getsockopt({}, SO_PEERCRED)", socket.as_raw_fd()))
        .map(|peer| peer.uid())
}

/// Passes descriptors to the other end, which has to ask for as many.
pub fn pass_descriptors(socket: &UnixStream, passed: &[BorrowedFd<'_>]) -> Result<()> {
    for part in passed.chunks(AT_ONCE) {
        let part: Vec<RawFd> = part.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&part)];
        // A message without a byte is none.
        let byte = [IoSlice::new(&[0])];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(socket.as_raw_fd(), &byte, &rights, flags, None);
        check(sent, || format!("sendmsg({}, SCM_RIGHTS)", socket.as_raw_fd()))?;
    }
    Ok(())
}

/// Takes so many descriptors that the other end passes.
///
/// # Errors
/// `EPROTO` when it passes others, `ECONNRESET` when it has closed the connection.
pub fn take_descriptors(socket: &UnixStream, count: usize) -> Result<Vec<OwnedFd>> {
    let call = || format!("recvmsg({}, SCM_RIGHTS)", socket.as_raw_fd());
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        let wanted = (count - taken.len()).min(AT_ONCE);
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([RawFd; AT_ONCE]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags);
        let message = check(message, call)?;
        let mut passed = Vec::new();
        for control in check(message.cmsgs(), call)? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                // SAFETY: the kernel has just made these descriptors for us; nobody else has them.
                passed.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if message.bytes == 0 {
            return check(Err(Errno::ECONNRESET), call);
        }
        if passed.len() != wanted {
            return check(Err(Errno::EPROTO), call);
        }
        taken.append(&mut passed);
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[test]
    fn descriptors_arrive_in_their_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(peer_user(&ours).unwrap(), crate::sys::effective_ids().0);
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..300_u32)
            .map(|number| {
                let path = folder.path().join(number.to_string());
                std::fs::write(&path, number.to_string()).unwrap();
                File::open(path).unwrap()
            })
            .collect();
        std::thread::scope(|scope| {
            let passed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            scope.spawn(move || pass_descriptors(&ours, &passed).unwrap());
            let taken = take_descriptors(&theirs, files.len()).unwrap();
            for (number, fd) in taken.into_iter().enumerate() {
                let mut text = String::new();
                File::from(fd).read_to_string(&mut text).unwrap();
                assert_eq!(text, number.to_string());
            }
        });
        assert_eq!(take_descriptors(&theirs, 1).unwrap_err().errno(), Errno::ECONNRESET);
    }
}
