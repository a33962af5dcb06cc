//! A process that looks at a directory for another one.
//!
//! A process that serves a mount must not wait for an answer of its own: killed in that moment, it would
//! keep what it serves with, and wait for ever. Who looks in its place has no open file of it, and no
//! memory that it shares.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::error::check;
use crate::sys::{Errno, Error, Result, kill, pipe, wait_for_exit};

/// A process that opens a directory when it is told to.
#[derive(Debug)]
pub struct Looker {
    pid: i32,
    /// It looks when it gets a byte, and ends when there is nobody to send one.
    go: Option<File>,
    answer: File,
    /// It was told to look, and has not answered.
    is_looking: bool,
}

impl Looker {
    /// Makes the process. It has the memory of this one as it is now.
    pub fn begin(dir: &Path) -> Result<Self> {
        let path = CString::new(dir.as_os_str().as_bytes())
            .map_err(|_| Error::new(format!("open({dir:?})"), Errno::EINVAL))?;
        let (go_reader, go) = pipe()?;
        let (answer, answer_writer) = pipe()?;
        // SAFETY: the child makes system calls only, on what was made before.
        match check(unsafe { nix::unistd::fork() }, || "fork()")? {
            nix::unistd::ForkResult::Child => {
                look_when_told(&path, go_reader.as_raw_fd(), answer_writer.as_raw_fd())
            }
            nix::unistd::ForkResult::Parent { child } => {
                let (pid, go, answer) = (child.as_raw(), Some(go.into()), answer.into());
                Ok(Self { pid, go, answer, is_looking: false })
            }
        }
    }

    /// Has it open the directory, and waits until it has, and has closed it again.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn look(&mut self) -> Result<()> {
        while !self.look_for(Duration::from_secs(60))? {}
        Ok(())
    }

    /// Does the same, but waits only for a while; tells whether it has.
    pub fn look_for(&mut self, longest: Duration) -> Result<bool> {
        let failed = |error| Error::from_io("a process that looks", &error);
        if let Some(mut go) = self.go.take() {
            self.is_looking = true;
            go.write_all(b"!").map_err(failed)?;
        }
        let mut waited = [PollFd::new(self.answer.as_fd(), PollFlags::POLLIN)];
        let longest = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
        match poll(&mut waited, longest) {
            Ok(0) | Err(Errno::EINTR) => return Ok(false),
            other => check(other, || "poll(a process that looks)").map(drop)?,
        }
        let mut errno = [0; size_of::<i32>()];
        self.answer.read_exact(&mut errno).map_err(failed)?;
        self.is_looking = false;
        match i32::from_ne_bytes(errno) {
            0 => Ok(true),
            errno => Err(Error::new("open()", Errno::from_raw(errno))),
        }
    }

    /// Returns the descriptors of this process by which it is told and answers.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.go.iter().chain([&self.answer]).map(AsRawFd::as_raw_fd).collect()
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        drop(self.go.take());
        // One that waits for an answer that nobody gives cannot be waited for.
        let ended = match self.is_looking {
            true => kill(self.pid),
            false => wait_for_exit(self.pid).map(drop),
        };
        if let Err(error) = ended {
            tracing::debug!("{error}");
        }
    }
}

/// What the new process does.
fn look_when_told(path: &CStr, go: RawFd, answer: RawFd) -> ! {
    let mut told = 0_u8;
    let named = [(go, 0), (answer, 1)].map(|(from, to)| {
        // SAFETY: the call takes two numbers.
        unsafe { libc::dup2(from, to) }
    });
    // SAFETY: the call takes numbers; what is closed here stays open in the process that owns it.
    let closed = unsafe { libc::close_range(2, libc::c_uint::MAX, 0) };
    // SAFETY: there is room for the one byte.
    let read = unsafe { libc::read(0, (&raw mut told).cast(), 1) };
    if named == [0, 1] && closed == 0 && read == 1 {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: the path is a string that ends with a zero.
        let opened = unsafe { libc::open(path.as_ptr(), flags) };
        let errno = if opened < 0 { Errno::last_raw() } else { 0 };
        // SAFETY: the call takes a number.
        unsafe { libc::close(opened) };
        // SAFETY: so many bytes are there.
        unsafe { libc::write(1, (&raw const errno).cast(), size_of::<i32>()) };
    }
    // SAFETY: nothing of this process is left to be done.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_looked_at_and_what_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        Looker::begin(folder.path()).unwrap().look().unwrap();
        let mut missing = Looker::begin(&folder.path().join("missing")).unwrap();
        assert_eq!(missing.look().unwrap_err().errno(), Errno::ENOENT);
        std::fs::write(folder.path().join("file"), "").unwrap();
        let mut file = Looker::begin(&folder.path().join("file")).unwrap();
        assert_eq!(file.look().unwrap_err().errno(), Errno::ENOTDIR);
    }

    #[test]
    fn it_ends_with_who_made_it_also_untold() {
        let looker = Looker::begin(Path::new("/")).unwrap();
        let pid = looker.pid;
        drop(looker);
        assert!(wait_for_exit(pid).is_err(), "it was waited for");
    }
}
