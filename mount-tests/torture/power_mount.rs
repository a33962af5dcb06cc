//! The power is cut while a program works in a mount: what it has synced is there afterwards, and what it
//! has not is as before or as after.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::common::{Session, Tree, Who};
use crate::torture::cut::{
    Poke, Recorded, Recording, Syncs, cut_at, cuts_take_nothing, missing_syncs_are_seen,
};
use crate::torture::disk::{Disk, Entry};
use crate::torture::sample::Sample;
use crate::torture::scene::{Scene, World};
use crate::torture::volume::{Format, Volume};
use crate::torture::work::{How, SYNCED, steps};

/// What came to a disk while a program worked in a mount of a container.
struct MountWork {
    scene: Scene,
    format: Format,
    base: PathBuf,
    log: Vec<Entry>,
    /// What mounts the container.
    words: Vec<String>,
    /// What is seen before the work and after each step of it.
    states: Vec<Tree>,
}

const NAME: &str = "box";

impl Recorded for MountWork {
    fn what(&self) -> String {
        format!("a mount on {}", self.format.name())
    }

    fn new(format: Format, syncs: Syncs) -> Option<Self> {
        let session = Session::new(Who::Root);
        let (base, store) = (session.path("base"), session.path("store"));
        let volume = Volume::new(format, &base, &store)?;
        // A store begins in a directory that is empty.
        if format == Format::Ext4 {
            fs::remove_dir(store.join("lost+found")).unwrap();
        }
        let scene = Scene::new(session, World::Container);
        let states = scene.states();
        let words = scene.begin(NAME);
        volume.unmount();

        let done = scene.session.path("done");
        fs::write(&done, "").unwrap();
        let progress = move || fs::read(&done).map_or(0, |done| done.len());
        let disk = Disk::new(&base, scene.session.path("disk"), progress);
        let volume = Volume::mount(format, disk.path(), &store).unwrap();
        let mut poke = Poke::new(format, &store, syncs);
        let (ended, worked) =
            scene.run(NAME, &words, How::Syncing, &mut |point| poke.decide(point));
        let all = steps(Who::Root).len();
        assert_eq!((ended.code, worked.done), (Some(0), all), "{}", ended.stderr);
        drop(poke);
        volume.unmount();
        let log = disk.into_log();
        Some(Self { scene, format, base, log, words, states })
    }

    fn moments(&self) -> usize {
        self.log.len()
    }

    fn cut(&self, sample: Sample) -> (usize, Option<String>) {
        let session = &self.scene.session;
        let at = session.path("store");
        let recording = Recording { format: self.format, base: &self.base, log: &self.log, at };
        cut_at(&recording, session, sample, &|done, what| self.check(done, what))
    }
}

impl MountWork {
    /// Checks a container after a power cut, when so many steps were done.
    fn check(&self, done: usize, what: &str) {
        let scene = &self.scene;
        scene.mount(&self.words);
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scene.seen()));
        scene.unmount(false);
        let found = found.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let synced = done / SYNCED * SYNCED;
        let may_be = &self.states[synced..self.states.len().min(done + 2)];
        let paths: BTreeSet<_> = may_be.iter().flat_map(Tree::keys).chain(found.keys()).collect();
        for path in paths {
            let now = found.get(path).map(String::as_str);
            let fits = |state: &Tree| is_like(state.get(path).map(String::as_str), now);
            assert!(
                may_be.iter().any(fits),
                "{what}: {path} is {now:?}, which it was in no state since {synced}: {:?}",
                may_be.iter().map(|state| state.get(path)).collect::<Vec<_>>()
            );
        }
        let work = scene.watched(NAME).join("work/work");
        let left: Vec<_> = fs::read_dir(work).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "{what}: the work directory");
    }
}

/// Tells whether a file is seen as it should be, but for its time and how many names it has, which go
/// with changes of others.
fn is_like(expected: Option<&str>, found: Option<&str>) -> bool {
    let without = |line: &str| {
        let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        words[2].clear();
        let links = words.iter().position(|word| word == "links").expect("it is told");
        words[links + 1].clear();
        let with = words.iter().position(|word| word == "with").unwrap_or(words.len());
        words.truncate(with);
        words
    };
    expected.map(without) == found.map(without)
}

#[test]
fn a_power_cut_below_a_mount_on_ext4_takes_nothing_that_was_synced() {
    cuts_take_nothing::<MountWork>(Format::Ext4, 1000);
}

#[test]
fn a_power_cut_below_a_mount_on_xfs_takes_nothing_that_was_synced() {
    cuts_take_nothing::<MountWork>(Format::Xfs, 1000);
}

#[test]
fn a_power_cut_below_a_mount_on_btrfs_takes_nothing_that_was_synced() {
    cuts_take_nothing::<MountWork>(Format::Btrfs, 4000);
}

/// What the other tests stand on: they see it when something is not synced.
#[test]
fn without_syncing_a_power_cut_below_a_mount_is_seen() {
    missing_syncs_are_seen::<MountWork>(Sample::each_or(60, 10));
}
