//! Writing files so that they are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::error::{Error, Result, io_error};
use crate::store::parallel::in_parallel;
use crate::sys::{self, Errno};

/// How the name of a file begins that is about to replace another one; it is locked as long as somebody
/// works on it.
pub(crate) const TEMPORARY: &str = "file-";

/// How many threads wait for the disk at once.
const SYNCS_AT_ONCE: usize = 16;

const DAY: Duration = Duration::from_hours(24);

/// Returns a name that nobody else uses, of 16 hex digits.
pub(crate) fn random_name() -> Result<String> {
    let bytes = sys::random_bytes::<8>()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes an empty file with these permissions, open for reading and writing, that did not exist.
pub(crate) fn create_new(path: &Path, mode: u32) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true).mode(mode);
    options.open(path).map_err(io_error("create", path))
}

/// Makes an empty file as [`create_new`] does, at the path that a random name gives, and locks it. As
/// long as its maker lives it is locked; [`open_if_locked`] removes one that is not.
pub(crate) fn create_locked(
    path_of: impl Fn(&str) -> PathBuf,
    mode: u32,
) -> Result<(String, PathBuf, File)> {
    loop {
        let name = random_name()?;
        let path = path_of(&name);
        let file = create_new(&path, mode)?;
        sys::lock_exclusive(file.as_fd())?;
        // Who saw it before it was locked has taken its maker for dead.
        if file.metadata().map_err(io_error("read", &path))?.nlink() > 0 {
            return Ok((name, path, file));
        }
    }
}

/// Opens a file that its maker keeps locked; none if that is dead, in which case the file is removed.
/// What is no file has been made by nobody of ours: it says nothing, and stays.
pub(crate) fn open_if_locked(path: &Path) -> Result<Option<File>> {
    let file = match sys::open_plain(path) {
        Ok(file) => File::from(file),
        // Nothing, a symbolic link, a socket.
        Err(error) if [Errno::ENOENT, Errno::ELOOP, Errno::ENXIO].contains(&error.errno()) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    if !file.metadata().map_err(io_error("read", path))?.is_file() {
        return Ok(None);
    }
    if sys::try_lock_exclusive(file.as_fd())? {
        // With the lock held: a maker that comes to it only now sees that it is gone.
        remove_if_exists(path)?;
        return Ok(None);
    }
    Ok(Some(file))
}

/// Tells whether a file was last changed over a day ago; one that is gone was not.
pub(crate) fn is_old(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path).and_then(|metadata| metadata.modified()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        changed => {
            let changed = changed.map_err(io_error("read", path))?;
            Ok(changed.elapsed().unwrap_or_default() > DAY)
        }
    }
}

/// Writes the names of a directory to the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(io_error("sync", path))
}

/// Writes files, or the names in directories, to the disk: many at once, because the disk is told once for
/// all that wait to hold what it was given.
pub(crate) fn sync_each(paths: &[PathBuf]) -> Result<()> {
    in_parallel(paths, SYNCS_AT_ONCE, |path| sync_dir(path)).map(drop)
}

/// Makes the names in directories durable. One that somebody has removed has none.
pub(crate) fn sync_dirs(paths: &[PathBuf]) -> Result<()> {
    in_parallel(paths, SYNCS_AT_ONCE, |path| sync_unless_gone(path)).map(drop)
}

/// Makes durable that a file has its name, or has it no more. Somebody may have removed it since, with the
/// directory that it was in.
pub(crate) fn sync_name(path: &Path) -> Result<()> {
    sync_unless_gone(path.parent().unwrap_or(path))
}

fn sync_unless_gone(dir: &Path) -> Result<()> {
    match sync_dir(dir) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether what is written has to be there after a crash of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    /// It has.
    Yes,
    /// It says something of running processes, which are gone then. What a crash leaves of the file may
    /// be empty.
    No,
}

/// Replaces the file `path` by `bytes`, through a file in `staging` on the same file system: after
/// a crash one of the two is there, whole. Directories above `path` are made.
pub(crate) fn replace(staging: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    replace_as(staging, path, bytes, Durable::Yes)
}

/// Does the same, durable or not: readers find one of the two whole in any case.
pub(crate) fn replace_as(
    staging: &Path,
    path: &Path,
    bytes: &[u8],
    durable: Durable,
) -> Result<()> {
    let (_, temporary, mut file) =
        create_locked(|name| staging.join(format!("{TEMPORARY}{name}")), 0o644)?;
    let written = file.write_all(bytes).and_then(|()| match durable {
        Durable::Yes => file.sync_all(),
        Durable::No => Ok(()),
    });
    let written = written.map_err(io_error("write", &temporary));
    if let Err(error) = written.and_then(|()| rename_into(staging, &temporary, path)) {
        // The first error is the one to tell; what is left in staging is collected later.
        if let Err(also) = fs::remove_file(&temporary) {
            tracing::debug!("{}: {also}", temporary.display());
        }
        return Err(error);
    }
    match durable {
        Durable::Yes => sync_name(path),
        Durable::No => Ok(()),
    }
}

/// Gives a file its name as [`rename_over`] does. Directories above it are made.
pub(crate) fn rename_into(staging: &Path, from: &Path, to: &Path) -> Result<()> {
    match rename_over(staging, from, to) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let parent = to.parent().unwrap_or(to);
            make_durable_dir(parent).map_err(io_error("create", parent))?;
            rename_over(staging, from, to)
        }
        other => other,
    }
}

/// Gives a file its name. A directory that is in the way does not belong there, and is moved to
/// `staging`, where it is collected.
pub(crate) fn rename_over(staging: &Path, from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            let stray = staging.join(format!("stray-{}", random_name()?));
            fs::rename(to, &stray).map_err(io_error("move away", to))?;
            fs::rename(from, to).map_err(io_error("write", to))
        }
        other => other.map_err(io_error("write", to)),
    }
}

/// Makes a directory, with those above it, whose names are on the disk then.
fn make_durable_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_durable_dir(path.parent().ok_or(error)?)?;
            match fs::create_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        other => other?,
    }
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Makes the directories below `root` that lead to a file, and returns those in which they have their
/// names: these are not on the disk yet, whoever has made them.
pub(crate) fn make_dirs_above(root: &Path, path: &Path) -> Result<Vec<PathBuf>> {
    let dir = path.parent().unwrap_or(path);
    ensure_dir(dir)?;
    let above = dir.ancestors().skip(1).take_while(|above| above.starts_with(root));
    Ok(above.map(Path::to_owned).collect())
}

/// Reads a file; none when there is no such file.
pub(crate) fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Opens a file; none when there is no such file.
pub(crate) fn open_if_exists(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("open", path)(error)),
    }
}

/// Opens the file of a lock, which is made if it is missing.
pub(crate) fn open_lock(path: &Path) -> Result<File> {
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).open(path);
    file.map_err(io_error("open", path))
}

/// Makes sure that a directory is there.
pub(crate) fn ensure_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(io_error("create", path))
}

/// Removes a file; it need not exist.
pub(crate) fn remove_if_exists(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("remove", path)(error)),
    }
}

/// Renames a file; it need not exist. Tells whether it did.
pub(crate) fn rename_if_exists(from: &Path, to: &Path) -> Result<bool> {
    match fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("rename", from)(error)),
    }
}

/// Returns the names in a directory that are UTF-8, which all of ours are, without hidden ones.
pub(crate) fn list(path: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            if let Ok(name) = entry?.file_name().into_string()
                && !name.starts_with('.')
            {
                names.push(name);
            }
        }
        Ok(names)
    };
    read().map_err(io_error("read", path))
}

/// Returns the names in a directory; none if there is none, or something else.
pub(crate) fn list_if_there(path: &Path) -> Result<Vec<String>> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match list(path) {
        Err(Error::Io { source, .. }) if matches!(source.kind(), NotADirectory | NotFound) => {
            Ok(Vec::new())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn regression_a_name_whose_directory_was_removed_meanwhile_is_durably_gone() {
        let folder = tempfile::tempdir().unwrap();
        sync_name(&folder.path().join("file")).unwrap();
        sync_name(&folder.path().join("gone/file")).unwrap();
        assert!(sync_dir(&folder.path().join("gone")).is_err());
    }

    #[test]
    fn a_file_that_its_maker_has_locked_keeps_its_name_whoever_looks_for_the_dead() {
        const FILES: usize = 2000;
        let folder = tempfile::tempdir().unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    for name in list(folder.path()).unwrap() {
                        drop(open_if_locked(&folder.path().join(name)).unwrap());
                    }
                }
            });
            let kept: Vec<_> = (0..FILES)
                .map(|_| {
                    let made = create_locked(|name| folder.path().join(name), 0o600);
                    let (_, path, file) = made.unwrap();
                    let found = fs::metadata(&path).map(|found| found.ino()).ok();
                    (found, file.metadata().unwrap().ino())
                })
                .collect();
            is_over.store(true, Ordering::Release);
            assert!(kept.iter().all(|(found, made)| *found == Some(*made)), "{kept:?}");
        });
        // The dead have left theirs.
        for name in list(folder.path()).unwrap() {
            assert!(open_if_locked(&folder.path().join(name)).unwrap().is_none());
        }
        assert!(list(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn directories_above_a_new_file_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c/file");
        for content in ["one", "two"] {
            replace(folder.path(), &path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(list(folder.path()).unwrap(), ["a"]);
    }
}
