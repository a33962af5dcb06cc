//! Removing files, and making and removing directories.

use std::fs;
use std::path::{Path, PathBuf};

use crate::bench::error::io_error;
use crate::bench::mounted::Access;
use crate::bench::run::Sample;
use crate::bench::walk::{self, Entry};
use crate::bench::workload::create::{NEW, upper_files};
use crate::bench::workload::{Figure, Values, Workload, WorkloadKind, expect, spread, timed};
use crate::bench::{FixtureKind, Group, Result, Unit};

/// Removing files.
pub(crate) static UNLINK: Workload = Workload {
    id: "unlink",
    group: Group::Changes,
    title: "unlink",
    what: "removes files that the mount has made, and files of the layers, which leaves a whiteout for each",
    figures: &[
        Figure { id: "unlink-upper", title: "unlink, upper files", unit: Unit::Seconds },
        Figure { id: "unlink-lower", title: "unlink, lower files", unit: Unit::Seconds },
    ],
    fixture: FixtureKind::Tree,
    kind: WorkloadKind::Files,
    run: unlink,
};

/// Making and removing directories.
pub(crate) static MKDIR: Workload = Workload {
    id: "mkdir",
    group: Group::Changes,
    title: "mkdir and rmdir",
    what: "makes 1,000 directories (at the full size) in one new directory, and removes them",
    figures: &[
        Figure { id: "mkdir", title: "mkdir", unit: Unit::Seconds },
        Figure { id: "mkdir-rmdir", title: "rmdir", unit: Unit::Seconds },
    ],
    fixture: FixtureKind::Tree,
    kind: WorkloadKind::Files,
    run: mkdir,
};

fn unlink(sample: &Sample<'_>) -> Result<Values> {
    let mounted = sample.mount(Access::Change(&[]))?;
    let upper = upper_files(sample, &mounted.root)?;
    let all: Vec<&Entry> = sample.fixture.files.iter().filter(|file| file.is_file()).collect();
    let lower = spread(all.into_iter(), sample.size.changed);
    let lower: Vec<_> = lower.map(|file| mounted.root.join(&file.path)).collect();
    let (upper_took, ()) = timed(|| remove(sample, &upper))?;
    let (lower_took, ()) = timed(|| remove(sample, &lower))?;
    for path in upper.iter().chain(&lower) {
        let gone = fs::symlink_metadata(path).is_err();
        expect(&format!("whether {} is gone", path.display()), &true, &gone)?;
    }
    let left = walk::count(&mounted.root, &|| sample.limit.go_on())?;
    let made = walk::count(&mounted.root.join(NEW), &|| Ok(()))?.entries + 1;
    let expected = (sample.fixture.files.len() - lower.len()) as u64 + made;
    expect("entries that are left", &expected, &left.entries)?;
    sample.end(mounted)?;
    let each = lower_took / lower.len().max(1) as f64;
    Ok(vec![Ok(upper_took), Ok(each * sample.size.changed as f64)])
}

fn remove(sample: &Sample<'_>, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        fs::remove_file(path).map_err(io_error("remove", path))?;
        sample.limit.go_on()?;
    }
    Ok(())
}

fn mkdir(sample: &Sample<'_>) -> Result<Values> {
    let mounted = sample.mount(Access::MakeNew)?;
    let top = mounted.root.join(NEW);
    fs::create_dir(&top).map_err(io_error("make", &top))?;
    let count = sample.size.changed;
    let paths: Vec<_> = (0..count).map(|number| top.join(format!("dir-{number}"))).collect();
    let each = |work: fn(&Path) -> std::io::Result<()>| {
        for path in &paths {
            work(path).map_err(io_error("change", path))?;
            sample.limit.go_on()?;
        }
        Ok(())
    };
    let (made_in, ()) = timed(|| each(|path| fs::create_dir(path)))?;
    expect("directories that were made", &count, &walk::count(&top, &|| Ok(()))?.directories)?;
    let (removed_in, ()) = timed(|| each(|path| fs::remove_dir(path)))?;
    expect("directories that are left", &0, &walk::count(&top, &|| Ok(()))?.entries)?;
    sample.end(mounted)?;
    Ok(vec![Ok(made_in), Ok(removed_in)])
}
