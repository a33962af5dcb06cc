//! One big file: read from end to end, at random places, and mapped.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::bench::content::Numbers;
use crate::bench::error::io_error;
use crate::bench::fixture::BIG;
use crate::bench::mounted::Access;
use crate::bench::run::Sample;
use crate::bench::workload::{Figure, Values, Workload, WorkloadKind, expect, timed};
use crate::bench::{Filler, FixtureKind, Group, Result, Unit};
use crate::sys::MappedFile;

/// Reading it with nothing in memory.
pub(crate) static COLD: Workload = Workload {
    id: "large-cold",
    group: Group::Content,
    title: "a big file from end to end, cold",
    what: "reads a file of 1 GiB (at the full size) with the kernel's caches empty, so from the disk",
    figures: &[Figure { id: "large-cold", title: "big file, cold", unit: Unit::BytesPerSecond }],
    fixture: FixtureKind::Big,
    kind: WorkloadKind::Files,
    run: cold,
};

/// Reading it in a fresh mount, and once more.
pub(crate) static SEQUENTIAL: Workload = Workload {
    id: "large",
    group: Group::Content,
    title: "a big file from end to end",
    what: "reads the same file in pieces of 1 MiB: first in a fresh mount with the layer's file in memory \
           (or the object of the store), and then again",
    figures: &[
        Figure { id: "large-first", title: "big file, first", unit: Unit::BytesPerSecond },
        Figure { id: "large-again", title: "big file, again", unit: Unit::BytesPerSecond },
    ],
    fixture: FixtureKind::Big,
    kind: WorkloadKind::Files,
    run: sequential,
};

/// Reading pages of it at random.
pub(crate) static RANDOM: Workload = Workload {
    id: "random",
    group: Group::Content,
    title: "4 KiB at random places of a big file",
    what: "reads pages of the same file in no order, when it was read once",
    figures: &[Figure { id: "random", title: "4 KiB at random places", unit: Unit::PerSecond }],
    fixture: FixtureKind::Big,
    kind: WorkloadKind::Files,
    run: random,
};

/// Mapping it.
pub(crate) static MAPPED: Workload = Workload {
    id: "mmap",
    group: Group::Content,
    title: "a big file in memory",
    what: "maps the same file and reads of every page: first in a fresh mount with the layer's file in \
           memory, and then again",
    figures: &[
        Figure { id: "mmap-first", title: "mapped big file, first", unit: Unit::BytesPerSecond },
        Figure { id: "mmap-again", title: "mapped big file, again", unit: Unit::BytesPerSecond },
    ],
    fixture: FixtureKind::Big,
    kind: WorkloadKind::Files,
    run: mapped,
};

const PAGE: usize = 4096;
const PAGE_BYTES: u64 = PAGE as u64;
const PIECE: usize = 1 << 20;

/// Returns what the first words of all pages of the file come to.
fn expected(sample: &Sample<'_>) -> u64 {
    let filler = Filler::of(BIG.read.as_bytes());
    let pages = sample.size.big_bytes / PAGE_BYTES;
    (0..pages).fold(0_u64, |sum, page| sum.wrapping_add(filler.word(page * PAGE_BYTES)))
}

fn first_word(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word))
}

fn speed(sample: &Sample<'_>, seconds: f64) -> f64 {
    sample.size.big_bytes as f64 / seconds
}

fn cold(sample: &Sample<'_>) -> Result<Values> {
    let mounted = sample.mount(Access::Read)?;
    sample.drop_caches()?;
    let (took, sum) = timed(|| read_through(sample, &mounted.root))?;
    expect("the sum of the pages", &expected(sample), &sum)?;
    sample.end(mounted)?;
    Ok(vec![Ok(speed(sample, took))])
}

fn sequential(sample: &Sample<'_>) -> Result<Values> {
    sample.warm_up(|root| read_through(sample, root).map(drop))?;
    let mounted = sample.mount(Access::Read)?;
    let (first, sum) = timed(|| read_through(sample, &mounted.root))?;
    let (again, sum_again) = timed(|| read_through(sample, &mounted.root))?;
    expect("the sum of the pages", &expected(sample), &sum)?;
    expect("the sum of the pages, again", &expected(sample), &sum_again)?;
    sample.end(mounted)?;
    Ok(vec![Ok(speed(sample, first)), Ok(speed(sample, again))])
}

fn read_through(sample: &Sample<'_>, root: &Path) -> Result<u64> {
    let path = root.join(BIG.read);
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let mut buffer = vec![0; PIECE];
    let (mut sum, mut offset) = (0_u64, 0);
    loop {
        let mut filled = 0;
        while filled < PIECE {
            let read = file.read_at(&mut buffer[filled..], offset + filled as u64);
            match read.map_err(io_error("read", &path))? {
                0 => break,
                len => filled += len,
            }
        }
        for page in buffer[..filled].chunks(PAGE) {
            sum = sum.wrapping_add(first_word(page));
        }
        offset += filled as u64;
        sample.limit.go_on()?;
        if filled < PIECE {
            return Ok(sum);
        }
    }
}

fn random(sample: &Sample<'_>) -> Result<Values> {
    let mounted = sample.mount(Access::Read)?;
    read_through(sample, &mounted.root)?;
    let path = mounted.root.join(BIG.read);
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let filler = Filler::of(BIG.read.as_bytes());
    let mut numbers = Numbers::new(1);
    let mut buffer = vec![0; PAGE];
    let pages = sample.size.big_bytes / PAGE_BYTES;
    let (took, wrong) = timed(|| {
        let mut wrong = 0;
        for _ in 0..sample.size.random_reads {
            let offset = numbers.below(pages) * PAGE_BYTES;
            file.read_exact_at(&mut buffer, offset).map_err(io_error("read", &path))?;
            wrong += u64::from(first_word(&buffer) != filler.word(offset));
        }
        sample.limit.go_on()?;
        Ok(wrong)
    })?;
    expect("pages with another content", &0, &wrong)?;
    drop(file);
    sample.end(mounted)?;
    Ok(vec![Ok(sample.size.random_reads as f64 / took)])
}

fn mapped(sample: &Sample<'_>) -> Result<Values> {
    sample.warm_up(|root| read_through(sample, root).map(drop))?;
    let mounted = sample.mount(Access::Read)?;
    let (first, sum) = timed(|| map_through(sample, &mounted.root))?;
    let (again, sum_again) = timed(|| map_through(sample, &mounted.root))?;
    expect("the sum of the pages", &expected(sample), &sum)?;
    expect("the sum of the pages, again", &expected(sample), &sum_again)?;
    sample.end(mounted)?;
    Ok(vec![Ok(speed(sample, first)), Ok(speed(sample, again))])
}

fn map_through(sample: &Sample<'_>, root: &Path) -> Result<u64> {
    let path = root.join(BIG.read);
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let map = MappedFile::new(file.as_fd())?;
    let mut sum = 0_u64;
    for piece in map.chunks(PIECE) {
        for page in piece.chunks(PAGE) {
            sum = sum.wrapping_add(first_word(page));
        }
        sample.limit.go_on()?;
    }
    Ok(sum)
}
