//! The copy-up of a big file: how long a writer waits for it, and who else does.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::error::io_error;
use crate::bench::fixture::BIG;
use crate::bench::mounted::Access;
use crate::bench::run::Sample;
use crate::bench::workload::{Figure, Values, Workload, WorkloadKind, expect, timed};
use crate::bench::{Error, Filler, FixtureKind, Group, Result, Unit};
use crate::sys;

/// The first write.
pub(crate) static FIRST_WRITE: Workload = Workload {
    id: "first-write",
    group: Group::Changes,
    title: "first write to a big lower file",
    what: "opens a file of 500 MB (at the full size) of a layer and writes one byte in its middle",
    figures: &[Figure {
        id: "first-write",
        title: "first write, big lower file",
        unit: Unit::Seconds,
    }],
    fixture: FixtureKind::Big,
    kind: WorkloadKind::Files,
    run: first_write,
};

/// Lookups meanwhile.
pub(crate) static LOOKUPS: Workload = Workload {
    id: "lookups",
    group: Group::Changes,
    title: "lookups while a big file is copied up",
    what: "looks up one name after another that was not looked up before, about 5,000 a second: for a while \
           with nothing else going on, then while the first write to the big file is under way",
    figures: &[
        Figure { id: "lookups-idle", title: "slowest lookup, idle", unit: Unit::Seconds },
        Figure { id: "lookups-busy", title: "slowest lookup, during copy-up", unit: Unit::Seconds },
        Figure {
            id: "lookups-busy-99",
            title: "99 of 100 lookups, during copy-up",
            unit: Unit::Seconds,
        },
    ],
    fixture: FixtureKind::Big,
    kind: WorkloadKind::Files,
    run: lookups,
};

/// What of the layer is changed.
const CHANGED: Access = Access::Change(&[BIG.copied, BIG.names]);
const WRITTEN: [u8; 1] = [b'!'];
/// Between two lookups.
const PAUSE: Duration = Duration::from_micros(200);
/// How many of the names are for the time before the copy-up: one in so many.
const IDLE_PART: usize = 8;

fn first_write(sample: &Sample<'_>) -> Result<Values> {
    let mounted = sample.mount(CHANGED)?;
    let (took, file) = timed(|| write_one(sample, &mounted.root))?;
    drop(file);
    check(sample, &mounted.root)?;
    sample.end(mounted)?;
    Ok(vec![Ok(took)])
}

/// Returns where the byte is written: the beginning of the page in the middle.
const fn middle(sample: &Sample<'_>) -> u64 {
    (sample.size.copied_bytes / 2) & !4095
}

fn write_one(sample: &Sample<'_>, root: &Path) -> Result<File> {
    let path = root.join(BIG.copied);
    let file = File::options().read(true).write(true).open(&path);
    let file = file.map_err(io_error("open", &path))?;
    file.write_all_at(&WRITTEN, middle(sample)).map_err(io_error("write", &path))?;
    Ok(file)
}

fn check(sample: &Sample<'_>, root: &Path) -> Result<()> {
    let path = root.join(BIG.copied);
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let len = file.metadata().map_err(io_error("look at", &path))?.len();
    expect("the size of the file", &sample.size.copied_bytes, &len)?;
    let filler = Filler::of(BIG.copied.as_bytes());
    let mut word = [0; 8];
    for offset in [0, middle(sample) - 8, middle(sample), middle(sample) + 8, len / 8 * 8 - 8] {
        file.read_exact_at(&mut word, offset).map_err(io_error("read", &path))?;
        let mut expected = filler.word(offset).to_le_bytes();
        if offset == middle(sample) {
            expected[..WRITTEN.len()].copy_from_slice(&WRITTEN);
        }
        let what = format!("the content at {offset}");
        expect(&what, &u64::from_le_bytes(expected), &u64::from_le_bytes(word))?;
    }
    Ok(())
}

fn lookups(sample: &Sample<'_>) -> Result<Values> {
    let mounted = sample.mount(CHANGED)?;
    let root = sys::open_dir_path(&mounted.root)?;
    let files = sample
        .fixture
        .files
        .iter()
        .filter(|file| file.is_file() && file.path.starts_with(BIG.names));
    let names: Vec<&Path> = files.map(|file| file.path.as_path()).collect();
    let (before, during) = names.split_at(names.len() / IDLE_PART);
    let none = || "the copy-up was over before a name was looked up".to_owned();
    let (first, before) = before.split_first().ok_or_else(|| Error::NotHere(none()))?;
    // What the first name in a directory costs is not what others wait for.
    sys::exists(root.as_fd(), first.as_os_str())?;
    let idle = look_up(sample, root.as_fd(), before, &|| false)?;
    let is_over = AtomicBool::new(false);
    let busy = thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let written = write_one(sample, &mounted.root).map(drop);
            is_over.store(true, Ordering::SeqCst);
            written
        });
        let busy = look_up(sample, root.as_fd(), during, &|| is_over.load(Ordering::SeqCst));
        let panicked = |_| Error::NotHere("the thread that writes has panicked".to_owned());
        writing.join().map_err(panicked)??;
        busy
    })?;
    check(sample, &mounted.root)?;
    drop(root);
    sample.end(mounted)?;
    Ok(vec![
        idle.last().copied().ok_or_else(none),
        busy.last().copied().ok_or_else(none),
        busy.get(busy.len() * 99 / 100).copied().ok_or_else(none),
    ])
}

/// Looks up names until all were or it is over, and returns how long each took, sorted.
fn look_up(
    sample: &Sample<'_>,
    root: BorrowedFd<'_>,
    names: &[&Path],
    is_over: &dyn Fn() -> bool,
) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for name in names {
        if is_over() {
            break;
        }
        let start = Instant::now();
        let found = sys::exists(root, name.as_os_str())?;
        times.push(start.elapsed().as_secs_f64());
        expect("whether a name is found", &true, &found)?;
        sample.limit.go_on()?;
        thread::sleep(PAUSE);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}
