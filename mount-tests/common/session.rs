//! A store, a folder to work in, and what is mounted there.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use crate::common::Who;
use crate::common::deadline::{Connection, Deadline, kill_now};
use crate::common::program::Program;

/// How long a command may take.
const LONGEST: Duration = Duration::from_secs(900);

/// A folder that is in memory on most machines, and how much room a test needs there.
pub(crate) const MEMORY: &str = "/dev/shm";
const ROOM: u64 = 1 << 30;

/// What a command said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A temporary folder with a store in it; at its end nothing is mounted below it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) who: Who,
    program: Program,
    folder: tempfile::TempDir,
    /// Another session whose store is used.
    stored_in: Option<Arc<Self>>,
}

impl Session {
    pub(crate) fn new(who: Who) -> Self {
        Self::below(&std::env::temp_dir(), who)
    }

    /// Makes one whose folder is in memory, where the machine has the room. For tests that need no disk:
    /// they would wait for syncing most of their time.
    pub(crate) fn in_memory(who: Who) -> Self {
        let memory = Path::new(MEMORY);
        let room = statvfs(memory).map(|found| found.blocks_available() * found.fragment_size());
        let is_roomy = room.is_ok_and(|room| room >= ROOM);
        // Older kernels have no such attributes there, without which an ordinary user cannot change a mount.
        let marks =
            |file: tempfile::NamedTempFile| xattr::set(file.path(), "user.test", b"x").is_ok();
        match is_roomy && tempfile::NamedTempFile::new_in(memory).is_ok_and(marks) {
            true => Self::below(memory, who),
            false => Self::new(who),
        }
    }

    fn below(dir: &Path, who: Who) -> Self {
        let folder = tempfile::Builder::new().prefix("strata-test-").tempdir_in(dir).unwrap();
        std::os::unix::fs::chown(folder.path(), Some(who.id()), Some(who.id())).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { who, program: Program::of(who), folder, stored_in: None }
    }

    /// Returns a session that works on the store of another one.
    pub(crate) fn sharing(other: Arc<Self>) -> Self {
        let mut session = Self::new(other.who);
        session.stored_in = Some(other);
        session
    }

    /// Returns the path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a folder that its user owns.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(self.who.id()), Some(self.who.id())).unwrap();
        path
    }

    /// Returns the program, to be run as the session's user on the session's store.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(self.program.path());
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.folder.path())
            .env("STRATA_ROOT", self.stored_in.as_deref().unwrap_or(self).path("store"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        self.who.run(&mut command);
        command
    }

    /// Makes an image of one small file.
    #[track_caller]
    pub(crate) fn import(&self, name: &str) {
        fs::write(self.dir("imported").join("file"), "content\n").unwrap();
        self.run(&["import", "imported", name]);
    }

    /// Runs the program, whatever comes of it.
    pub(crate) fn try_run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        let mut command = self.command(arguments);
        let unmounts = |verb: &S| ["umount", "undo"].iter().any(|one| verb.as_ref() == *one);
        let unmounts = arguments.first().is_some_and(unmounts);
        if unmounts { run_alone(&mut command) } else { run(&mut command) }
    }

    /// Runs the program and returns what it wrote to standard output.
    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr> + std::fmt::Debug>(&self, arguments: &[S]) -> String {
        let output = self.try_run(arguments);
        assert_eq!(output.code, 0, "strata {arguments:?}: {}", output.stderr);
        output.stdout
    }

    /// Unmounts what the program has mounted.
    #[track_caller]
    pub(crate) fn unmount(&self, target: &str) {
        self.run(&["umount", target]);
    }

    /// Unmounts as those do who know nothing of the program.
    #[track_caller]
    pub(crate) fn detach(&self, target: &Path) {
        let mut command = Command::new("fusermount3");
        let output = run_alone(self.who.run(command.arg("-u").arg(target)));
        assert_eq!(output.code, 0, "fusermount3 -u {}: {}", target.display(), output.stderr);
    }

    /// Runs the program, which must refuse, and returns what it said on standard error.
    #[track_caller]
    pub(crate) fn refused<S: AsRef<OsStr> + std::fmt::Debug>(&self, arguments: &[S]) -> String {
        let output = self.try_run(arguments);
        assert_ne!(output.code, 0, "strata {arguments:?} did it: {}", output.stdout);
        output.stderr
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Each unmount ends its server. What is mounted last goes first.
        for target in mounts_below(self.folder.path()).iter().rev() {
            unmount(target);
        }
    }
}

/// Held while a process begins. Until it runs its program it has a copy of every file that any test
/// has open, so a file just written cannot be run and a mount just left cannot be unmounted.
static BEGINNING: Mutex<()> = Mutex::new(());

/// Keeps all tests from beginning a process.
pub(crate) fn no_beginning() -> MutexGuard<'static, ()> {
    BEGINNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins a process.
pub(crate) fn spawn(command: &mut Command) -> Child {
    let _guard = no_beginning();
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    finish(child, command)
}

/// Runs a command that unmounts something to its end, while no other begins. It is run again where the
/// mount is busy: whoever looks at all mounts of the machine has this one open for a moment.
pub(crate) fn run_alone(command: &mut Command) -> Output {
    const TRIES: usize = 20;
    let _guard = no_beginning();
    let mut run = || {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        finish(child.unwrap_or_else(|error| panic!("{command:?}: {error}")), command)
    };
    let mut output = run();
    for _ in 1..TRIES {
        if output.code == 0 || !output.stderr.contains("busy") {
            break;
        }
        output = run();
    }
    output
}

/// Waits for the end of a command. If that does not come in time, it is killed, and what is mounted around
/// the folder that it works in is aborted.
fn finish(child: Child, command: &Command) -> Output {
    let (pid, what) = (child.id().cast_signed(), format!("{command:?}"));
    let folder = command.get_current_dir().map(Path::to_owned);
    let deadline = Deadline::new(what, LONGEST, move || {
        kill_now(pid);
        let around = folder.map_or_else(Vec::new, |folder| Connection::around(&folder));
        around.iter().for_each(Connection::abort);
    });
    let output = child.wait_with_output().unwrap();
    assert!(!deadline.has_passed(), "{command:?} has not ended in time");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Returns what is mounted below a folder, in the order of mounting.
pub(crate) fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let targets = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    targets.filter(|target| target.starts_with(folder)).collect()
}

#[allow(unsafe_code, reason = "the standard library cannot unmount")]
fn unmount(target: &Path) {
    let path = CString::new(target.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a string that ends with a zero.
    if unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } != 0 {
        eprintln!("{} stays mounted: {}", target.display(), std::io::Error::last_os_error());
    }
}

/// Returns a size that `/proc` says of a process.
pub(crate) fn bytes_of(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a size");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024
}

/// Returns the processes that a process has started and that have not been waited for.
pub(crate) fn children_of(pid: i32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}
