//! Going through a tree by descriptors, as find(1) and du(1) do.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::bench::Result;
use crate::sys::{self, DirStream, Stat, mode, open_flags};

/// A file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From the root of the tree.
    pub path: PathBuf,
    /// Type and permissions.
    pub mode: u32,
    /// Bytes, of a regular file.
    pub size: u64,
    /// What tells its content from another one, of a regular file.
    pub mark: u64,
}

impl Entry {
    /// Tells whether it is a regular file.
    pub const fn is_file(&self) -> bool {
        self.mode & mode::TYPE == mode::REGULAR
    }

    /// Tells whether it is a directory.
    pub const fn is_dir(&self) -> bool {
        self.mode & mode::TYPE == mode::DIRECTORY
    }
}

/// What a walk has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Entries, the root not counted.
    pub(crate) entries: u64,
    /// Directories among them.
    pub(crate) directories: u64,
    /// Bytes of regular files.
    pub(crate) bytes: u64,
    /// Types and permissions of all but directories, added up.
    pub(crate) modes: u64,
}

impl Seen {
    /// Returns what a walk through these files must see.
    pub(crate) fn of(files: &[Entry]) -> Self {
        let mut seen = Self::default();
        files.iter().for_each(|file| seen.add(file.mode, file.size));
        seen
    }

    fn add(&mut self, mode: u32, size: u64) {
        self.entries += 1;
        match mode & mode::TYPE {
            // A layer may do without the directories that it is in, so not every driver has their
            // permissions from the same layer.
            mode::DIRECTORY => self.directories += 1,
            kind => {
                self.modes += u64::from(mode);
                self.bytes += if kind == mode::REGULAR { size } else { 0 };
            }
        }
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { entries, directories, bytes, modes } = self;
        write!(f, "{entries} entries, {directories} directories, {bytes} bytes, modes {modes}")
    }
}

/// Lists every directory below a root and takes the attributes of every entry; `go_on` may stop it.
pub(crate) fn count(root: &Path, go_on: &dyn Fn() -> Result<()>) -> Result<Seen> {
    let mut seen = Seen::default();
    count_in(open_root(root)?, &mut seen, go_on)?;
    Ok(seen)
}

fn count_in(mut dir: DirStream, seen: &mut Seen, go_on: &dyn Fn() -> Result<()>) -> Result<()> {
    let mut below = Vec::new();
    let names = dir.rest()?;
    for name in names {
        let stat = sys::lstat(dir.as_fd(), &name)?;
        seen.add(stat.mode, stat.size);
        if stat.mode & mode::TYPE == mode::DIRECTORY {
            below.push(name);
        }
    }
    go_on()?;
    for name in below {
        count_in(open_dir(dir.as_fd(), &name)?, seen, go_on)?;
    }
    Ok(())
}

/// Shows every entry below a root, a directory before what is in it.
pub(crate) fn each(root: &Path, visit: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
    each_in(open_root(root)?, Path::new(""), visit)
}

fn each_in(
    mut dir: DirStream,
    path: &Path,
    visit: &mut dyn FnMut(Entry) -> Result<()>,
) -> Result<()> {
    for name in dir.rest()? {
        let Stat { mode, size, .. } = sys::lstat(dir.as_fd(), &name)?;
        let path = path.join(&name);
        let is_file = mode & mode::TYPE == mode::REGULAR;
        visit(Entry { path: path.clone(), mode, size: if is_file { size } else { 0 }, mark: 0 })?;
        if mode & mode::TYPE == mode::DIRECTORY {
            each_in(open_dir(dir.as_fd(), &name)?, &path, visit)?;
        }
    }
    Ok(())
}

fn open_root(root: &Path) -> Result<DirStream> {
    Ok(DirStream::of(sys::open_dir_path(root)?))
}

/// Opens a directory in another one, as it comes.
fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<DirStream> {
    Ok(DirStream::of(sys::open(dir, name, open_flags::DIRECTORY, 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_sees_what_is_known_of_a_tree() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/file"), "12345").unwrap();
        std::os::unix::fs::symlink("file", folder.path().join("a/b/link")).unwrap();
        let files = crate::bench::known_files(folder.path()).unwrap();
        let paths: Vec<_> = files.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["a", "a/b", "a/b/file", "a/b/link"]);
        let seen = count(folder.path(), &|| Ok(())).unwrap();
        assert_eq!(seen, Seen::of(&files));
        assert_eq!((seen.entries, seen.directories, seen.bytes), (4, 2, 5));
        std::fs::remove_file(folder.path().join("a/b/link")).unwrap();
        assert_ne!(count(folder.path(), &|| Ok(())).unwrap(), seen);
    }
}
