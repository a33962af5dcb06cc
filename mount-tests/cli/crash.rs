//! The server is killed while programs work in its mount.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Session, Who, differences, mounts_below, script, spawn, tree_of};

/// How many files each of the workers has.
const FILES: usize = 400;

/// How many changes of each kind were acknowledged: those of the files with lower numbers.
#[derive(Debug, Default)]
struct Done {
    written: AtomicUsize,
    removed: AtomicUsize,
    moved: AtomicUsize,
}

impl Done {
    fn sum(&self) -> usize {
        [&self.written, &self.removed, &self.moved]
            .map(|one| one.load(Ordering::Acquire))
            .iter()
            .sum()
    }
}

fn old(number: usize) -> String {
    format!("of the lower {number:04}\n")
}

fn new(number: usize) -> String {
    format!("of the upper {number:04}\n")
}

fn fill(dir: &Path) {
    for kind in ["write", "remove", "move", "chmod"] {
        fs::create_dir(dir.join(kind)).unwrap();
        for number in 0..FILES {
            fs::write(dir.join(kind).join(number.to_string()), old(number)).unwrap();
        }
    }
    fs::create_dir(dir.join("moved")).unwrap();
}

/// Changes one file after the other until there is no server any more. What is synced is counted.
fn work(mount: &Path, count: &AtomicUsize, change: impl Fn(usize) -> io::Result<()>) {
    for number in 0..FILES {
        match change(number) {
            Ok(()) => drop(count.fetch_add(1, Ordering::Release)),
            Err(error) => {
                // ECANCELED is what the kernel says for a request in the hands of io_uring.
                let gone = [libc::ENOTCONN, libc::ECONNABORTED, libc::ECANCELED, libc::EIO];
                assert!(
                    gone.contains(&error.raw_os_error().unwrap_or(0)),
                    "{}: {error}",
                    mount.display()
                );
                return;
            }
        }
    }
}

fn write(mount: &Path, number: usize) -> io::Result<()> {
    let file = File::options().write(true).open(mount.join("write").join(number.to_string()))?;
    file.write_all_at(new(number).as_bytes(), 0)?;
    file.sync_all()
}

fn remove(mount: &Path, number: usize) -> io::Result<()> {
    fs::remove_file(mount.join("remove").join(number.to_string()))?;
    File::open(mount.join("remove"))?.sync_all()
}

fn rename(mount: &Path, number: usize) -> io::Result<()> {
    let number = number.to_string();
    fs::rename(mount.join("move").join(&number), mount.join("moved").join(&number))?;
    File::open(mount.join("moved"))?.sync_all()
}

/// Lets all work at once, and kills the server when so many changes were acknowledged.
fn kill_at_work(mount: &Path, mut server: Child, changes: usize) -> Done {
    let done = Done::default();
    std::thread::scope(|scope| {
        scope.spawn(|| work(mount, &done.written, |number| write(mount, number)));
        scope.spawn(|| work(mount, &done.removed, |number| remove(mount, number)));
        scope.spawn(|| work(mount, &done.moved, |number| rename(mount, number)));
        scope.spawn(|| {
            let nobody_counts = AtomicUsize::new(0);
            work(mount, &nobody_counts, |number| {
                let path = mount.join("chmod").join(number.to_string());
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            });
        });
        while done.sum() < changes {
            std::thread::yield_now();
        }
        server.kill().unwrap();
        server.wait().unwrap();
    });
    done
}

/// What was acknowledged is there; what was not is as it was before, or as it should have become.
fn check(mount: &Path, done: &Done) {
    let text = |name: &str, number: usize| {
        fs::read_to_string(mount.join(name).join(number.to_string())).ok()
    };
    let acknowledged = |count: &AtomicUsize, number: usize| number < count.load(Ordering::Acquire);
    for number in 0..FILES {
        let written = text("write", number).unwrap();
        assert!(written == new(number) || written == old(number), "{number}: {written:?}");
        assert!(written == new(number) || !acknowledged(&done.written, number), "{number} is old");
        let removed = text("remove", number);
        assert!(removed.is_none() || !acknowledged(&done.removed, number), "{number} is back");
        assert!(removed.is_none_or(|text| text == old(number)), "{number}");
        let places = (text("move", number), text("moved", number));
        match &places {
            (Some(text), None) => {
                assert!(!acknowledged(&done.moved, number), "{number} is back");
                assert_eq!(*text, old(number));
            }
            (None, Some(text)) => assert_eq!(*text, old(number)),
            _ => panic!("{number}: {places:?}"),
        }
        assert_eq!(text("chmod", number).unwrap(), old(number));
    }
}

fn wait_for_mount(session: &Session, server: &mut Child) {
    while mounts_below(&session.path("")).is_empty() {
        assert!(server.try_wait().unwrap().is_none(), "the server has ended");
        std::thread::yield_now();
    }
}

#[test]
fn a_killed_server_loses_nothing_of_a_container() {
    let session = Session::new(Who::Root);
    fill(&session.dir("image"));
    session.run(&["import", "image", "base:1"]);
    let mount = session.dir("mount");
    for (round, changes) in [1, 37, 200, 500, 900].into_iter().enumerate() {
        let name = format!("box-{round}");
        session.run(&["create", "--name", &name, "base:1"]);
        let mut server = spawn(&mut session.command(&["mount", "--foreground", &name, "mount"]));
        wait_for_mount(&session, &mut server);
        let done = kill_at_work(&mount, server, changes);
        session.run(&["umount", "mount"]);
        session.run(&["mount", &name, "mount"]);
        check(&mount, &done);
        let shown = tree_of(&mount);
        session.unmount("mount");
        session.run(&["mount", &name, "mount"]);
        assert_eq!(differences(&shown, &tree_of(&mount)), Vec::<String>::new());
        session.unmount("mount");
    }
}

#[test]
fn a_killed_server_loses_nothing_of_plain_directories() {
    for changes in [1, 37, 200, 500, 900] {
        let session = Session::new(Who::Root);
        let [low, upper, work] = ["low", "upper", "work"].map(|name| session.dir(name));
        fill(&low);
        let before = tree_of(&low);
        let mount = session.dir("mount");
        let (low_path, upper, work_path) = (low.display(), upper.display(), work.display());
        let options =
            format!("lowerdir={low_path},upperdir={upper},workdir={work_path},metacopy=on");
        let mut server = spawn(&mut session.command(&["overlay", "-f", "-o", &options, "mount"]));
        wait_for_mount(&session, &mut server);
        let done = kill_at_work(&mount, server, changes);
        session.run(&["umount", "--lazy", "mount"]);
        session.run(&["overlay", "-o", &options, "mount"]);
        check(&mount, &done);
        assert_eq!(differences(&before, &tree_of(&low)), Vec::<String>::new());
        let left: Vec<_> = fs::read_dir(work.join("work")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn an_upper_that_was_volatile_when_its_server_died_is_refused() {
    let session = Session::new(Who::User);
    for name in ["low", "upper", "work"] {
        session.dir(name);
    }
    let mount = session.dir("mount");
    let options = "lowerdir=low,upperdir=upper,workdir=work,volatile";
    let mark = session.path("work/work/incompat/volatile");
    session.run(&["overlay", "-o", options, "mount"]);
    assert!(mark.is_dir());
    session.detach(&mount);
    // The server ends after the mount has.
    while mark.exists() {
        std::thread::yield_now();
    }
    let mut server = spawn(&mut session.command(&["overlay", "-f", "-o", options, "mount"]));
    wait_for_mount(&session, &mut server);
    session.who.act(|| fs::write(mount.join("file"), "").unwrap());
    server.kill().unwrap();
    server.wait().unwrap();
    session.run(&["umount", "--lazy", "mount"]);
    let said = session.refused(&["overlay", "-o", options, "mount"]);
    assert!(said.contains("work/incompat/volatile"), "{said}");
    fs::remove_dir(&mark).unwrap();
    session.run(&["overlay", "-o", options, "mount"]);
}

#[test]
fn regression_a_crash_between_a_copy_and_its_name_leaves_the_count_of_names() {
    let session = Session::new(Who::Root);
    let [lower, upper, work, mount] =
        ["lower", "upper", "work", "mount"].map(|name| session.dir(name));
    script("echo one > a && ln a b && ln a c", &lower);
    let options = "lowerdir=lower,upperdir=upper,workdir=work";
    let begin = || drop(session.run(&["overlay", "-o", options, "mount"]));
    begin();
    fs::write(mount.join("a"), "two\n").unwrap();
    session.unmount("mount");
    // As it was when the copy was in the index and had no name yet.
    fs::remove_file(upper.join("a")).unwrap();
    let index = fs::read_dir(work.join("strata-index")).unwrap().next().expect("the copy");
    xattr::set(index.unwrap().path(), "trusted.overlay.strata.links", b"=3").unwrap();
    for names in [&["a", "b", "c"][..], &["a", "b", "c", "d"]] {
        begin();
        for name in names {
            let path = mount.join(name);
            assert_eq!(fs::read_to_string(&path).unwrap(), "two\n", "{name}");
            assert_eq!(fs::metadata(&path).unwrap().nlink(), names.len() as u64, "{name}");
        }
        if names.len() == 3 {
            // A link that it gets counts.
            fs::hard_link(mount.join("b"), mount.join("d")).unwrap();
        }
        session.unmount("mount");
    }
}
