//! Names alone: those that are not there, and very many in one directory.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::bench::fixture::WIDE;
use crate::bench::mounted::Access;
use crate::bench::run::Sample;
use crate::bench::workload::{Figure, Values, Workload, WorkloadKind, expect, timed};
use crate::bench::{FixtureKind, Group, Result, Unit};
use crate::sys::{self, DirStream};

/// Looking up what is not there.
pub(crate) static NEGATIVE: Workload = Workload {
    id: "negative",
    group: Group::Names,
    title: "lookups of names that are not there",
    what: "asks in every directory for names that it does not have, as a search along PATH or for a header \
           does; each name once, and then each again",
    figures: &[
        Figure {
            id: "negative-first",
            title: "names that are not there, first",
            unit: Unit::Seconds,
        },
        Figure {
            id: "negative-again",
            title: "names that are not there, again",
            unit: Unit::Seconds,
        },
    ],
    fixture: FixtureKind::Tree,
    kind: WorkloadKind::Files,
    run: negative,
};

/// Listing a directory with very many entries.
pub(crate) static READDIR: Workload = Workload {
    id: "readdir",
    group: Group::Names,
    title: "listing a large directory",
    what: "lists a directory of 50,000 entries (at the full size) without their attributes, in a fresh \
           mount with what is on the disk in memory, and then again",
    figures: &[
        Figure { id: "readdir-first", title: "large directory, first", unit: Unit::Seconds },
        Figure { id: "readdir-again", title: "large directory, again", unit: Unit::Seconds },
    ],
    fixture: FixtureKind::Wide,
    kind: WorkloadKind::Files,
    run: readdir,
};

/// How many names are looked up, at least.
const LOOKUPS: usize = 4_000;

fn negative(sample: &Sample<'_>) -> Result<Values> {
    let directories = sample.fixture.files.iter().filter(|file| file.is_dir());
    let mut directories: Vec<&Path> = directories.map(|file| file.path.as_path()).collect();
    directories.push(Path::new(""));
    let each = LOOKUPS.div_ceil(directories.len());
    let names: Vec<PathBuf> = (0..each)
        .flat_map(|number| directories.iter().map(move |dir| dir.join(format!("absent-{number}"))))
        .collect();
    let mounted = sample.mount(Access::Read)?;
    let root = sys::open_dir_path(&mounted.root)?;
    let look = || {
        let mut found = 0;
        for name in &names {
            found += usize::from(sys::exists(root.as_fd(), name.as_os_str())?);
        }
        sample.limit.go_on()?;
        Ok(found)
    };
    let (first, found) = timed(look)?;
    let (again, found_again) = timed(look)?;
    expect("names that are not there, but were found", &0, &(found + found_again))?;
    drop(root);
    sample.end(mounted)?;
    Ok(vec![Ok(first), Ok(again)])
}

/// How many names, and all their bytes added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Listed {
    names: u64,
    bytes: u64,
}

impl Listed {
    fn add(&mut self, name: &[u8]) {
        self.names += 1;
        self.bytes += name.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    }
}

impl std::fmt::Display for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} names, bytes {}", self.names, self.bytes)
    }
}

fn readdir(sample: &Sample<'_>) -> Result<Values> {
    let mut expected = Listed::default();
    let mut all = BTreeSet::new();
    for file in sample.fixture.files.iter().filter(|file| file.path.starts_with(WIDE)) {
        if let Some(name) = file.path.file_name().filter(|_| file.path != Path::new(WIDE)) {
            expected.add(name.as_bytes());
            all.insert(name.to_owned());
        }
    }
    sample.warm_up(|root| list(&root.join(WIDE)).map(drop))?;
    let mounted = sample.mount(Access::Read)?;
    let dir = mounted.root.join(WIDE);
    let (first, listed) = timed(|| list(&dir))?;
    let (again, listed_again) = timed(|| list(&dir))?;
    expect("the first listing", &expected, &listed)?;
    expect("the second listing", &expected, &listed_again)?;
    let names: BTreeSet<OsString> =
        DirStream::of(sys::open_dir_path(&dir)?).names()?.into_iter().collect();
    expect("whether every name is the right one", &true, &(names == all))?;
    sample.end(mounted)?;
    Ok(vec![Ok(first), Ok(again)])
}

fn list(dir: &Path) -> Result<Listed> {
    let mut listed = Listed::default();
    let mut stream = DirStream::of(sys::open_dir_path(dir)?);
    while let Some(entry) = stream.next_entry()? {
        if entry.name != "." && entry.name != ".." {
            listed.add(entry.name.as_bytes());
        }
    }
    Ok(listed)
}
