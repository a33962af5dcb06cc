//! The power is cut while commands work: what was written and not flushed is lost, in whole or in part.
//!
//! The store is on a file system on a disk that notes what comes to it. After each call that changes
//! something the journal is written, as another program's `fsync` would do at any time: so what the
//! file system has of names is new, and of what was not synced old. Then the disk is made as it was at
//! one moment after the other, mounted, and looked at.

use std::path::PathBuf;

use crate::common::{Session, Who};
use crate::torture::checked::{State, faults, state};
use crate::torture::cut::{
    Poke, Recorded, Recording, Syncs, cut_at, cuts_take_nothing, missing_syncs_are_seen,
};
use crate::torture::disk::{Disk, Entry, Progress};
use crate::torture::sample::Sample;
use crate::torture::trace::Tracing;
use crate::torture::volume::{Format, Volume};
use crate::torture::walk::{Again, Trial, Undisturbed, Walk, never, with_container};

/// Commands that work on one store, one after the other.
const COMMANDS: &[(&[&str], Again)] = &[
    (&["import", "other", "imported:1"], Again::Succeeds),
    (&["commit", "box", "made:1"], Again::Succeeds),
    (&["tag", "base:1", "team/name:1"], Again::Succeeds),
    (&["create", "--name", "chest", "made:1"], Again::Refuses("\"/chest\" is already in use")),
    (&["snapshot", "box", "second"], Again::Refuses("has a snapshot second already")),
    (&["undo", "--no-keep", "box", "first"], Again::Succeeds),
    (&["squash", "made:1", "small:1"], Again::Succeeds),
    (&["rmi", "other:1"], Again::Refuses("No such image: other:1")),
    (&["rm", "chest"], Again::Refuses("No such container: chest")),
    (&["tag", "small:1", "made:1"], Again::Succeeds),
    (&["image", "prune", "-f"], Again::Succeeds),
    (&["load", "-q", "-i", "saved.tar"], Again::Succeeds),
    (&["rm", "box"], Again::Refuses("No such container: box")),
    (&["system", "prune", "-f", "-a"], Again::Succeeds),
];

/// What came to a disk while the commands worked.
struct Commands {
    session: Session,
    format: Format,
    /// The disk as it was before.
    base: PathBuf,
    log: Vec<Entry>,
    /// What the store holds before the first command, and after each.
    undisturbed: Vec<Undisturbed>,
}

impl Recorded for Commands {
    fn what(&self) -> String {
        self.format.name().to_owned()
    }

    fn new(format: Format, syncs: Syncs) -> Option<Self> {
        let session = Session::new(Who::Root);
        let base = session.path("base");
        let volume = Volume::new(format, &base, &session.path("volume"))?;
        // Some of it is there already.
        with_container(&Trial::at(&session, volume.at.join("store")));
        volume.unmount();

        let progress = Progress::default();
        let noted = progress.clone();
        let disk = Disk::new(&base, session.path("disk"), move || noted.get());
        let volume = Volume::mount(format, disk.path(), &session.path("volume")).unwrap();
        let store = Trial::at(&session, volume.at.join("store"));
        let tracing = Tracing::of(&volume.at);
        let mut poke = Poke::new(format, &volume.at, syncs);
        let mut states = vec![Undisturbed::of(&store.root())];
        for (number, (arguments, _)) in COMMANDS.iter().enumerate() {
            let ended = tracing.run(&mut store.command(arguments), &mut |point| poke.decide(point));
            assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
            progress.set(number + 1);
            states.push(Undisturbed::of(&store.root()));
        }
        drop(poke);
        volume.unmount();
        let log = disk.into_log();
        Some(Self { session, format, base, log, undisturbed: states })
    }

    fn moments(&self) -> usize {
        self.log.len()
    }

    fn cut(&self, sample: Sample) -> (usize, Option<String>) {
        let at = self.session.path("cut");
        let trial = Trial::at(&self.session, at.join("store"));
        let recording = Recording { format: self.format, base: &self.base, log: &self.log, at };
        cut_at(&recording, &self.session, sample, &|done, what| self.check(&trial, done, what))
    }
}

impl Commands {
    /// Checks a store after a power cut, when so many commands had ended, and that the next one does what
    /// it was about to do.
    fn check(&self, trial: &Trial<'_>, done: usize, what: &str) {
        let Some((arguments, again)) = COMMANDS.get(done) else {
            assert_eq!(faults(&trial.root()), Vec::<String>::new(), "{what}");
            return assert!(state(&trial.root()) == self.undisturbed[done].state, "{what}");
        };
        let between: &dyn Fn(&State) -> bool = match arguments[0] {
            // Containers and names go, and names are set, one after the other.
            "system" | "load" => &|_| true,
            _ => &never,
        };
        let walk = Walk { session: &self.session, arguments, again: *again, between };
        walk.check(trial, &self.undisturbed[done].state, &self.undisturbed[done + 1], what);
    }
}

#[test]
fn a_power_cut_on_ext4_leaves_all_or_nothing() {
    cuts_take_nothing::<Commands>(Format::Ext4, 900);
}

#[test]
fn a_power_cut_on_xfs_leaves_all_or_nothing() {
    cuts_take_nothing::<Commands>(Format::Xfs, 900);
}

#[test]
fn a_power_cut_on_btrfs_leaves_all_or_nothing() {
    cuts_take_nothing::<Commands>(Format::Btrfs, 5000);
}

/// What the other tests stand on: they see it when something is not synced.
#[test]
fn without_syncing_a_power_cut_is_seen() {
    missing_syncs_are_seen::<Commands>(Sample::each_or(40, 5));
}
