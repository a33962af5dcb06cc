//! A disk without room: what was to be written is told, nothing is half there, and what removes things
//! works with not one byte free.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::common::deadline::{in_time, private_mounts};
use crate::common::{Session, Who, script};
use crate::torture::checked::{faults, state};
use crate::torture::sample::is_long;
use crate::torture::volume::{Format, Volume};
use crate::torture::walk::{Again, Trial, Undisturbed, Walk, fill, never, with_container};

/// A store on a small file system.
struct Small {
    session: Session,
    volume: Volume,
}

impl Small {
    /// Makes a file system and puts a store on it; none where the machine has no such file system.
    fn new(format: Format) -> Option<Self> {
        private_mounts();
        let session = Session::new(Who::Root);
        let disk = session.path("disk");
        let volume = Volume::new(format, &disk, &session.path("volume"))?;
        Some(Self { session, volume })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.session.path("volume").join(name)
    }

    fn store(&self) -> Trial<'_> {
        Trial::at(&self.session, self.at("store"))
    }

    /// Fills the disk, but for so many bytes.
    fn fill(&self, free: u64) {
        let path = self.at("filler");
        let mut filler = File::options().create(true).append(true).open(&path).unwrap();
        for size in [1 << 20, 4096] {
            while filler.write_all(&vec![7; size]).is_ok() {}
        }
        // What is written late must not come back as room.
        if let Err(error) = filler.sync_all() {
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
        }
        let len = filler.metadata().unwrap().len();
        filler.set_len(len.saturating_sub(free)).unwrap();
        filler.sync_all().unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.at("filler")).unwrap();
    }

    fn unmount(self) {
        self.volume.unmount();
    }
}

/// Makes an image of so many files that are objects, and nothing else.
fn with_many_files(trial: &Trial<'_>, folder: &Path) {
    script("mkdir many && for n in $(seq 300); do seq $n 2000 > many/$n; done", folder);
    trial.run(&["import", "many", "many:1"]);
}

/// Runs a command on a disk that has no byte free.
fn run_on_full(small: &Small, arguments: &[&str]) {
    small.fill(0);
    let output = small.store().try_run(arguments);
    assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
    assert_eq!(faults(&small.at("store")), Vec::<String>::new(), "{arguments:?}");
}

fn remove_on_full(format: Format) {
    let Some(small) = Small::new(format) else { return };
    let trial = small.store();
    with_container(&trial);
    with_many_files(&trial, &small.session.path(""));
    trial.run(&["create", "--name", "chest", "other:1"]);
    trial.run(&["mount", "box", "mount"]);
    let image = small.session.dir("image-mount");
    trial.run(&["mount", "base:1", "image-mount"]);
    small.fill(0);
    assert!(in_time("a look at the mount", &image, || image.join("etc/hostname").exists()));
    for arguments in [
        &["umount", "mount"][..],
        &["umount", "image-mount"],
        &["container", "snapshot", "rm", "box", "first"],
        &["rmi", "-f", "other:1"],
        &["rm", "box"],
        &["rmi", "many:1"],
        &["container", "prune", "-f"],
        &["image", "prune", "-f"],
        &["system", "prune", "-f", "-a"],
    ] {
        run_on_full(&small, arguments);
    }
    assert!(state(&small.at("store")).is_empty());
    small.empty();
    // The store is as good as new.
    trial.run(&["import", "many", "many:1"]);
    small.unmount();
}

#[test]
fn what_removes_things_works_on_a_full_ext4() {
    remove_on_full(Format::Ext4);
}

#[test]
fn what_removes_things_works_on_a_full_xfs() {
    remove_on_full(Format::Xfs);
}

#[test]
fn what_removes_things_works_on_a_full_btrfs() {
    remove_on_full(Format::Btrfs);
}

/// Room that is left on the disk, in bytes.
const LEFT: [u64; 5] = [0, 64 << 10, 1 << 20, 3 << 20, 6 << 20];

#[test]
fn a_command_that_needs_more_room_than_there_is_says_so_and_leaves_nothing() {
    let Some(small) = Small::new(Format::Ext4) else { panic!("every machine has ext4") };
    let trial = small.store();
    with_container(&trial);
    fill(&small.session.path(""), "third");
    script("tar -cf third.tar third", &small.session.path(""));
    trial.run(&["rmi", "other:1"]);
    let taken = Again::Refuses("is already in use");
    for (arguments, again, undo) in [
        (&["import", "third.tar", "third:1"][..], Again::Succeeds, &["rmi", "third:1"][..]),
        (&["load", "-q", "-i", "saved.tar"], Again::Succeeds, &["rmi", "other:1"]),
        (&["commit", "box", "made:1"], Again::Succeeds, &["rmi", "made:1"]),
        (&["create", "--name", "chest", "base:1"], taken, &["rm", "chest"]),
        (
            &["snapshot", "box", "second"],
            Again::Refuses("has a snapshot second already"),
            &["container", "snapshot", "rm", "box", "second"],
        ),
    ] {
        let before = state(&trial.root());
        trial.run(arguments);
        let after = Undisturbed::of(&trial.root());
        trial.run(undo);
        let mut refused = 0;
        for left in LEFT.into_iter().step_by(if is_long() { 1 } else { 2 }) {
            small.fill(left);
            let output = trial.try_run(arguments);
            let what = format!("{arguments:?} with {left} bytes free: {}", output.stderr);
            if output.code != 0 {
                refused += 1;
                assert!(output.stderr.starts_with("Error: "), "{what}");
                // The disk has said so, or the program has seen it before.
                let said = ["no space left on device", "no room: "];
                assert!(said.iter().any(|said| output.stderr.contains(said)), "{what}");
                assert!(output.stderr.contains("are free where the store is"), "{what}");
                let is_sized = ["import", "load"].contains(&arguments[0]);
                assert_eq!(output.stderr.contains(" are to be written"), is_sized, "{what}");
                assert!(output.stderr.contains("'strata container prune' would give"), "{what}");
            }
            small.empty();
            let session = &small.session;
            let walk = Walk { session, arguments, again, between: &never };
            walk.check(&trial, &before, &after, &what);
            trial.run(undo);
        }
        assert!(refused > 0, "{arguments:?} was never short of room");
    }
    small.unmount();
}

#[test]
fn a_mount_on_a_full_disk_goes_on_when_there_is_room_again() {
    let Some(small) = Small::new(Format::Ext4) else { panic!("every machine has ext4") };
    let trial = small.store();
    with_container(&trial);
    trial.run(&["mount", "box", "mount"]);
    let mount = small.session.path("mount");
    in_time("the work in the mount", &mount, || work_on_full(&small, &mount));
    trial.run(&["umount", "mount"]);
    small.unmount();
}

/// Works in a mount while its disk is full and when it is not any more.
fn work_on_full(small: &Small, mount: &Path) {
    let trial = small.store();
    let kept = "kept\n".repeat(2000);
    let write = |name: &str, content: &str| -> std::io::Result<()> {
        let file =
            File::options().create(true).write(true).truncate(true).open(mount.join(name))?;
        file.write_all_at(content.as_bytes(), 0)?;
        file.sync_all()
    };
    write("before", &kept).unwrap();
    small.fill(0);
    let large = "x".repeat(1 << 20);
    let no_room = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    };
    no_room(write("large", &large));
    no_room(write("bin2/tool-2", &large));
    assert_eq!(fs::read_to_string(mount.join("before")).unwrap(), kept);
    let image = fs::read_to_string(small.session.path("image/bin/tool-3")).unwrap();
    assert_eq!(fs::read_to_string(mount.join("bin2/tool-3")).unwrap(), image);
    // What makes room works.
    fs::remove_file(mount.join("large")).unwrap();
    small.empty();
    write("large", &large).unwrap();
    write("bin2/tool-2", &large).unwrap();
    fs::rename(mount.join("large"), mount.join("etc/renamed")).unwrap();
    trial.run(&["umount", "mount"]);
    trial.run(&["mount", "box", "mount"]);
    for (name, content) in [("before", &kept), ("etc/renamed", &large), ("bin2/tool-2", &large)] {
        assert!(fs::read_to_string(mount.join(name)).unwrap() == *content, "{name}");
    }
}
