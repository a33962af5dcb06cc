//! Making files.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::bench::error::io_error;
use crate::bench::fixture::mark_of;
use crate::bench::mounted::Access;
use crate::bench::run::Sample;
use crate::bench::walk;
use crate::bench::workload::{Figure, Values, Workload, WorkloadKind, expect, shown, timed};
use crate::bench::{Filler, FixtureKind, Group, Result, Unit, content};

/// Making files of 4 KiB.
pub(crate) static CREATE: Workload = Workload {
    id: "create",
    group: Group::Changes,
    title: "create, write 4 KiB and close",
    what: "makes 10,000 files (at the full size) of 4 KiB, a hundred in each of new directories",
    figures: &[Figure { id: "create", title: "create, write 4 KiB, close", unit: Unit::Seconds }],
    fixture: FixtureKind::Tree,
    kind: WorkloadKind::Files,
    run: create,
};

/// Bytes of a file that is made.
pub(crate) const LEN: usize = 4096;
/// The directory that files are made in.
pub(crate) const NEW: &str = "new-files";
const IN_EACH: usize = 100;

fn create(sample: &Sample<'_>) -> Result<Values> {
    let mounted = sample.mount(Access::MakeNew)?;
    let paths = make_directories(&mounted.root, sample.size.created)?;
    let content = content();
    let (took, ()) = timed(|| make_files(sample, &paths, &content))?;
    check(&mounted.root, &paths)?;
    sample.end(mounted)?;
    Ok(vec![Ok(took)])
}

/// Returns what each file holds.
pub(crate) fn content() -> Vec<u8> {
    let mut content = vec![0; LEN];
    Filler::of(NEW.as_bytes()).fill(0, &mut content);
    content
}

/// Makes directories for files, and returns the paths of the files.
pub(crate) fn make_directories(root: &Path, files: u64) -> Result<Vec<PathBuf>> {
    let top = root.join(NEW);
    let dir = |number: u64| top.join(format!("d{:03}", number / IN_EACH as u64));
    for number in (0..files).step_by(IN_EACH) {
        let dir = dir(number);
        fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
    }
    Ok((0..files).map(|number| dir(number).join(format!("file-{number:05}"))).collect())
}

/// Makes files that are not there yet.
pub(crate) fn make_files(sample: &Sample<'_>, paths: &[PathBuf], content: &[u8]) -> Result<()> {
    for path in paths {
        let mut file = File::create_new(path).map_err(io_error("make", path))?;
        file.write_all(content).map_err(io_error("write", path))?;
        drop(file);
        sample.limit.go_on()?;
    }
    Ok(())
}

/// Makes files that a workload will change, and returns their paths.
pub(crate) fn upper_files(sample: &Sample<'_>, root: &Path) -> Result<Vec<PathBuf>> {
    let paths = make_directories(root, sample.size.changed)?;
    make_files(sample, &paths, &content())?;
    Ok(paths)
}

fn check(root: &Path, paths: &[PathBuf]) -> Result<()> {
    let seen = walk::count(&root.join(NEW), &|| Ok(()))?;
    let files = paths.len() as u64;
    expect("the files that were made", &files, &(seen.entries - seen.directories))?;
    expect("their bytes", &(files * LEN as u64), &seen.bytes)?;
    let expected = content::mark(&content());
    for path in paths {
        expect(&shown(path), &expected, &mark_of(path, LEN as u64)?)?;
    }
    Ok(())
}
