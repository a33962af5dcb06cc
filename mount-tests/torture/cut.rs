//! Cutting the power at one moment after the other of what came to a disk.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::common::deadline::private_mounts;
use crate::common::{Dice, Session};
use crate::torture::calls::Kind;
use crate::torture::disk::{Entry, Replay, Survives};
use crate::torture::sample::Sample;
use crate::torture::trace::{Act, Point};
use crate::torture::volume::{Format, Volume};

/// What is done about the calls that make things durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syncs {
    AreMade,
    /// The program believes that they are.
    AreNot,
}

/// Writes the journal of a file system, without the contents of files.
pub(crate) struct Poke {
    format: Format,
    file: File,
    syncs: Syncs,
}

impl Poke {
    pub(crate) fn new(format: Format, at: &Path, syncs: Syncs) -> Self {
        Self { format, file: File::create(at.join("poke")).unwrap(), syncs }
    }

    /// Says what is done at a call of who works on the file system, and writes the journal before.
    pub(crate) fn decide(&mut self, point: &Point) -> Act {
        match (point.kind, self.syncs) {
            (Kind::Sync, Syncs::AreNot) => Act::Answer(0),
            _ => {
                self.write_journal();
                Act::Go
            }
        }
    }

    #[allow(unsafe_code, reason = "nothing safe makes these calls")]
    fn write_journal(&mut self) {
        const START_SYNC: libc::c_ulong = 0x8008_9418;
        const WAIT_SYNC: libc::c_ulong = 0x4008_9416;
        if self.format != Format::Btrfs {
            // It writes all that has happened, in whatever file.
            self.file.write_all(b".").unwrap();
            return self.file.sync_all().unwrap();
        }
        // There it would write this file alone; this is what the file system does each half minute.
        let mut transaction = 0_u64;
        for call in [START_SYNC, WAIT_SYNC] {
            // SAFETY: both calls take a number of 64 bits, which they write or read.
            let done = unsafe { libc::ioctl(self.file.as_raw_fd(), call, &raw mut transaction) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        }
    }
}

/// What came to a disk.
pub(crate) struct Recording<'a> {
    pub(crate) format: Format,
    /// The disk as it was before.
    pub(crate) base: &'a Path,
    pub(crate) log: &'a [Entry],
    /// Where the disk is mounted after a power cut.
    pub(crate) at: PathBuf,
}

/// Work on a file system whose every write was noted.
pub(crate) trait Recorded: Sized {
    /// What is cut off, for a person.
    fn what(&self) -> String;

    /// Has the work done; none where the machine has no such file system.
    fn new(format: Format, syncs: Syncs) -> Option<Self>;

    /// Returns at how many moments the power can be cut.
    fn moments(&self) -> usize;

    /// Cuts the power at some moments; see [`cut_at`].
    fn cut(&self, sample: Sample) -> (usize, Option<String>);
}

/// Cuts the power while something works on a file system, and expects what is left to be right.
pub(crate) fn cuts_take_nothing<R: Recorded>(format: Format, every: usize) {
    private_mounts();
    let Some(recorded) = R::new(format, Syncs::AreMade) else { return };
    let (cuts, wrong) = recorded.cut(Sample::each_or(every, 10));
    assert_eq!(wrong, None);
    assert!(cuts > 0, "the power was never cut");
    eprintln!("{}: cut at {cuts} of {} moments", recorded.what(), recorded.moments());
}

/// Does the same without syncing, and expects that to be seen.
pub(crate) fn missing_syncs_are_seen<R: Recorded>(sample: Sample) {
    private_mounts();
    let recorded = R::new(Format::Ext4, Syncs::AreNot).expect("a machine has ext4");
    let (cuts, wrong) = recorded.cut(sample);
    eprintln!("cut {cuts} times, then: {wrong:?}");
    assert!(wrong.is_some(), "nothing was lost in {cuts} cuts");
}

/// Cuts the power at some moments. `check` is told how far the test was, and what happened; it panics if
/// something is wrong. Returns at how many moments the power was cut, and what was wrong at the last if
/// something was.
pub(crate) fn cut_at(
    recording: &Recording<'_>,
    session: &Session,
    sample: Sample,
    check: &dyn Fn(usize, &str),
) -> (usize, Option<String>) {
    let Recording { format, base, log, at } = recording;
    let mut replay = Replay::new(log, base, session.path("flushed"));
    let mut dice = Dice(sample.seed);
    let mut cuts = 0;
    for cut in (1..=log.len()).filter(|cut| sample.has(*cut)) {
        let survives = [Survives::Nothing, Survives::Some, Survives::All][cuts % 3];
        let image = session.path("after");
        replay.cut(cut, survives, &mut dice, &image);
        let progress = log[cut - 1].progress;
        let what = format!(
            "{}, power cut at {cut} of {}, progress {progress}, {survives:?} survives",
            format.name(),
            log.len()
        );
        cuts += 1;
        let volume = match Volume::mount(*format, &image, at) {
            Ok(volume) => volume,
            Err(error) => return (cuts, Some(format!("{what}: the file system itself: {error}"))),
        };
        let checked = catch_unwind(AssertUnwindSafe(|| check(progress, &what)));
        volume.unmount();
        if let Err(panic) = checked {
            let text = panic.downcast_ref::<String>().cloned();
            return (cuts, Some(text.unwrap_or_else(|| format!("{what}: it panicked"))));
        }
    }
    (cuts, None)
}
