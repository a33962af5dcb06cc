//! The power is cut while commands work: what was written and not flushed is lost, in whole or in part.
//!
//! The store is on a file system on a disk that notes what comes to it. After each call that changes
//! something the journal is written, as another program's `fsync` would do at any time: so what the
//! file system has of names is new, and of what was not synced old. Then the disk is made as it was at
//! one moment after the other, mounted, and looked at.

use std::path::PathBuf;

use crate::common::deadline::private_mounts;
use crate::common::{Session, Who};
use crate::torture::calls::Kind;
use crate::torture::checked::{State, faults, state};
use crate::torture::cut::{Poke, Recording, Syncs, cut_at};
use crate::torture::disk::{Disk, Entry, Progress};
use crate::torture::sample::Sample;
use crate::torture::trace::{Act, Tracing};
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
struct Recorded {
    session: Session,
    format: Format,
    /// The disk as it was before.
    base: PathBuf,
    log: Vec<Entry>,
    /// What the store holds before the first command, and after each.
    undisturbed: Vec<Undisturbed>,
}

impl Recorded {
    /// Has the commands work; none where the machine has no such file system.
    fn new(format: Format, syncs: Syncs) -> Option<Self> {
        let session = Session::new(Who::Root);
        let base = session.path("base");
        format.make(&base);
        let volume = match Volume::mount(format, &base, &session.path("volume")) {
            Ok(volume) => volume,
            Err(error) => {
                eprintln!("this machine has no {}, which is left out: {error}", format.name());
                return None;
            }
        };
        // Some of it is there already.
        with_container(&Trial::at(&session, volume.at.join("store")));
        volume.unmount();

        let progress = Progress::default();
        let noted = progress.clone();
        let disk = Disk::new(&base, session.path("disk"), move || noted.get());
        let volume = Volume::mount(format, disk.path(), &session.path("volume")).unwrap();
        let store = Trial::at(&session, volume.at.join("store"));
        let tracing = Tracing::of(&volume.at);
        tracing.connections.lock().unwrap().push(disk.connection());
        let mut poke = Poke::new(format, &volume.at);
        let mut states = vec![Undisturbed::of(&store.root())];
        for (number, (arguments, _)) in COMMANDS.iter().enumerate() {
            let ended = tracing.run(&mut store.command(arguments), &mut |point| match (
                point.kind, syncs,
            ) {
                (Kind::Sync, Syncs::AreNot) => Act::Answer(0),
                _ => {
                    poke.write_journal();
                    Act::Go
                }
            });
            assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
            progress.set(number + 1);
            states.push(Undisturbed::of(&store.root()));
        }
        drop(poke);
        volume.unmount();
        let log = disk.into_log();
        Some(Self { session, format, base, log, undisturbed: states })
    }

    /// Cuts the power at some moments; see [`cut_at`].
    fn cut(&self, sample: Sample) -> (usize, Option<String>) {
        let at = self.session.path("cut");
        let trial = Trial::at(&self.session, at.join("store"));
        let recording = Recording { format: self.format, base: &self.base, log: &self.log, at };
        cut_at(&recording, &self.session, sample, &|done, what| self.check(&trial, done, what))
    }

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

/// Cuts the power while commands work on a file system.
fn cut(format: Format, every: usize) {
    private_mounts();
    let Some(recorded) = Recorded::new(format, Syncs::AreMade) else { return };
    let (cuts, wrong) = recorded.cut(Sample::each_or(every, 10));
    assert_eq!(wrong, None);
    assert!(cuts > 0, "the power was never cut");
    eprintln!("{}: cut at {cuts} of {} moments", format.name(), recorded.log.len());
}

#[test]
fn a_power_cut_on_ext4_leaves_all_or_nothing() {
    cut(Format::Ext4, 900);
}

#[test]
fn a_power_cut_on_xfs_leaves_all_or_nothing() {
    cut(Format::Xfs, 900);
}

#[test]
fn a_power_cut_on_btrfs_leaves_all_or_nothing() {
    cut(Format::Btrfs, 5000);
}

/// What the other tests stand on: they see it when something is not synced.
#[test]
fn without_syncing_a_power_cut_is_seen() {
    private_mounts();
    let recorded = Recorded::new(Format::Ext4, Syncs::AreNot).expect("a machine has ext4");
    let (cuts, wrong) = recorded.cut(Sample::each_or(40, 5));
    eprintln!("cut {cuts} times, then: {wrong:?}");
    assert!(wrong.is_some(), "nothing was lost in {cuts} cuts");
}
