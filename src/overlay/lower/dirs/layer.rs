//! One directory of a stack, reached by descriptor and path.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::layer::join_path;
use crate::overlay::error::{Error, Result};
use crate::overlay::upper::{Marks, Namespace};
use crate::sys::{self, Errno, Stat, XattrTarget, open_flags};

/// Longest path that one system call is given; a longer one is walked in pieces.
const PATH_BYTES: usize = 3500;

/// A directory of a stack.
#[derive(Debug)]
pub(super) struct Layer {
    root: OwnedFd,
    device: u64,
    is_data_only: bool,
    tells_inodes: bool,
}

/// File systems whose listings give other numbers of inodes than stat(2): overlayfs and FUSE.
const OTHER_NUMBERS: [i64; 2] = [0x794c_7630, 0x6573_5546];

/// A directory to start from, and what is left of a path.
enum Start<'a> {
    Root(BorrowedFd<'a>),
    Below(OwnedFd),
}

impl AsFd for Start<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

impl Layer {
    pub(super) fn open(path: &Path, is_data_only: bool) -> Result<Self> {
        let opened = sys::open_dir_path(path).and_then(|root| {
            let device = sys::fstat(root.as_fd())?.dev;
            let magic = sys::statfs(root.as_fd())?.magic;
            let tells_inodes = !OTHER_NUMBERS.contains(&magic);
            Ok(Self { root, device, is_data_only, tells_inodes })
        });
        opened.map_err(|error| Error::Setup(format!("directory {}: {error}", path.display())))
    }

    pub(super) const fn device(&self) -> u64 {
        self.device
    }

    pub(super) const fn is_data_only(&self) -> bool {
        self.is_data_only
    }

    /// Tells whether a listing gives the numbers of inodes that stat(2) gives.
    pub(super) const fn tells_inodes(&self) -> bool {
        self.tells_inodes
    }

    pub(super) const fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Returns a directory from which the rest of a path is short enough, and that rest.
    fn reach<'a, 'p>(&'a self, path: &'p OsStr) -> Result<(Start<'a>, &'p OsStr)> {
        let mut start = Start::Root(self.root.as_fd());
        let mut rest = path.as_bytes();
        while rest.len() > PATH_BYTES {
            let cut = rest.iter().take(PATH_BYTES).rposition(|byte| *byte == b'/');
            let cut = cut.ok_or(Error::NameTooLong)?;
            let (head, tail) = rest.split_at(cut);
            let flags = open_flags::DIRECTORY_PATH;
            let below = sys::open(start.as_fd(), OsStr::from_bytes(head), flags, 0)?;
            start = Start::Below(below);
            rest = tail.get(1..).unwrap_or_default();
        }
        Ok((start, OsStr::from_bytes(rest)))
    }

    /// Returns the attributes of a file that is there.
    pub(super) fn stat(&self, path: &OsStr) -> Result<Stat> {
        if path.is_empty() {
            return Ok(sys::fstat(self.root.as_fd())?);
        }
        let (start, rest) = self.reach(path)?;
        Ok(sys::stat(start.as_fd(), rest)?)
    }

    /// Returns the attributes of a file; none if there is none.
    pub(super) fn stat_if_exists(&self, path: &OsStr) -> Result<Option<Stat>> {
        let (start, rest) = self.reach(path)?;
        match sys::stat_if_exists(start.as_fd(), rest) {
            Err(error) if error.errno() == Errno::ENAMETOOLONG => Err(Error::NameTooLong),
            other => Ok(other?),
        }
    }

    /// Calls `with` on what the attributes of a file can be read from.
    pub(super) fn with_target<T>(
        &self,
        path: &OsStr,
        with: impl FnOnce(XattrTarget<'_>) -> Result<T>,
    ) -> Result<T> {
        if path.is_empty() {
            return with(XattrTarget::Fd(self.root.as_fd()));
        }
        let (start, rest) = self.reach(path)?;
        with(XattrTarget::At(start.as_fd(), rest))
    }

    /// Reads the marks of a file.
    pub(super) fn marks(&self, path: &OsStr, namespace: Namespace) -> Result<Marks> {
        self.with_target(path, |target| namespace.read(target))
    }

    /// Reads the marks of a directory, which any driver may have written.
    pub(super) fn dir_marks(&self, path: &OsStr, namespace: Namespace) -> Result<Marks> {
        self.with_target(path, |target| namespace.read_lower(target))
    }

    /// Returns all extended attributes as they are on the disk.
    pub(super) fn xattrs(&self, path: &OsStr) -> Result<Vec<(OsString, Vec<u8>)>> {
        self.with_target(path, |target| {
            let mut xattrs = Vec::new();
            for name in sys::list_xattr(target)? {
                if let Some(value) = sys::xattr_if_set(target, &name)? {
                    xattrs.push((name, value));
                }
            }
            Ok(xattrs)
        })
    }

    pub(super) fn read_link(&self, path: &OsStr) -> Result<OsString> {
        let (start, rest) = self.reach(path)?;
        Ok(sys::read_link(start.as_fd(), rest)?)
    }

    /// Opens a directory as a place.
    pub(super) fn open_dir(&self, path: &OsStr) -> Result<OwnedFd> {
        if path.is_empty() {
            return Ok(sys::dup(self.root.as_fd())?);
        }
        let (start, rest) = self.reach(path)?;
        Ok(sys::open(start.as_fd(), rest, open_flags::DIRECTORY_PATH, 0)?)
    }

    pub(super) fn open_file(&self, path: &OsStr, flags: i32) -> Result<File> {
        let (start, rest) = self.reach(path)?;
        Ok(sys::open(start.as_fd(), rest, flags, 0)?.into())
    }
}

/// Returns the path of a name in a directory.
pub(super) fn join(dir: &OsStr, name: &OsStr) -> OsString {
    OsString::from_vec(join_path(dir.as_bytes(), name.as_bytes()))
}
