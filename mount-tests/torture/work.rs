//! What programs do in a mount: one change after the other, each of which is done or not.
//!
//! Each step changes what can be seen. What a step writes it syncs, so that the server has it before the
//! step ends. The work is done by a process of its own, which says when a step is done: the test binary
//! itself, that runs one test.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{
    AT_FDCWD, AtFlags, FallocateFlags, OFlag, RenameFlags, copy_file_range, fallocate, renameat2,
};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{linkat, mkfifo};

use crate::common::{Tree, Who, forget_times, script, spawn, tree_of};

/// The folder in which the work is to be done, the file in which steps that are done are noted, and how it
/// is done.
const AT: &str = "STRATA_TORTURE_AT";
const DONE: &str = "STRATA_TORTURE_DONE";
const HOW: &str = "STRATA_TORTURE_HOW";

/// How the work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Until a step fails, which is what happens when the server dies.
    ToDeath,
    /// A step that fails is done again.
    Again,
    /// Everything is synced after each so manyth step.
    Syncing,
}

/// After how many steps everything is synced.
pub(crate) const SYNCED: usize = 5;

/// A change.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    act: fn(&Path) -> io::Result<()>,
    /// The kernel lets no ordinary user do it.
    by_root: bool,
}

const fn step(name: &'static str, act: fn(&Path) -> io::Result<()>) -> Step {
    Step { name, act, by_root: false }
}

const fn by_root(name: &'static str, act: fn(&Path) -> io::Result<()>) -> Step {
    Step { name, act, by_root: true }
}

/// Returns the steps that somebody can do, in their order.
pub(crate) fn steps(who: Who) -> Vec<&'static Step> {
    STEPS.iter().filter(|step| who == Who::Root || !step.by_root).collect()
}

/// Makes the tree in which the work begins.
pub(crate) fn fill(folder: &Path) {
    script(
        "mkdir dir dir/sub empty emptied moved many open
         for n in 1 2 3 4 5 6 7 8 9; do echo small $n > small-$n; seq $n 20000 > large-$n; done
         echo one > dir/one && echo two > dir/two && echo deep > dir/sub/deep
         echo gone > emptied/gone && seq 9000 > moved/file
         echo shared > hard && ln hard many/hard && ln hard dir/hard
         ln -s small-1 link && mkfifo fifo && chmod 1777 open && echo for all > open/file
         find . -exec touch -h -d @1600000000 {} +",
        folder,
    );
}

fn write(path: PathBuf, text: &str, offset: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(text.as_bytes(), offset)?;
    file.sync_all()
}

fn append(path: PathBuf, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(text.as_bytes())?;
    // Done again as a whole it would be there twice.
    file.sync_all().or_else(|_| file.sync_all())
}

fn create(path: PathBuf, mode: u32) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map(drop)
}

fn chmod(path: PathBuf, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn truncate(path: PathBuf, len: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(len)?;
    file.sync_all()
}

fn rename_how(from: PathBuf, to: PathBuf, how: RenameFlags) -> io::Result<()> {
    Ok(renameat2(AT_FDCWD, &from, AT_FDCWD, &to, how)?)
}

fn node(path: PathBuf, kind: SFlag, device: u64) -> io::Result<()> {
    Ok(mknod(&path, kind, Mode::from_bits_truncate(0o640), device)?)
}

fn allocate(path: PathBuf, how: FallocateFlags, at: i64, len: i64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    fallocate(&file, how, at, len)?;
    file.sync_all()
}

fn copy_range(from: PathBuf, to: PathBuf) -> io::Result<()> {
    let (from, to) = (File::open(from)?, OpenOptions::new().write(true).open(to)?);
    let (mut from_at, mut to_at) = (100, 50);
    copy_file_range(&from, Some(&mut from_at), &to, Some(&mut to_at), 3000)?;
    to.sync_all()
}

fn name_nameless(dir: PathBuf, path: PathBuf) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o640).custom_flags(OFlag::O_TMPFILE.bits());
    let mut file = options.open(dir)?;
    file.write_all(b"it had no name")?;
    file.sync_all()?;
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(AT_FDCWD, from.as_str(), AT_FDCWD, &path, AtFlags::AT_SYMLINK_FOLLOW)?)
}

fn set_time(path: PathBuf) -> io::Result<()> {
    let time = TimeSpec::new(1_500_000_000, 7);
    Ok(utimensat(AT_FDCWD, &path, &time, &time, UtimensatFlags::NoFollowSymlink)?)
}

/// Does something as a user who is not root.
fn as_user(act: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() { Who::User.act(act) } else { act() }
}

/// All of it, in the order in which it is done.
const STEPS: &[Step] = &[
    step("write to a small file", |at| write(at.join("small-1"), "SMALL", 0)),
    step("write into the middle of a large one", |at| write(at.join("large-1"), "MIDDLE", 50_000)),
    step("append to a small file", |at| append(at.join("dir/one"), "and more\n")),
    step("chmod a large file", |at| chmod(at.join("large-2"), 0o600)),
    step("cut it", |at| truncate(at.join("large-2"), 5000)),
    step("chmod another one", |at| chmod(at.join("large-3"), 0o600)),
    step("write to it", |at| write(at.join("large-3"), "WRITTEN", 7)),
    step("chown a third one", |at| chown(at.join("large-4"), Some(1234), Some(5678))),
    step("make it longer", |at| truncate(at.join("large-4"), 200_000)),
    step("cut a file that nothing was done to", |at| truncate(at.join("large-5"), 4000)),
    step("empty one", |at| truncate(at.join("large-6"), 0)),
    step("set an attribute", |at| xattr::set(at.join("small-2"), "user.note", b"a value")),
    step("set another one", |at| xattr::set(at.join("small-2"), "user.note", b"another")),
    step("remove it", |at| xattr::remove(at.join("small-2"), "user.note")),
    step("set a time", |at| set_time(at.join("small-3"))),
    step("write to a file with several names", |at| write(at.join("hard"), "SHARED", 0)),
    step("remove one of its names", |at| fs::remove_file(at.join("many/hard"))),
    step("give it another one", |at| fs::hard_link(at.join("dir/hard"), at.join("harder"))),
    step("make a file", |at| create(at.join("new"), 0o640)),
    step("write to it", |at| append(at.join("new"), "new content")),
    step("reserve room in it", |at| allocate(at.join("new"), FallocateFlags::empty(), 0, 9000)),
    step("make a hole in a large file", |at| {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        allocate(at.join("large-7"), hole, 4096, 8192)
    }),
    step("copy from one to another", |at| copy_range(at.join("large-8"), at.join("large-1"))),
    step("make a set-uid file", |at| create(at.join("set-uid"), 0o4755)),
    step("remove a file of the image", |at| fs::remove_file(at.join("small-4"))),
    step("make it anew", |at| create(at.join("small-4"), 0o604)),
    step("remove a file that was made", |at| fs::remove_file(at.join("new"))),
    step("make a directory", |at| fs::create_dir(at.join("made"))),
    step("make a file in it", |at| create(at.join("made/file"), 0o600)),
    step("rename a file of the image", |at| fs::rename(at.join("small-5"), at.join("other"))),
    step("rename one over another", |at| fs::rename(at.join("large-8"), at.join("small-6"))),
    step("rename one into a directory", |at| fs::rename(at.join("small-7"), at.join("dir/in"))),
    step("rename back to where one was", |at| fs::rename(at.join("other"), at.join("small-5"))),
    step("rename a directory of the image", |at| fs::rename(at.join("moved"), at.join("there"))),
    step("write to a file in it", |at| append(at.join("there/file"), "moved\n")),
    step("make a directory in its place", |at| fs::create_dir(at.join("moved"))),
    step("rename a directory into another", |at| fs::rename(at.join("there"), at.join("made/it"))),
    step("exchange two files", |at| {
        rename_how(at.join("small-8"), at.join("large-9"), RenameFlags::RENAME_EXCHANGE)
    }),
    step("exchange a file and a directory", |at| {
        rename_how(at.join("small-9"), at.join("dir/sub"), RenameFlags::RENAME_EXCHANGE)
    }),
    step("remove an empty directory of the image", |at| fs::remove_dir(at.join("empty"))),
    step("make it anew", |at| fs::create_dir(at.join("empty"))),
    step("remove what is in a directory", |at| fs::remove_file(at.join("emptied/gone"))),
    step("rename a directory over it", |at| fs::rename(at.join("made"), at.join("emptied"))),
    step("link a file of the image", |at| fs::hard_link(at.join("dir/two"), at.join("linked"))),
    step("link over one that is gone", |at| {
        fs::hard_link(at.join("small-3"), at.join("many/hard"))
    }),
    step("make a symbolic link", |at| symlink("nowhere", at.join("symlink"))),
    step("remove a symbolic link", |at| fs::remove_file(at.join("link"))),
    step("make it anew", |at| symlink("elsewhere", at.join("link"))),
    step("make a FIFO", |at| Ok(mkfifo(&at.join("pipe"), Mode::from_bits_truncate(0o600))?)),
    by_root("make a device", |at| node(at.join("device"), SFlag::S_IFCHR, makedev(10, 200))),
    by_root("make the device that means nothing", |at| node(at.join("null"), SFlag::S_IFCHR, 0)),
    step("give a file without a name one", |at| name_nameless(at.join("dir"), at.join("named"))),
    step("chmod a directory of the image", |at| chmod(at.join("many"), 0o700)),
    step("make files as a user", |at| as_user(|| create(at.join("open/mine"), 0o600))),
    step("a directory", |at| as_user(|| fs::create_dir(at.join("open/dir")))),
    step("a link", |at| as_user(|| symlink("mine", at.join("open/link")))),
    step("a FIFO", |at| {
        as_user(|| Ok(mkfifo(&at.join("open/fifo"), Mode::from_bits_truncate(0o640))?))
    }),
    step("a socket", |at| {
        as_user(|| std::os::unix::net::UnixListener::bind(at.join("open/socket")).map(drop))
    }),
    step("make a directory", |at| fs::create_dir(at.join("group"))),
    step("give it to a group", |at| chown(at.join("group"), None, Some(77))),
    step("let it hand its group down", |at| chmod(at.join("group"), 0o2775)),
    step("make a directory in it", |at| fs::create_dir(at.join("group/below"))),
    step("make a file in it", |at| create(at.join("group/file"), 0o640)),
];

/// Returns what is seen, without what a crash may change: the time of a directory in which the mount had
/// something to do, and times that came to be after `begun`, seconds since 1970.
pub(crate) fn seen(at: &Path, begun: i64) -> Tree {
    let mut tree = tree_of(at);
    forget_times(&mut tree, |mode, seconds| mode.starts_with('4') || seconds >= begun);
    tree
}

/// The process that does the work.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) process: Child,
    done: PathBuf,
}

impl Worker {
    /// Has the work done in a folder; what is done is noted outside of it.
    pub(crate) fn start(at: &Path, done: PathBuf, who: Who, how: How) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = "torture::work::the_steps_change_what_is_seen";
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(AT, at).env(DONE, &done).env(HOW, format!("{how:?} {who:?}"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        File::create(&done).unwrap();
        Self { process: spawn(&mut command), done }
    }

    /// Returns how many steps were done.
    pub(crate) fn done(&self) -> usize {
        self.notes().iter().filter(|note| **note == DONE_WELL).count()
    }

    /// Returns the error numbers of the steps that had to be done again.
    pub(crate) fn failed(&self) -> Vec<i32> {
        let failed = self.notes().into_iter().filter(|note| *note != DONE_WELL);
        failed.map(i32::from).collect()
    }

    fn notes(&self) -> Vec<u8> {
        fs::read(&self.done).unwrap()
    }
}

/// What is noted of a step that was done; of others the error number.
const DONE_WELL: u8 = 0;

/// Does the steps.
fn work(at: &Path, mut done: &File, who: Who, how: How) {
    for (number, step) in steps(who).into_iter().enumerate() {
        let mut tried = (step.act)(at);
        if let (Err(error), How::Again) = (&tried, how) {
            let errno = error.raw_os_error().and_then(|errno| u8::try_from(errno).ok());
            done.write_all(&[errno.expect("an error number")]).unwrap();
            tried = (step.act)(at);
        }
        if let Err(error) = tried {
            return eprintln!("{}: {error}", step.name);
        }
        if how == How::Syncing && (number + 1) % SYNCED == 0 {
            sync_below(at).unwrap_or_else(|error| panic!("syncing: {error}"));
        }
        done.write_all(&[DONE_WELL]).unwrap();
    }
}

/// Syncs every directory and every regular file.
fn sync_below(at: &Path) -> io::Result<()> {
    File::open(at)?.sync_all()?;
    for entry in fs::read_dir(at)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_below(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    Ok(())
}

#[test]
fn the_steps_change_what_is_seen() {
    if let (Some(at), Some(done)) = (std::env::var_os(AT), std::env::var_os(DONE)) {
        let said = std::env::var(HOW).expect("how");
        let hows = [How::ToDeath, How::Again, How::Syncing].into_iter();
        let ways = hows.flat_map(|how| [Who::Root, Who::User].map(|who| (how, who)));
        let way = ways.into_iter().find(|(how, who)| format!("{how:?} {who:?}") == said);
        let (how, who) = way.expect("a way to work");
        let done = OpenOptions::new().append(true).open(done).unwrap();
        return who.act(|| work(Path::new(&at), &done, who, how));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fill(folder.path());
    let states = states(folder.path(), 1_600_000_001, Who::Root);
    assert_eq!(states.len(), STEPS.len() + 1);
    for (number, pair) in states.windows(2).enumerate() {
        assert_ne!(pair[0], pair[1], "{} changes nothing", STEPS[number].name);
    }
}

/// Does all steps in a folder, and returns what is seen before the first and after each.
pub(crate) fn states(at: &Path, begun: i64, who: Who) -> Vec<Tree> {
    let mut states = vec![seen(at, begun)];
    for step in steps(who) {
        (step.act)(at).unwrap_or_else(|error| panic!("{}: {error}", step.name));
        states.push(seen(at, begun));
    }
    states
}
