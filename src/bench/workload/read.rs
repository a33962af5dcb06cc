//! Walking through a tree, and reading its small files.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::bench::content::{hash, mark};
use crate::bench::error::io_error;
use crate::bench::mounted::Access;
use crate::bench::run::Sample;
use crate::bench::walk::{self, Entry, Seen};
use crate::bench::workload::{Figure, Values, Workload, WorkloadKind, expect, timed};
use crate::bench::{FixtureKind, Group, Result, Unit};
use crate::sys::{self, open_flags};

/// A walk with nothing in memory.
pub(crate) static WALK_COLD: Workload = Workload {
    id: "walk-cold",
    group: Group::Names,
    title: "walk, cold",
    what: "lists every directory and takes the attributes of every entry, as find -ls does; the mount is \
           fresh and the kernel's caches are empty, so the disk is part of it",
    figures: &[Figure { id: "walk-cold", title: "walk, cold", unit: Unit::Seconds }],
    fixture: FixtureKind::Tree,
    kind: WorkloadKind::Files,
    run: walk_cold,
};

/// A walk in a fresh mount, and once more.
pub(crate) static WALK: Workload = Workload {
    id: "walk",
    group: Group::Names,
    title: "walk",
    what: "the same walk, in a fresh mount with what is on the disk in memory, and then again",
    figures: &[
        Figure { id: "walk-first", title: "walk, first", unit: Unit::Seconds },
        Figure { id: "walk-warm", title: "walk, warm", unit: Unit::Seconds },
    ],
    fixture: FixtureKind::Tree,
    kind: WorkloadKind::Files,
    run: walk,
};

/// Reading every small file.
pub(crate) static SMALL: Workload = Workload {
    id: "small-read",
    group: Group::Content,
    title: "open, read and close of every small file",
    what: "opens each file of up to 16 KiB, reads it and closes it, in a fresh mount with what is on the \
           disk in memory, and then again",
    figures: &[
        Figure { id: "small-read-first", title: "small files, first time", unit: Unit::Seconds },
        Figure { id: "small-read-again", title: "small files, second time", unit: Unit::Seconds },
    ],
    fixture: FixtureKind::Tree,
    kind: WorkloadKind::Files,
    run: small,
};

fn walk_cold(sample: &Sample<'_>) -> Result<Values> {
    let mounted = sample.mount(Access::Read)?;
    sample.drop_caches()?;
    let (took, seen) = timed(|| walk_whole(sample, &mounted.root))?;
    expect("the walk", &Seen::of(&sample.fixture.files), &seen)?;
    sample.end(mounted)?;
    Ok(vec![Ok(took)])
}

fn walk(sample: &Sample<'_>) -> Result<Values> {
    sample.warm_up(|root| walk_whole(sample, root).map(drop))?;
    let mounted = sample.mount(Access::Read)?;
    let (first, seen) = timed(|| walk_whole(sample, &mounted.root))?;
    let (again, seen_again) = timed(|| walk_whole(sample, &mounted.root))?;
    let expected = Seen::of(&sample.fixture.files);
    expect("the first walk", &expected, &seen)?;
    expect("the second walk", &expected, &seen_again)?;
    sample.end(mounted)?;
    Ok(vec![Ok(first), Ok(again)])
}

fn walk_whole(sample: &Sample<'_>, root: &Path) -> Result<Seen> {
    walk::count(root, &|| sample.limit.go_on())
}

fn small(sample: &Sample<'_>) -> Result<Values> {
    let files: Vec<&Entry> = sample.fixture.small_files().collect();
    let expected = Contents::of(&files);
    sample.warm_up(|root| read_all(sample, root, &files).map(drop))?;
    let mounted = sample.mount(Access::Read)?;
    let (first, read) = timed(|| read_all(sample, &mounted.root, &files))?;
    let (again, read_again) = timed(|| read_all(sample, &mounted.root, &files))?;
    expect("what was read first", &expected, &read)?;
    expect("what was read again", &expected, &read_again)?;
    sample.end(mounted)?;
    Ok(vec![Ok(first), Ok(again)])
}

/// What was read, of many files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Contents {
    files: u64,
    bytes: u64,
    /// Marks and names, mixed and added up.
    marks: u64,
}

impl Contents {
    fn of(files: &[&Entry]) -> Self {
        let mut contents = Self::default();
        files.iter().for_each(|file| contents.add(hash_of(file), file.size, file.mark));
        contents
    }

    const fn add(&mut self, name: u64, bytes: u64, mark: u64) {
        self.files += 1;
        self.bytes += bytes;
        self.marks = self.marks.wrapping_add(name ^ mark);
    }
}

impl std::fmt::Display for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { files, bytes, marks } = self;
        write!(f, "{files} files, {bytes} bytes, marks {marks:016x}")
    }
}

fn hash_of(file: &Entry) -> u64 {
    hash(file.path.as_os_str().as_bytes())
}

fn read_all(sample: &Sample<'_>, root: &Path, files: &[&Entry]) -> Result<Contents> {
    let dir = sys::open_dir_path(root)?;
    let mut contents = Contents::default();
    // The largest of them, and a byte that would be one too many.
    let mut buffer = vec![0; 16 * 1024 + 1];
    for file in files {
        let fd = sys::open(dir.as_fd(), file.path.as_os_str(), open_flags::READ, 0)?;
        let len = read_whole(File::from(fd), &mut buffer)
            .map_err(io_error("read", root.join(&file.path)))?;
        contents.add(hash_of(file), len as u64, mark(&buffer[..len]));
        sample.limit.go_on()?;
    }
    Ok(contents)
}

fn read_whole(mut file: File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0;
    loop {
        match file.read(&mut buffer[len..])? {
            0 => return Ok(len),
            read => len += read,
        }
    }
}
