//! Reading a directory by `getdents64`, with the positions that the file system gives.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::unistd::Whence;

use crate::sys::error::check;
use crate::sys::{Errno, Error, Result, reopen};

/// Bytes asked of the kernel at once.
const BUFFER_BYTES: usize = 32 * 1024;

// `struct linux_dirent64`, getdents(2): u64 ino, i64 off, u16 reclen, u8 type, name and NUL.
const INO: usize = 0;
const OFFSET: usize = 8;
const RECORD_LEN: usize = 16;
const KIND: usize = 18;
const NAME: usize = 19;

/// One entry as the kernel gives it, `.` and `..` included.
#[derive(Clone, Copy, Debug)]
pub struct RawEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Where to go on after this entry, for [`DirStream::seek`].
    pub next: u64,
    /// `DT_*` of the entry, 0 where the file system does not tell.
    pub kind: u8,
    /// Name.
    pub name: &'a OsStr,
}

/// A directory that is being read.
#[derive(Debug)]
pub struct DirStream {
    fd: OwnedFd,
    buffer: Vec<u8>,
    filled: usize,
    at: usize,
}

impl DirStream {
    /// Opens the directory that `dir` stands for (it may be an `O_PATH` descriptor). Reading it leaves
    /// its time of access alone, if it is ours.
    pub fn new(dir: impl AsFd) -> Result<Self> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let fd = match reopen(dir.as_fd(), flags | libc::O_NOATIME) {
            Err(error) if error.errno() == Errno::EPERM => reopen(dir.as_fd(), flags)?,
            other => other?,
        };
        Ok(Self::of(fd))
    }

    /// Returns what reads a directory that is open for reading.
    pub fn of(fd: OwnedFd) -> Self {
        Self { fd, buffer: vec![0; BUFFER_BYTES], filled: 0, at: 0 }
    }

    /// Goes on at a position that an entry gave; 0 is the beginning.
    pub fn seek(&mut self, position: u64) -> Result<()> {
        let call = || format!("lseek({}, {position})", self.fd.as_raw_fd());
        let offset = i64::try_from(position).map_err(|_| Error::new(call(), Errno::EINVAL))?;
        check(nix::unistd::lseek(&self.fd, offset, Whence::SeekSet), call)?;
        (self.filled, self.at) = (0, 0);
        Ok(())
    }

    /// Returns the next entry; none at the end.
    pub fn next_entry(&mut self) -> Result<Option<RawEntry<'_>>> {
        if self.at >= self.filled {
            self.fill()?;
            if self.filled == 0 {
                return Ok(None);
            }
        }
        let Some((entry, len)) = parse(&self.buffer[self.at..self.filled]) else {
            return Err(Error::new("getdents64: record", Errno::EIO));
        };
        self.at += len;
        Ok(Some(entry))
    }

    /// Returns the names from here to the end, without `.` and `..`.
    pub fn names(mut self) -> Result<Vec<OsString>> {
        self.rest()
    }

    /// Does the same and leaves the directory open.
    pub fn rest(&mut self) -> Result<Vec<OsString>> {
        let mut names = Vec::new();
        while let Some(entry) = self.next_entry()? {
            if entry.name != "." && entry.name != ".." {
                names.push(entry.name.to_owned());
            }
        }
        Ok(names)
    }

    fn fill(&mut self) -> Result<()> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: the pointer and the length are those of one live, writable buffer.
        let result = unsafe {
            libc::syscall(libc::SYS_getdents64, fd, self.buffer.as_mut_ptr(), self.buffer.len())
        };
        let filled = check(Errno::result(result), || format!("getdents64({fd})"))?;
        self.filled = usize::try_from(filled).unwrap_or(0);
        self.at = 0;
        Ok(())
    }
}

impl AsFd for DirStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns the first entry of what getdents64 gave, and the bytes that it takes.
fn parse(bytes: &[u8]) -> Option<(RawEntry<'_>, usize)> {
    let number = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let len = u16::from_ne_bytes(bytes.get(RECORD_LEN..RECORD_LEN + 2)?.try_into().ok()?);
    let len = usize::from(len);
    let name = bytes.get(NAME..len)?;
    let end = name.iter().position(|byte| *byte == 0)?;
    let entry = RawEntry {
        ino: number(INO)?,
        next: number(OFFSET)?,
        kind: *bytes.get(KIND)?,
        name: OsStr::from_bytes(&name[..end]),
    };
    Some((entry, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::open_dir_path;

    fn names(stream: &mut DirStream) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(entry) = stream.next_entry().unwrap() {
            names.push(entry.name.to_string_lossy().into_owned());
        }
        names
    }

    #[test]
    fn a_directory_is_read_to_its_end_and_again_from_a_position() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..2000 {
            std::fs::write(folder.path().join(format!("file-{number}")), "").unwrap();
        }
        let mut stream = DirStream::new(open_dir_path(folder.path()).unwrap()).unwrap();
        let all = names(&mut stream);
        assert_eq!(all.len(), 2002);
        stream.seek(0).unwrap();
        let mut position = 0;
        for _ in 0..1000 {
            position = stream.next_entry().unwrap().unwrap().next;
        }
        stream.seek(position).unwrap();
        assert_eq!(names(&mut stream), all[1000..]);
    }
}
