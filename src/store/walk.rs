//! Looking at every file below a directory that somebody may be changing, however deep it is.

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::sys::{self, DirStream, Errno, Stat, open_flags};

/// Shows a directory and every file below it to `visit`, with its path from there, until that says
/// stop.
pub(crate) fn walk(
    root: &Path,
    visit: &mut dyn FnMut(&Path, &Stat) -> ControlFlow<()>,
) -> sys::Result<()> {
    // Each directory on the way to a file takes one.
    sys::raise_open_files_limit()?;
    let fd = sys::open_dir_path(root)?;
    if visit(Path::new(""), &sys::fstat(fd.as_fd())?).is_break() {
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
        if visit(&path, &stat).is_break() {
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
