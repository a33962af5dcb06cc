//! Processes that one process starts and watches: how they begin, and how they end.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys::error::{check, check_raw};
use crate::sys::process::{Forked, check_single_thread, end_signals};
use crate::sys::{Errno, Error, Result};

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By a signal of this number.
    Signal(i32),
}

impl Ended {
    /// Tells whether somebody else has ended the process, whatever it was doing.
    pub const fn is_killed(self) -> bool {
        matches!(self, Self::Signal(libc::SIGKILL))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "it ended with code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "{signal} ended it"),
                Err(_) => write!(f, "signal {number} ended it"),
            },
        }
    }
}

/// Makes a second process from this one, which must have only one thread. The two have one table of open
/// files from now on: what either opens or closes is open or closed for both, and what the child has
/// opened stays open when it ends.
///
/// # Errors
/// `EPERM` when there is more than one thread: the child would have locks that nobody opens.
pub fn fork_sharing_files() -> Result<Forked> {
    check_single_thread("clone(CLONE_FILES)")?;
    let flags = libc::c_long::from(libc::CLONE_FILES | libc::SIGCHLD);
    // SAFETY: without a stack and CLONE_VM this is fork(2). There is one thread, so the child has
    // everything that this process has; the C library's note of its thread id, which only recursive
    // locks of the C library use, is that of the parent, as no thread of the child has it.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    match check(Errno::result(pid), || "clone(CLONE_FILES)")? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(i32::try_from(pid).unwrap_or(-1))),
    }
}

/// Returns how a child process has ended; none while it runs.
pub fn ended(pid: i32) -> Result<Option<Ended>> {
    match check(waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)), || {
        format!("waitpid({pid}, WNOHANG)")
    })? {
        WaitStatus::Exited(_, code) => Ok(Some(Ended::Code(code))),
        WaitStatus::Signaled(_, signal, _) => Ok(Some(Ended::Signal(signal as i32))),
        _ => Ok(None),
    }
}

/// What a process that watches others is woken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// A child has ended, perhaps.
    Child,
    /// It was told to end.
    End,
    /// Time has passed.
    Time,
}

/// Keeps the signal that says of children that they have ended for [`wait_for_child`], in this thread and
/// in those that it starts.
pub fn block_child_signal() -> Result<()> {
    check(SigSet::from(Signal::SIGCHLD).thread_block(), || "pthread_sigmask(SIG_BLOCK, SIGCHLD)")
}

/// Waits until a child has ended, this process is told to end, or time has passed.
/// [`block_child_signal`] and [`crate::sys::block_end_signals`] came before.
pub fn wait_for_child(longest: Duration) -> Result<Woken> {
    let mut set = end_signals();
    set.add(Signal::SIGCHLD);
    let longest = libc::timespec {
        tv_sec: longest.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: longest.subsec_nanos().into(),
    };
    // SAFETY: both are alive for the length of the call, which writes nothing.
    let result =
        unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &raw const longest) };
    match check_raw(result, || "sigtimedwait()") {
        Ok(libc::SIGCHLD) => Ok(Woken::Child),
        Ok(_) => Ok(Woken::End),
        Err(error) if error.errno() == Errno::EAGAIN => Ok(Woken::Time),
        Err(error) if error.errno() == Errno::EINTR => Ok(Woken::Child),
        Err(error) => Err(error),
    }
}

/// Another process, to see when it ends.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// Returns the process with this id; none when there is none.
    pub fn open(pid: i32) -> Result<Option<Self>> {
        // SAFETY: the call takes numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        match check(Errno::result(fd), || format!("pidfd_open({pid})")) {
            Ok(fd) => {
                let fd = RawFd::try_from(fd).unwrap_or(-1);
                // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
                Ok(Some(Self(unsafe { OwnedFd::from_raw_fd(fd) })))
            }
            Err(error) if error.errno() == Errno::ESRCH => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until it has ended.
    pub fn wait(&self) -> Result<()> {
        let mut waited = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut waited, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                other => return check(other, || "poll(pidfd)").map(drop),
            }
        }
    }
}

/// Returns the descriptors that this process has.
pub fn open_descriptors() -> Result<BTreeSet<RawFd>> {
    const PATH: &str = "/proc/self/fd";
    let error = |error: io::Error| Error::from_io(format!("read_dir({PATH:?})"), &error);
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(PATH).map_err(error)? {
        let name = entry.map_err(error)?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    // That of the listing itself is closed by now.
    found.retain(|fd| is_open(*fd));
    Ok(found)
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: the call takes numbers and changes nothing.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Closes what a child of [`fork_sharing_files`] has left open when it ended: every descriptor but
/// these.
pub fn close_all_but(kept: &BTreeSet<RawFd>) -> Result<()> {
    for fd in open_descriptors()?.difference(kept) {
        // SAFETY: its owner was in a process that has ended.
        drop(unsafe { OwnedFd::from_raw_fd(*fd) });
    }
    Ok(())
}

/// Returns a descriptor that a process left open which had one table with this one; none if there is none
/// of this number.
pub fn inherit(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: its owner was in a process that has ended.
    is_open(fd).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_is_seen() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process::open(pid).unwrap().unwrap();
        assert_eq!(ended(pid).unwrap(), None);
        crate::sys::kill(pid).unwrap();
        process.wait().unwrap();
        assert_eq!(ended(pid).unwrap(), Some(Ended::Signal(9)));
        assert!(Process::open(pid).unwrap().is_none());
        // It was waited for.
        assert!(child.try_wait().is_err());
    }

    #[test]
    fn what_is_open_is_listed() {
        let file = std::fs::File::open("/").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        assert!(open_descriptors().unwrap().contains(&number));
        assert!(inherit(i32::MAX).is_none());
    }
}
