//! Looking at every file below a directory that somebody may be changing, however deep it is.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::sys::{self, DirStream, Errno, Stat, open_flags};

/// Shows a directory and every file below it to `visit`, with its path from there, until that says
/// stop.
pub(crate) fn walk(
    root: &Path,
    visit: &mut dyn FnMut(&Path, &Stat) -> ControlFlow<()>,
) -> sys::Result<()> {
    walk_at(root, &mut |path, stat, _, _| visit(path, stat))
}

/// Does the same, and shows the directory that a file is in and its name there. The root is in itself,
/// as `.`.
pub(crate) fn walk_at(
    root: &Path,
    visit: &mut dyn FnMut(&Path, &Stat, BorrowedFd<'_>, &OsStr) -> ControlFlow<()>,
) -> sys::Result<()> {
    // Each directory on the way to a file takes one.
    sys::raise_open_files_limit()?;
    let fd = sys::open_dir_path(root)?;
    let stat = sys::fstat(fd.as_fd())?;
    if visit(Path::new(""), &stat, fd.as_fd(), OsStr::new(".")).is_break() {
        return Ok(());
    }
    let mut open = vec![(PathBuf::new(), DirStream::new(&fd)?.names()?, fd)];
    while let Some((path, names, dir)) = open.last_mut() {
        let Some(name) = names.pop() else {
            open.pop();
            continue;
        };
        // What is removed meanwhile changes the directory that it was in.
        let Some(stat) = sys::stat_if_exists(dir.as_fd(), &name)? else { continue };
        let path = path.join(&name);
        if visit(&path, &stat, dir.as_fd(), &name).is_break() {
            return Ok(());
        }
        if stat.is_dir() {
            match sys::open(dir.as_fd(), &name, open_flags::DIRECTORY, 0) {
                Ok(below) => open.push((path, DirStream::new(&below)?.names()?, below)),
                Err(error) if error.errno() == Errno::ENOENT => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
