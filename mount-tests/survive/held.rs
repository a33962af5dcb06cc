//! A mount whose servers are replaced: killed, so that another one is started, or upgraded.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::deadline::kill_now;
use crate::common::{Lower, Session, Who, children_of, mounts_below, spawn};
use crate::survive::Watch;

/// How long a server may take to begin on a machine that is slow and busy.
const BEGINS_WITHIN: Duration = Duration::from_secs(120);

/// How the server of a mount is replaced, and by what it reaches the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It is killed.
    Killed,
    /// It is told to hand over, through `/dev/fuse`.
    Upgraded,
    /// The same, through io_uring.
    UpgradedRings,
    /// The same, and it is one of a mount that survives its servers.
    UpgradedHeld,
}

impl How {
    pub(crate) const fn options(self) -> &'static str {
        match self {
            Self::Killed | Self::UpgradedHeld => "survive",
            Self::Upgraded => "transport=dev-fuse",
            Self::UpgradedRings => "transport=io-uring",
        }
    }

    /// Returns the ways to upgrade that this kernel has.
    pub(crate) fn upgrades() -> impl Iterator<Item = Self> {
        Self::all().into_iter().filter(|how| *how != Self::Killed)
    }

    /// Returns all that this kernel has.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Killed, Self::Upgraded, Self::UpgradedHeld];
        let enabled = fs::read_to_string("/sys/module/fuse/parameters/enable_uring");
        if enabled.is_ok_and(|text| text.trim() == "Y") {
            all.push(Self::UpgradedRings);
        } else {
            eprintln!("this kernel has no FUSE over io_uring, or it is off");
        }
        all
    }
}

/// A mount that is served in the foreground, by one server after the other.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) session: Session,
    pub(crate) target: PathBuf,
    holder: Option<Child>,
    how: How,
    replaced: AtomicUsize,
    _watch: Watch,
}

impl Held {
    /// Mounts a container of what `fill` makes, which survives its servers.
    pub(crate) fn new(who: Who, lower: Lower, fill: impl FnOnce(&Path) + Send) -> Self {
        Self::with(who, lower, How::Killed, fill)
    }

    /// Mounts a container of what `fill` makes.
    pub(crate) fn with(who: Who, lower: Lower, how: How, fill: impl FnOnce(&Path) + Send) -> Self {
        let options = ["-o", how.options()];
        let session = Session::new(who);
        let made = session.dir("made");
        who.act(|| fill(&made));
        let target = session.dir("mount");
        let arguments = match lower {
            Lower::Image => {
                session.run(&["import", "made", "image:1"]);
                session.run(&["create", "--name", "box", "image:1"]);
                [&["mount", "--foreground"], &options[..], &["box", "mount"]].concat()
            }
            Lower::Dirs => {
                for dir in ["upper", "work"] {
                    session.dir(dir);
                }
                let dirs = "lowerdir=made,upperdir=upper,workdir=work,metacopy=on";
                [&["overlay", "-f", "-o", dirs], &options[..], &["mount"]].concat()
            }
        };
        Self::start(session, target, (lower, how), &arguments)
    }

    fn start<S: AsRef<OsStr>>(
        session: Session,
        target: PathBuf,
        (lower, how): (Lower, How),
        arguments: &[S],
    ) -> Self {
        let mut holder = spawn(&mut session.command(arguments));
        let (start, holder_pid) = (Instant::now(), holder.id().cast_signed());
        // It is there, and answers.
        let answers = || session.who.act(|| fs::read_dir(&target).is_ok());
        // Who looks whether it answers is a child of the holder too, as long as it does.
        let is_looked_at = || children_of(holder_pid).len() > 1;
        while mounts_below(&target).is_empty() || !answers() || is_looked_at() {
            assert!(start.elapsed() < BEGINS_WITHIN, "nothing is mounted");
            assert_eq!(holder.try_wait().unwrap(), None, "the holder has ended");
            std::thread::yield_now();
        }
        let watch = Watch::over(&target);
        // What a container's mount is recorded as, is so from now on.
        let is_recorded = || session.run(&["mount"]).contains("served by");
        while lower == Lower::Image && !is_recorded() {
            assert!(start.elapsed() < BEGINS_WITHIN, "the mount is not recorded");
            std::thread::yield_now();
        }
        let replaced = AtomicUsize::new(0);
        Self { session, target, holder: Some(holder), how, replaced, _watch: watch }
    }

    /// Returns a path in the mount.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.target.join(name)
    }

    /// Returns the process that holds the mount.
    pub(crate) fn holder(&self) -> i32 {
        self.holder.as_ref().expect("the mount is held").id().try_into().unwrap()
    }

    /// Returns the process that serves; none while there is none.
    pub(crate) fn server_if_any(&self) -> Option<i32> {
        children_of(self.holder()).into_iter().find(|pid| is_alive(*pid))
    }

    /// Returns the process that serves.
    #[track_caller]
    pub(crate) fn server(&self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(server) = self.server_if_any() {
                return server;
            }
            assert!(start.elapsed() < BEGINS_WITHIN, "nobody serves");
            std::thread::yield_now();
        }
    }

    /// Has another process serve.
    #[track_caller]
    pub(crate) fn replace(&self) {
        match self.how {
            How::Killed => self.kill(),
            How::Upgraded | How::UpgradedRings | How::UpgradedHeld => self.upgrade(),
        }
    }

    /// Kills the process that serves, and waits until it is dead.
    #[track_caller]
    pub(crate) fn kill(&self) {
        let server = self.server();
        kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
        self.wait_for_end(server);
        self.replaced.fetch_add(1, Ordering::Relaxed);
    }

    /// Has a new process take over from the one that serves.
    #[track_caller]
    pub(crate) fn upgrade(&self) {
        self.session.run(&["remount", "--upgrade", "mount"]);
        self.replaced.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until a process has ended.
    #[track_caller]
    pub(crate) fn wait_for_end(&self, pid: i32) {
        let start = Instant::now();
        while is_alive(pid) {
            assert!(start.elapsed() < BEGINS_WITHIN, "process {pid} does not end");
            std::thread::yield_now();
        }
    }

    /// Returns how many servers were replaced.
    pub(crate) fn replaced(&self) -> usize {
        self.replaced.load(Ordering::Relaxed)
    }

    /// Unmounts, and returns the code of the holder.
    #[track_caller]
    pub(crate) fn unmount(&mut self) -> i32 {
        self.session.unmount("mount");
        self.wait_for_holder()
    }

    /// Waits for the end of the holder, and returns its code.
    #[track_caller]
    pub(crate) fn wait_for_holder(&mut self) -> i32 {
        let mut holder = self.holder.take().expect("the mount is held");
        let start = Instant::now();
        loop {
            if let Some(status) = holder.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < BEGINS_WITHIN, "the holder does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut holder) = self.holder.take() else { return };
        // The session unmounts; a mount that is still in use ends with its holder.
        let pid = holder.id().cast_signed();
        std::iter::once(pid).chain(children_of(pid)).for_each(kill_now);
        let ended: io::Result<_> = holder.wait();
        if let Err(error) = ended {
            eprintln!("the holder: {error}");
        }
    }
}

/// Tells whether a process runs: one that was not waited for yet does not. What is killed has ended when
/// all its threads have, which have one table of open files.
pub(crate) fn is_alive(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.filter_map(Result::ok).any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}
