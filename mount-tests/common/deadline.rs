//! What a test waits for has an end: after a time it is killed, and the test says so.
//!
//! A program that waits in the kernel for a file system whose server is dead or stopped cannot be
//! killed. The connection is aborted for that, through the file system of type `fusectl`.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::session::{MEMORY, no_beginning};

/// How long anything may take that takes seconds at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// How long what was killed may take to be gone; after that no test can go on.
const AFTER: Duration = Duration::from_secs(120);

/// Does something if it is not dropped in time.
#[derive(Debug)]
pub(crate) struct Deadline {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    has_passed: Arc<AtomicBool>,
}

impl Deadline {
    /// Returns a deadline for what is called `what`; `end` has to bring it to its end.
    pub(crate) fn new(what: String, within: Duration, end: impl FnOnce() + Send + 'static) -> Self {
        let (done, ended) = channel::<()>();
        let has_passed = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&has_passed);
        let wait = move || {
            let is_late =
                |within| matches!(ended.recv_timeout(within), Err(RecvTimeoutError::Timeout));
            if !is_late(within) {
                return;
            }
            noted.store(true, Ordering::Release);
            eprintln!("{what} has not ended within {within:?} and is killed");
            if catch_unwind(AssertUnwindSafe(end)).is_err() {
                eprintln!("{what} could not be killed as it should; see above");
            }
            if is_late(AFTER) {
                // Nothing else is left that lets the tests end.
                eprintln!("{what} cannot be killed");
                std::process::abort();
            }
        };
        let thread = Some(std::thread::spawn(wait));
        Self { done: Some(done), thread, has_passed }
    }

    /// Tells whether it has passed.
    pub(crate) fn has_passed(&self) -> bool {
        self.has_passed.load(Ordering::Acquire)
    }
}

/// Does something that may wait for the servers of what is mounted around a folder. If it does not end in
/// time, their connections are aborted, and it fails.
pub(crate) fn in_time<T>(what: &str, folder: &Path, act: impl FnOnce() -> T) -> T {
    let around = folder.to_owned();
    let deadline = Deadline::new(what.to_owned(), PATIENCE, move || {
        Connection::around(&around).iter().for_each(Connection::abort);
    });
    let done = act();
    assert!(!deadline.has_passed(), "{what} has not ended in time");
    done
}

impl Drop for Deadline {
    fn drop(&mut self) {
        drop(self.done.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "its thread panicked");
    }
}

/// A FUSE connection that can be aborted, whatever its server and its programs do.
#[derive(Clone, Debug)]
pub(crate) struct Connection(u64);

impl Connection {
    /// Returns the connection of what is mounted at a path, without asking its server; none if nothing
    /// is.
    pub(crate) fn of(mounted: &Path) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        mounts.lines().rev().find_map(|line| {
            // proc_pid_mountinfo(5): the third field is the device, the fifth the mount point.
            let mut words = line.split(' ');
            let (_, number) = words.nth(2)?.split_once(':')?;
            (Path::new(words.nth(1)?) == mounted).then(|| Self(number.parse().unwrap()))
        })
    }

    /// Returns the connections of what tests have mounted at a folder, above it or below it.
    pub(crate) fn around(folder: &Path) -> Vec<Self> {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let found = mounts.lines().filter_map(|line| {
            let (words, kind) = line.split_once(" - ")?;
            // proc_pid_mountinfo(5), as above.
            let mut words = words.split(' ');
            let (_, number) = words.nth(2)?.split_once(':')?;
            let at = Path::new(words.nth(1)?);
            let is_fuse = kind.starts_with("fuse.") || kind.starts_with("fuse ");
            let is_around = at.starts_with(folder) || folder.starts_with(at);
            (is_fuse && is_of_tests(at) && is_around).then(|| Self(number.parse().unwrap()))
        });
        found.collect()
    }

    /// Ends it: whoever waits for an answer gets an error. Nothing happens to one that is gone.
    pub(crate) fn abort(&self) {
        let number = self.0;
        // In a thread with mounts of its own, so that nobody else sees this one.
        let aborting = std::thread::spawn(move || {
            copy_mounts();
            let at = Path::new("/sys/fs/fuse/connections");
            mount(Some("none"), at, Some("fusectl"), MsFlags::empty(), None::<&str>).unwrap();
            let abort = at.join(number.to_string()).join("abort");
            if abort.exists() {
                fs::write(abort, "1").unwrap();
            }
            umount2(at, MntFlags::MNT_DETACH).unwrap();
        });
        assert!(aborting.join().is_ok(), "connection {number} cannot be aborted");
    }
}

/// Gives this thread, and what it begins from now on, mounts of its own: no other process sees them,
/// and they are gone when the last of these has ended. Those of other tests it has no more: they end when
/// these unmount them.
pub(crate) fn private_mounts() {
    // Nobody unmounts something meanwhile, and waits for the end of what is still mounted here.
    let _guard = no_beginning();
    copy_mounts();
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    for line in mounts.lines().rev() {
        // proc_pid_mountinfo(5): the fifth field is the mount point, the one after `-` the type.
        let at = Path::new(line.split(' ').nth(4).expect("a mount point"));
        let kind = line.split_once(" - ").map_or("", |(_, kind)| kind);
        // The kernel's overlayfs may not be mounted again while a copy of it is there.
        let is_overlay = kind.starts_with("fuse.") || kind.starts_with("overlay ");
        if is_overlay && is_of_tests(at) {
            match umount2(at, MntFlags::MNT_DETACH) {
                // It went with the folder that it was in.
                Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
                Err(error) => panic!("{}: {error}", at.display()),
            }
        }
    }
}

/// Tells whether a mount point is one that tests make.
fn is_of_tests(at: &Path) -> bool {
    let dirs = [std::env::temp_dir().canonicalize().unwrap(), MEMORY.into()];
    dirs.iter().any(|dir| at.starts_with(dir) && at != dir)
}

/// Gives this thread a copy of all mounts, which is its own.
fn copy_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("mount tests run as root");
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
}

/// Kills a process; one that is gone already is what is wanted.
pub(crate) fn kill_now(pid: i32) {
    if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL)
        && error != nix::Error::ESRCH
    {
        eprintln!("process {pid} cannot be killed: {error}");
    }
}
