//! What the program says that the disk would give back, and has given back, held against what the disk
//! says itself.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statvfs::statvfs;
use strata::image::Reference;
use strata::service::{Pruned, Quiet, RegistryOptions, Strata, Usage};

use crate::common::deadline::private_mounts;
use crate::common::{Session, Who, script};
use crate::torture::sample::is_long;
use crate::torture::volume::{Format, Volume};
use crate::torture::walk::Trial;

/// What inodes are kept in, where they are made and removed in groups, and how many are in one.
const GROUP_BYTES: u64 = 32 << 10;
const GROUP: u64 = 64;
/// What trees may lose or gain, where a file system keeps its room in such.
const TREES_BYTES: u64 = 64 << 10;

/// A store on a file system of its own.
struct Disk {
    format: Format,
    session: Session,
    volume: Option<Volume>,
}

/// What is said of the store and its disk at a moment.
struct Moment {
    usage: Usage,
    /// Bytes of the disk that are taken.
    taken: u64,
    /// Bytes of directories that stay, whatever was in them.
    dirs: u64,
    files: u64,
}

impl Disk {
    /// Makes a file system with an empty store; none where the machine has no such file system.
    fn new(format: Format) -> Option<Self> {
        private_mounts();
        let session = Session::new(Who::Root);
        let volume = Volume::new(format, &session.path("disk"), &session.path("volume"))?;
        Some(Self { format, session, volume: Some(volume) })
    }

    fn root(&self) -> PathBuf {
        self.session.path("volume/store")
    }

    fn run(&self, arguments: &[&str]) {
        Trial::at(&self.session, self.root()).run(arguments);
    }

    fn strata(&self) -> Strata {
        Strata::open(&self.root(), RegistryOptions::default(), Arc::new(Quiet)).unwrap()
    }

    /// Works in a container.
    fn work(&self, container: &str, text: &str) {
        let mount = self.session.dir("mount");
        self.run(&["mount", container, "mount"]);
        script(text, &mount);
        self.run(&["umount", "mount"]);
    }

    /// Looks at the disk when all is written, and nothing is held back for files that are open.
    fn moment(&mut self) -> Moment {
        self.volume.take().expect("it is mounted").unmount();
        let (file, at) = (self.session.path("disk"), self.session.path("volume"));
        self.volume = Some(Volume::mount(self.format, &file, &at).unwrap());
        let disk = statvfs(&at).unwrap();
        let taken = (disk.blocks() - disk.blocks_free()) * disk.fragment_size();
        let (mut dirs, mut files) = (0, 0);
        let root = self.root();
        count(&root, &root, &mut dirs, &mut files);
        Moment { usage: self.strata().usage().unwrap(), taken, dirs, files }
    }

    /// Holds what the disk has given back between two moments against what was said.
    #[track_caller]
    fn hold(&self, what: &str, said: u64, before: &Moment, after: &Moment) {
        // What directories that stay have grown by meanwhile.
        let said = said + before.dirs;
        let gave = (before.taken + after.dirs).checked_sub(after.taken).expect("it gave some back");
        let bound = match self.format {
            Format::Ext4 => 0,
            _ => (before.files.abs_diff(after.files) / GROUP + 2) * GROUP_BYTES + TREES_BYTES,
        };
        let name = self.format.name();
        eprintln!("{name}: {what}: said {} gave {}", said - before.dirs, gave - before.dirs);
        assert!(gave.abs_diff(said) <= bound, "{name}: {what}: said {said}, gave {gave}");
    }
}

/// Adds up what directories of a store take that stay, and how many files there are.
fn count(root: &Path, at: &Path, dirs: &mut u64, files: &mut u64) {
    let below = at.strip_prefix(root).unwrap();
    let depth = below.components().count();
    let stays = match below.components().next() {
        None => true,
        Some(first)
            if ["containers", "staging", "trash"].iter().any(|dir| first.as_os_str() == *dir) =>
        {
            depth == 1
        }
        Some(first) if first.as_os_str() == "refs" => depth == 1 || below.ends_with("_untagged"),
        Some(_) => true,
    };
    *dirs += if stays { fs::metadata(at).unwrap().blocks() * 512 } else { 0 };
    for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
        *files += 1;
        if entry.file_type().unwrap().is_dir() {
            count(root, &entry.path(), dirs, files);
        }
    }
}

/// Makes images, two of which share most of what they have, and one has names in two places.
fn with_images(disk: &Disk) {
    script(
        "mkdir -p base more only
         for n in $(seq 60); do seq $n 2000 > base/many-$n; echo $n > base/small-$n; done
         head -c 3000000 /dev/urandom > base/large && ln -f base/large base/other-name
         truncate -s 2M base/hole && echo end >> base/hole
         cp -a base/. more && seq 90000 > more/more && seq 100000 > only/only",
        &disk.session.path(""),
    );
    for (folder, name) in [("base", "base:1"), ("more", "more:1"), ("only", "far/away/only:1")] {
        disk.run(&["import", folder, name]);
    }
    disk.run(&["tag", "more:1", "more:2"]);
}

/// Makes containers with all that takes room: files of their own, copied ones, with several names, with
/// holes; directories, links, attributes; snapshots that share files. An ext4 keeps equal attributes once
/// where they need a block of their own, which nobody can know: these are short.
fn with_containers(disk: &Disk) {
    for name in ["box", "chest"] {
        disk.run(&["create", "--name", name, "base:1"]);
        disk.work(
            name,
            "echo more >> large && head -c 700000 /dev/urandom > own && ln own again && ln own third
             truncate -s 3M hollow && echo x >> hollow && ln -s $(printf 'x%.0s' {1..200}) link
             for n in $(seq 30); do mkdir -p deep/$n && seq $n 3000 > deep/$n/file; done
             rm many-1 small-2 && chmod 600 many-3 && mkfifo pipe && cp many-4 copy
             setfattr -n user.note -v short own",
        );
        disk.run(&["snapshot", name, "first"]);
        disk.work(name, "seq 40000 > own && rm deep/7/file again && echo z >> deep/8/file");
        disk.run(&["snapshot", name, "second"]);
    }
}

/// Leaves what killed commands leave: what they were making, and what they were removing.
fn with_leftovers(disk: &Disk) {
    script(
        "mkdir -p staging/0123456789abcdef/objects trash/container-x/upper
         seq 50000 > staging/0123456789abcdef/objects/one && seq 3000 > trash/container-x/upper/two
         seq 70000 > trash/object-$(printf '0%.0s' {1..64})",
        &disk.root(),
    );
}

/// Returns what would come back of images and of containers.
fn reclaimable(moment: &Moment) -> (u64, u64) {
    (moment.usage.images.reclaimable, moment.usage.containers.reclaimable)
}

fn room_on(format: Format) {
    let Some(mut disk) = Disk::new(format) else { return };
    with_images(&disk);
    with_containers(&disk);
    let all = Vec::new();
    let prune = |disk: &Disk, what: &str| -> Pruned {
        match what {
            "image prune -a" => disk.strata().prune_images(true, &all),
            "container prune" => disk.strata().prune_containers(&all),
            _ => disk.strata().prune_system(true, &all),
        }
        .unwrap()
    };

    // One image, by the room that it has alone.
    let mut now = disk.moment();
    let is_it = |name: &Reference| name.to_string().ends_with("far/away/only:1");
    let mut rows = now.usage.image_rows.iter();
    let found = rows.find(|(row, _)| row.reference.as_ref().is_some_and(is_it));
    let unique = found.expect("it is there").1.unique_bytes;
    disk.run(&["rmi", "far/away/only:1"]);
    let mut then = disk.moment();
    disk.hold("rmi", unique, &now, &then);
    assert_eq!(reclaimable(&now).0 - reclaimable(&then).0, unique);

    // One container: by what less would come back of all.
    now = then;
    disk.run(&["rm", "chest"]);
    then = disk.moment();
    disk.hold("rm", reclaimable(&now).1 - reclaimable(&then).1, &now, &then);

    // A snapshot, in the same way.
    now = then;
    disk.run(&["container", "snapshot", "rm", "box", "first"]);
    then = disk.moment();
    disk.hold("snapshot rm", reclaimable(&now).1 - reclaimable(&then).1, &now, &then);

    // What is pinned is not said to come back, and does not.
    for (what, said) in [
        ("container prune", (|moment| reclaimable(moment).1) as fn(&Moment) -> u64),
        ("image prune -a", |moment| reclaimable(moment).0),
    ] {
        if what == "image prune -a" {
            with_leftovers(&disk);
            disk.run(&["pin", "base:1"]);
        }
        now = disk.moment();
        assert!(said(&now) > 0, "{what}");
        assert_eq!(prune(&disk, what).bytes, said(&now), "{what}");
        then = disk.moment();
        disk.hold(what, said(&now), &now, &then);
        assert_eq!(said(&then), 0, "{what}");
    }
    assert_eq!(then.usage.images.total, 1, "the pinned one is there");
    disk.run(&["unpin", "base:1"]);

    // All of it: what containers have kept from going goes with them.
    for _ in 0..if is_long() { 20 } else { 1 } {
        with_images(&disk);
        with_containers(&disk);
        with_leftovers(&disk);
        now = disk.moment();
        let pruned = prune(&disk, "system prune -a");
        then = disk.moment();
        disk.hold("system prune -a", pruned.bytes, &now, &then);
        assert_eq!(pruned.bytes, now.usage.images.bytes + reclaimable(&now).1, "it is all");
        let left = [&then.usage.images, &then.usage.containers].map(|room| room.bytes);
        assert_eq!(left, [0, 0]);
    }
    disk.volume.take().expect("it is mounted").unmount();
}

#[test]
fn what_is_said_to_come_back_is_what_an_ext4_gives_back() {
    room_on(Format::Ext4);
}

#[test]
fn what_is_said_to_come_back_is_what_an_xfs_gives_back_that_shares_blocks() {
    room_on(Format::Xfs);
}
