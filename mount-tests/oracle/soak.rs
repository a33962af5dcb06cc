//! A crowd for a moment, and for as long as one likes (`scripts/soak`): what everybody sees stays right,
//! the lower stays as it was, and the server gives memory back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Session, Who, bytes_of, differences, mounts_below, spawn, tree_of};
use crate::oracle::crowd::{Crowd, fill};
use crate::oracle::worlds::World;

const ACTORS: usize = 8;

/// One mount, and its server.
pub(crate) struct Mount {
    session: Session,
    world: World,
    server: Option<Child>,
}

impl Mount {
    /// Mounts a lower that `fill` makes.
    pub(crate) fn new(world: World, fill: &dyn Fn(&Path)) -> Self {
        let session = Session::new(Who::Root);
        fill(&session.dir("lower"));
        let mut this = Self { session, world, server: None };
        this.become_one_of(world);
        this
    }

    /// Mounts the lower in this way.
    pub(crate) fn become_one_of(&mut self, world: World) {
        if self.server.is_some() {
            self.end();
        }
        self.world = world;
        if world == World::Image {
            self.session.run(&["import", "lower", "image:1"]);
            self.session.run(&["create", "--name", "box", "image:1"]);
        }
        self.start();
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.session.path("mount")
    }

    fn start(&mut self) {
        for dir in ["upper", "work", "mount"] {
            self.session.dir(dir);
        }
        let stack = "lowerdir=lower,upperdir=upper,workdir=work,metacopy=on,fsync=0";
        let arguments: &[&str] = match self.world {
            World::Image => &["mount", "--foreground", "-o", "volatile", "box", "mount"],
            _ => &["overlay", "-f", "-o", stack, "mount"],
        };
        let server = self.server.insert(spawn(&mut self.session.command(arguments)));
        while mounts_below(&self.session.path("")).is_empty() {
            assert!(server.try_wait().unwrap().is_none(), "the server has ended");
            std::thread::yield_now();
        }
    }

    pub(crate) fn end(&mut self) {
        // Whoever looks at all mounts of the machine at this moment has this one open.
        self.session.run(&["umount", "--lazy", "mount"]);
        let mut server = self.server.take().expect("it is mounted");
        assert!(server.wait().unwrap().success());
    }

    /// Returns the id of the server's process.
    pub(crate) fn server(&self) -> u32 {
        self.server.as_ref().expect("it is mounted").id()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // After a failure: the session unmounts what is left, and this is the server's end.
        for end in [server.kill(), server.wait().map(drop)] {
            end.unwrap_or_else(|error| eprintln!("the server: {error}"));
        }
    }
}

/// Tells whether every thread of a process waits: a server that is told to forget has one that does not.
fn is_idle(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).unwrap()).all(
        |stat| {
            let (_, fields) = stat.rsplit_once(") ").expect("the state follows the name");
            fields.starts_with('S')
        },
    )
}

/// Has the kernel forget all files that nobody uses, and returns how many bytes a process has resident
/// once it knows of that: what is to be forgotten reaches it after the call has returned.
pub(crate) fn resident_after_dropping(pid: u32) -> u64 {
    let mut least = u64::MAX;
    let mut rounds_without_less = 0;
    while rounds_without_less < 2 {
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        while !is_idle(pid) {
            std::thread::yield_now();
        }
        let resident = resident(pid);
        rounds_without_less = if resident < least { 0 } else { rounds_without_less + 1 };
        least = least.min(resident);
    }
    least
}

/// Returns how many bytes a process has resident.
fn resident(pid: u32) -> u64 {
    bytes_of(pid, "VmRSS:")
}

/// Returns how many bytes of its own a process has resident, not of files that it maps.
pub(crate) fn own(pid: u32) -> u64 {
    bytes_of(pid, "RssAnon:")
}

fn lower_of(path: &Path) -> crate::common::Tree {
    tree_of(&path.join("lower"))
}

#[test]
fn a_crowd_sees_what_each_of_it_did() {
    for world in [World::Dirs, World::Image] {
        let mut mount = Mount::new(world, &|lower| fill(lower, 24, ACTORS));
        let before = lower_of(&mount.session.path(""));
        let crowd = Crowd::new(&mount.path(), 24, ACTORS);
        let epochs = AtomicUsize::new(0);
        let left = crowd.work(1, &|| epochs.fetch_add(1, Ordering::Relaxed) < 24);
        left.iter().for_each(|expected| crowd.check(expected));
        mount.end();
        mount.start();
        left.iter().for_each(|expected| crowd.check(expected));
        assert_eq!(differences(&before, &lower_of(&mount.session.path(""))), Vec::<String>::new());
        mount.end();
    }
}

fn seconds() -> u64 {
    std::env::var("STRATA_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600)
}

/// The first tenth of the time warms the server up: tables and the allocator's arenas grow to the size of
/// the load, once, and memory that is only lost goes on growing.
#[test]
#[ignore = "takes ten minutes: scripts/soak runs it"]
fn a_crowd_at_work_for_long_leaves_no_growth() {
    let time = Duration::from_secs(seconds());
    let world = match std::env::var("STRATA_SOAK_LOWER").as_deref() {
        Ok("dirs") => World::Dirs,
        _ => World::Image,
    };
    let mut mount = Mount::new(world, &|lower| fill(lower, 2_000, ACTORS));
    let before = lower_of(&mount.session.path(""));
    let crowd = Crowd::new(&mount.path(), 2_000, ACTORS);
    let epochs = AtomicUsize::new(0);
    let work = |seed: u8, time: Duration| {
        let end = Instant::now() + time;
        let left = crowd.work(seed, &|| {
            epochs.fetch_add(1, Ordering::Relaxed);
            Instant::now() < end
        });
        left.iter().for_each(|expected| crowd.check(expected));
        left
    };
    drop(work(1, time / 10));
    let start = resident_after_dropping(mount.server());
    let left = work(2, time - time / 10);
    let peak = resident(mount.server());
    let end = resident_after_dropping(mount.server());
    eprintln!(
        "{world:?}: {} trees; resident after warming up {start}, at work {peak}, at the end {end}",
        epochs.load(Ordering::Relaxed)
    );
    assert!(end <= start + start / 10, "{start} bytes became {end}");
    mount.end();
    mount.start();
    left.iter().for_each(|expected| crowd.check(expected));
    assert_eq!(differences(&before, &lower_of(&mount.session.path(""))), Vec::<String>::new());
    mount.end();
}
