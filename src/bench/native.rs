//! A plain copy of a tree, for the driver that is none.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::bench::error::io_error;
use crate::bench::walk::{self, Entry};
use crate::bench::{Error, Result};
use crate::sys::{self, Errno, mode};

/// Copies directories, regular files and links from one directory to another, which is empty; with
/// permissions, without owners and times. Other kinds of files are left out, and what is not on the way
/// to, at or below one of the paths `only`, if there are any.
pub(crate) fn copy_tree(from: &Path, to: &Path, only: &[&str]) -> Result<()> {
    let mut directories = Vec::new();
    let is_wanted = |path: &Path| {
        only.is_empty()
            || only.iter().any(|one| path.starts_with(one) || Path::new(one).starts_with(path))
    };
    walk::each(from, &mut |entry| {
        if !is_wanted(&entry.path) {
            return Ok(());
        }
        let (source, copy) = (from.join(&entry.path), to.join(&entry.path));
        copy_one(&entry, &source, &copy)?;
        if entry.is_dir() {
            directories.push((copy, entry.mode));
        }
        Ok(())
    })?;
    for (path, mode) in directories.iter().rev() {
        set_mode(path, *mode)?;
    }
    Ok(())
}

fn copy_one(entry: &Entry, source: &Path, copy: &Path) -> Result<()> {
    match entry.mode & mode::TYPE {
        mode::DIRECTORY => fs::create_dir(copy).map_err(io_error("make", copy)),
        mode::SYMLINK => {
            let target = fs::read_link(source).map_err(io_error("read", source))?;
            std::os::unix::fs::symlink(target, copy).map_err(io_error("make", copy))
        }
        mode::REGULAR => {
            copy_content(source, copy, entry.size)?;
            set_mode(copy, entry.mode)
        }
        _ => Ok(()),
    }
}

fn copy_content(source: &Path, copy: &Path, size: u64) -> Result<()> {
    let from = File::open(source).map_err(io_error("open", source))?;
    let to = File::create_new(copy).map_err(io_error("make", copy))?;
    let mut done = 0;
    while done < size {
        let len = usize::try_from(size - done).unwrap_or(usize::MAX);
        match sys::copy_range(from.as_fd(), done, to.as_fd(), done, len) {
            Ok(0) => break,
            Ok(copied) => done += copied as u64,
            // Not between these file systems.
            Err(error) if [Errno::EXDEV, Errno::EINVAL].contains(&error.errno()) => {
                return fs::copy(source, copy).map(drop).map_err(io_error("copy", source));
            }
            Err(error) => return Err(Error::Sys(error)),
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let permissions = fs::Permissions::from_mode(mode & mode::PERMISSIONS);
    fs::set_permissions(path, permissions).map_err(io_error("change", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::known_files;

    #[test]
    fn a_copy_has_what_the_tree_has() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("closed/below")).unwrap();
        fs::write(from.join("closed/below/file"), vec![7; 100_000]).unwrap();
        std::os::unix::fs::symlink("gone", from.join("link")).unwrap();
        set_mode(&from.join("closed"), 0o500).unwrap();
        fs::create_dir(&to).unwrap();
        copy_tree(&from, &to, &[]).unwrap();
        assert_eq!(known_files(&to).unwrap(), known_files(&from).unwrap());
        let some = folder.path().join("some");
        fs::create_dir(&some).unwrap();
        copy_tree(&from, &some, &["closed/below/file"]).unwrap();
        let paths: Vec<_> = known_files(&some).unwrap().into_iter().map(|file| file.path).collect();
        assert_eq!(
            paths,
            ["closed", "closed/below", "closed/below/file"].map(std::path::PathBuf::from)
        );
    }
}
