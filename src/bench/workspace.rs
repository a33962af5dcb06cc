//! The one directory that all work is done in, and how all of it goes away.
//!
//! A locked file in it says that somebody works there; the kernel drops the lock with the process. So
//! whoever comes next takes away what a run has left that was killed. Everything is found from outside,
//! by the path of the directory: what is mounted below it, and which processes serve that. Nothing of
//! what the run itself knows is needed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::error::io_error;
use crate::bench::process::{is_running, serving_below};
use crate::bench::{Error, Result, Size};
use crate::sys::{self, Unmount};

/// The directory of one run.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    /// Locked as long as somebody works here.
    _lock: File,
}

const PREFIX: &str = "strata-bench-";
const LOCK: &str = "lock";
/// How long a process may take to end when its mount is gone, or when it was killed.
const ENDING: Duration = Duration::from_secs(10);
/// How often a directory is emptied that somebody fills.
const TRIES: usize = 20;

impl Workspace {
    /// Makes a directory of its own in `dir`. What was left there by runs that are gone is taken away.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the disk has too little room for `size`.
    pub fn new(dir: &Path, size: &Size) -> Result<Self> {
        let dir = fs::canonicalize(dir).map_err(io_error("find", dir))?;
        if dir.as_os_str().as_bytes().iter().any(|byte| b":,\\".contains(byte)) {
            return Err(Error::Place(dir));
        }
        clear_left(&dir)?;
        let state = sys::statfs(sys::open_dir_path(&dir)?.as_fd())?;
        let available = state.blocks_available * u64::from(state.block_size);
        let needed = size.disk_bytes();
        if available < needed {
            return Err(Error::NoRoom { dir, needed, available });
        }
        let number = u32::from_ne_bytes(sys::random_bytes::<4>()?);
        let path = dir.join(format!("{PREFIX}{number:08x}"));
        fs::DirBuilder::new().mode(0o755).create(&path).map_err(io_error("make", &path))?;
        // It is locked before anybody sees it under its name.
        let (new, named) = (path.join("new"), path.join(LOCK));
        let lock = File::create(&new).map_err(io_error("make", &new))?;
        sys::lock_exclusive(lock.as_fd())?;
        fs::rename(&new, &named).map_err(io_error("make", &named))?;
        Ok(Self { path, _lock: lock })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes everything away.
    pub fn clear(&self) -> Result<()> {
        release(&self.path);
        remove_tree(&self.path)
    }
}

/// Takes away what runs have left that are gone.
fn clear_left(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(io_error("read", dir))? {
        let path = entry.map_err(io_error("read", dir))?.path();
        if !path.file_name().is_some_and(|name| name.as_bytes().starts_with(PREFIX.as_bytes())) {
            continue;
        }
        // One without the file, or somebody else's, is not ours to take.
        let Ok(lock) = File::options().write(true).open(path.join(LOCK)) else { continue };
        if sys::try_lock_exclusive(lock.as_fd())? {
            tracing::info!("{} was left by a run that is gone: it is removed", path.display());
            release(&path);
            remove_tree(&path)?;
        }
    }
    Ok(())
}

/// Unmounts everything below a directory and ends what has served it.
pub(crate) fn release(dir: &Path) {
    let servers = serving_below(dir);
    for target in mounts_below(dir).into_iter().rev() {
        if let Err(error) = sys::unmount(&target, Unmount::Detach) {
            tracing::debug!("{error}");
        }
    }
    end(&servers, ENDING);
}

/// Waits until processes have ended; those that have not after a time are killed.
pub(crate) fn end(pids: &[i32], within: Duration) {
    if wait_for(pids, within) {
        return;
    }
    for pid in pids.iter().filter(|pid| is_running(**pid)) {
        tracing::warn!("process {pid} does not end with its mount: it is killed");
        if let Err(error) = sys::kill(*pid) {
            tracing::warn!("{error}");
        }
    }
    wait_for(pids, ENDING);
}

fn wait_for(pids: &[i32], within: Duration) -> bool {
    let start = Instant::now();
    while pids.iter().any(|pid| is_running(*pid)) {
        if start.elapsed() > within {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Returns what is mounted below a directory, in the order of mounting.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n');
    // proc_pid_mountinfo(5): the mount point is the fifth field. Our names need no escapes, and those
    // of the directory above them would not match.
    let targets = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let targets = targets.map(|target| PathBuf::from(OsStr::from_bytes(target)));
    targets.filter(|target| target.starts_with(dir)).collect()
}

/// Removes a directory and everything in it, several directories at a time.
pub(crate) fn remove_tree(dir: &Path) -> Result<()> {
    let mut tries = 0;
    loop {
        remove_below(dir);
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tries += 1;
                if tries == TRIES {
                    return Err(io_error("remove", dir)(error));
                }
                // A directory of an image may be closed to its owner; or somebody still fills it.
                open_directories(dir);
            }
            _ => return Ok(()),
        }
    }
}

/// Removes what is two levels below a directory, with a thread for each processor. What cannot be
/// removed stays.
fn remove_below(dir: &Path) {
    let list = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>());
        let entries = entries.unwrap_or_default().into_iter();
        let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        entries.filter(is_dir).map(|entry| entry.path()).collect()
    };
    let mut parts: Vec<PathBuf> = vec![dir.to_owned()];
    for _ in 0..4 {
        let below: Vec<_> = parts.iter().flat_map(|part| list(part)).collect();
        if below.is_empty() {
            break;
        }
        parts = below;
    }
    let queue = parking_lot::Mutex::new(parts);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().pop();
                    let Some(part) = next else { break };
                    if let Err(error) = fs::remove_dir_all(&part) {
                        tracing::debug!("{}: {error}", part.display());
                    }
                }
            });
        }
    });
}

/// Lets the owner of directories list and change them.
fn open_directories(dir: &Path) {
    let Ok(metadata) = fs::symlink_metadata(dir) else { return };
    if !metadata.is_dir() {
        return;
    }
    if metadata.permissions().mode() & 0o700 != 0o700
        && let Err(error) = fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
    {
        tracing::debug!("{}: {error}", dir.display());
    }
    let entries = fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>());
    entries.unwrap_or_default().iter().for_each(|entry| open_directories(&entry.path()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Size {
        Size::parse("0.001").unwrap()
    }

    #[test]
    fn a_workspace_goes_away_with_everything_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(folder.path(), &small()).unwrap();
        let deep = workspace.path().join("a/b/c/d/e");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "x").unwrap();
        fs::set_permissions(&deep, fs::Permissions::from_mode(0o000)).unwrap();
        workspace.clear().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_run_has_left_that_is_gone_is_taken_away_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("strata-bench-left");
        fs::create_dir_all(left.join("tree")).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        let other = folder.path().join("strata-bench-of-somebody");
        fs::create_dir(&other).unwrap();
        let first = Workspace::new(folder.path(), &small()).unwrap();
        let second = Workspace::new(folder.path(), &small()).unwrap();
        assert!(!left.exists() && other.exists());
        assert!(first.path().exists() && second.path().exists());
    }

    #[test]
    fn a_place_is_refused_that_options_cannot_hold() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a,b");
        fs::create_dir(&dir).unwrap();
        assert!(matches!(Workspace::new(&dir, &small()), Err(Error::Place(_))));
    }
}
