//! Advisory locks on open files, which the kernel drops when their last holder dies.
//!
//! Two kinds: `flock`, and those of fcntl(2) that belong to the open file (`F_OFD_*`), whose holder
//! can be asked for without taking the lock.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::fcntl::FcntlArg;

use crate::sys::error::{check, check_raw};
use crate::sys::{Errno, Result};

/// Waits until nobody else holds a `flock` on the file, and takes it.
pub fn lock_exclusive(fd: BorrowedFd<'_>) -> Result<()> {
    loop {
        match flock(fd, libc::LOCK_EX) {
            Err(error) if error.errno() == Errno::EINTR => {}
            other => return other,
        }
    }
}

/// Takes the `flock` on the file if nobody else holds it, and tells whether it did.
pub fn try_lock_exclusive(fd: BorrowedFd<'_>) -> Result<bool> {
    match flock(fd, libc::LOCK_EX | libc::LOCK_NB) {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == Errno::EWOULDBLOCK => Ok(false),
        Err(error) => Err(error),
    }
}

fn flock(fd: BorrowedFd<'_>, operation: i32) -> Result<()> {
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let result = unsafe { libc::flock(fd.as_raw_fd(), operation) };
    check_raw(result, || format!("flock({}, {operation:#x})", fd.as_raw_fd())).map(drop)
}

/// Takes the owner's lock on a file that is open for writing, if nobody else holds it, and tells
/// whether it did. It goes with the last descriptor of this open file.
pub fn try_own(fd: BorrowedFd<'_>) -> Result<bool> {
    let lock = whole_file(libc::F_WRLCK);
    match nix::fcntl::fcntl(fd, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => check(Err(errno), || format!("fcntl({}, F_OFD_SETLK)", fd.as_raw_fd())),
    }
}

/// Tells whether somebody else holds the owner's lock.
pub fn is_owned(fd: BorrowedFd<'_>) -> Result<bool> {
    let mut lock = whole_file(libc::F_WRLCK);
    check(nix::fcntl::fcntl(fd, FcntlArg::F_OFD_GETLK(&mut lock)), || {
        format!("fcntl({}, F_OFD_GETLK)", fd.as_raw_fd())
    })?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

#[allow(clippy::cast_possible_truncation, reason = "the constants are below 8")]
fn whole_file(kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_owner_is_seen_by_others_and_gone_when_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let open = || {
            let mut options = File::options();
            options.create(true).truncate(false).read(true).write(true).open(&path).unwrap()
        };
        let (owner, other) = (open(), open());
        assert!(!is_owned(other.as_fd()).unwrap());
        assert!(try_own(owner.as_fd()).unwrap());
        assert!(is_owned(other.as_fd()).unwrap());
        assert!(!try_own(other.as_fd()).unwrap());
        drop(owner);
        assert!(try_own(other.as_fd()).unwrap());
    }
}
