//! What is done in a mount, and what of it is measured.
//!
//! A workload is a function that mounts what it needs, takes the time of what it is about and of nothing
//! else, holds what it has found or done against what it must be, and unmounts. What it reads "first" is
//! in memory, in the form in which the driver has it, but was not yet asked for in this mount; "again"
//! is the same once more; "cold" is with the kernel's caches emptied before.

mod change;
mod containers;
mod copy_up;
mod create;
mod large;
mod mounts;
mod names;
mod programs;
mod read;
mod remove;

use std::path::Path;
use std::time::Instant;

use crate::bench::run::Sample;
use crate::bench::{Driver, Error, FixtureKind, Group, Result, Unit};

pub use mounts::{LAYER_COUNTS, LAYER_MARKS};

/// The value of each figure of a workload, or why there is none.
pub(crate) type Values = Vec<std::result::Result<f64, String>>;

/// Something that is measured.
#[derive(Debug)]
pub struct Workload {
    /// Its name.
    pub id: &'static str,
    /// What it belongs to.
    pub group: Group,
    /// What it is about.
    pub title: &'static str,
    /// What is done.
    pub what: &'static str,
    /// What is measured of it.
    pub figures: &'static [Figure],
    /// The layers that it needs.
    pub fixture: FixtureKind,
    pub(crate) kind: WorkloadKind,
    pub(crate) run: fn(&Sample<'_>) -> Result<Values>,
}

/// One of the things that are measured of a workload.
#[derive(Debug)]
pub struct Figure {
    /// Its name: the workload's, or that and a word.
    pub id: &'static str,
    /// What it is.
    pub title: &'static str,
    /// What the values are.
    pub unit: Unit,
}

/// What a workload is about, and with which drivers that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkloadKind {
    /// Files: with every driver.
    Files,
    /// Mounts: with what mounts.
    Mounts,
    /// Servers: with what has one.
    Servers,
}

/// All of them, in the order in which they are told.
static WORKLOADS: [&Workload; 24] = [
    &read::WALK_COLD,
    &read::WALK,
    &names::NEGATIVE,
    &names::READDIR,
    &read::SMALL,
    &large::COLD,
    &large::SEQUENTIAL,
    &large::RANDOM,
    &large::MAPPED,
    &create::CREATE,
    &change::OVERWRITE,
    &change::APPEND,
    &change::RENAME,
    &remove::UNLINK,
    &remove::MKDIR,
    &change::CHMOD,
    &copy_up::FIRST_WRITE,
    &copy_up::LOOKUPS,
    &programs::UNTAR,
    &programs::GIT,
    &programs::COMPILE,
    &containers::CONTAINERS,
    &mounts::MOUNT,
    &mounts::MEMORY,
];

/// Returns all workloads.
pub fn workloads() -> &'static [&'static Workload] {
    &WORKLOADS
}

/// Returns the workload of a name.
pub fn workload(name: &str) -> Result<&'static Workload> {
    let found = WORKLOADS.iter().find(|workload| workload.id == name);
    found.copied().ok_or_else(|| Error::NoWorkload { name: name.to_owned() })
}

impl Workload {
    /// Returns why it makes no sense with a driver, if so.
    pub(crate) fn why_not(&self, driver: &Driver) -> Option<String> {
        let reason = match self.kind {
            WorkloadKind::Files => return None,
            _ if driver.is_native() => "nothing is mounted",
            WorkloadKind::Servers if !driver.has_server() => "the kernel serves it, no process",
            WorkloadKind::Mounts | WorkloadKind::Servers => return None,
        };
        Some(reason.to_owned())
    }
}

/// Does something and returns how many seconds it took, and what it returned.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let start = Instant::now();
    let done = work()?;
    Ok((start.elapsed().as_secs_f64(), done))
}

/// Holds what was found against what it must be.
fn expect<T: PartialEq + std::fmt::Display>(what: &str, expected: &T, found: &T) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::Wrong {
            what: what.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }),
    }
}

/// Returns the name of a file in a sentence.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Returns about `count` things, spread over all of them.
fn spread<T>(all: impl ExactSizeIterator<Item = T>, count: u64) -> impl Iterator<Item = T> {
    let count = usize::try_from(count).unwrap_or(usize::MAX).max(1);
    let step = all.len().div_ceil(count).max(1);
    all.step_by(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_workloads_and_figures_are_their_own() {
        let ids: std::collections::BTreeSet<_> = WORKLOADS.iter().map(|one| one.id).collect();
        assert_eq!(ids.len(), WORKLOADS.len());
        let figures: Vec<_> = WORKLOADS.iter().flat_map(|one| one.figures).collect();
        let ids: std::collections::BTreeSet<_> = figures.iter().map(|one| one.id).collect();
        assert_eq!(ids.len(), figures.len());
        for one in WORKLOADS {
            assert!(one.figures.iter().all(|figure| figure.id.starts_with(one.id)), "{}", one.id);
        }
        assert!(workload("walk").is_ok());
        assert!(matches!(workload("none"), Err(Error::NoWorkload { .. })));
    }

    #[test]
    fn what_is_spread_is_of_all() {
        let of = |len: usize, count| spread(0..len, count).collect::<Vec<_>>();
        assert_eq!(of(10, 5), [0, 2, 4, 6, 8]);
        assert_eq!(of(3, 10), [0, 1, 2]);
        assert_eq!(of(0, 10), [0; 0]);
    }
}
