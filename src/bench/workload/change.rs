//! Changing files: those of the lower, which are copied up, and those of the upper.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::bench::content::mark;
use crate::bench::error::io_error;
use crate::bench::fixture::mark_of;
use crate::bench::mounted::Access;
use crate::bench::run::Sample;
use crate::bench::walk::Entry;
use crate::bench::workload::create::{LEN, content, upper_files};
use crate::bench::workload::{
    Figure, Values, Workload, WorkloadKind, expect, shown, spread, timed,
};
use crate::bench::{FixtureKind, Group, Result, Unit};
use crate::sys::mode;

/// Writing over the beginning.
pub(crate) static OVERWRITE: Workload = Workload {
    id: "overwrite",
    group: Group::Changes,
    title: "open, write over the first 4 KiB and close",
    what: "writes over the beginning of small files that the mount has made, and of small files of the \
           layers, which is their copy-up",
    figures: &[
        Figure { id: "overwrite-upper", title: "overwrite, upper files", unit: Unit::Seconds },
        Figure { id: "overwrite-lower", title: "overwrite, lower files", unit: Unit::Seconds },
    ],
    fixture: FixtureKind::Tree,
    kind: WorkloadKind::Files,
    run: overwrite,
};

/// Writing at the end.
pub(crate) static APPEND: Workload = Workload {
    id: "append",
    group: Group::Changes,
    title: "open, append 4 KiB and close",
    what: "appends to small files that the mount has made, and to small files of the layers",
    figures: &[
        Figure { id: "append-upper", title: "append, upper files", unit: Unit::Seconds },
        Figure { id: "append-lower", title: "append, lower files", unit: Unit::Seconds },
    ],
    fixture: FixtureKind::Tree,
    kind: WorkloadKind::Files,
    run: append,
};

/// Renaming.
pub(crate) static RENAME: Workload = Workload {
    id: "rename",
    group: Group::Changes,
    title: "rename",
    what: "gives files that the mount has made another name in their directory, and small files of the \
           layers",
    figures: &[
        Figure { id: "rename-upper", title: "rename, upper files", unit: Unit::Seconds },
        Figure { id: "rename-lower", title: "rename, lower files", unit: Unit::Seconds },
    ],
    fixture: FixtureKind::Tree,
    kind: WorkloadKind::Files,
    run: rename,
};

/// Changing permissions.
pub(crate) static CHMOD: Workload = Workload {
    id: "chmod",
    group: Group::Changes,
    title: "chmod of lower files and directories",
    what: "takes the attributes of 1,000 files and directories (at the full size) of the layers and \
           changes their permissions, as chmod -R u=rwX,g=rX,o= does",
    figures: &[Figure { id: "chmod", title: "chmod, lower files", unit: Unit::Seconds }],
    fixture: FixtureKind::Tree,
    kind: WorkloadKind::Files,
    run: chmod,
};

/// A file that is changed, and what it was before.
struct Changed {
    path: PathBuf,
    size: u64,
    mark: u64,
}

/// Does something with files of the upper, then with files of the lower, and checks each.
fn both(
    sample: &Sample<'_>,
    change: fn(&Changed) -> Result<()>,
    check: fn(&Changed) -> Result<()>,
) -> Result<Values> {
    let mounted = sample.mount(Access::Change(&[]))?;
    let mark = mark(&content());
    let upper = upper_files(sample, &mounted.root)?.into_iter();
    let upper = upper.map(|path| Changed { path, size: LEN as u64, mark }).collect();
    let small: Vec<&Entry> = sample.fixture.small_files().collect();
    let lower = spread(small.into_iter(), sample.size.changed);
    let lower = lower.map(|file| Changed {
        path: mounted.root.join(&file.path),
        size: file.size,
        mark: file.mark,
    });
    let mut values = Vec::new();
    for files in [upper, lower.collect::<Vec<_>>()] {
        let (took, ()) = timed(|| {
            files.iter().try_for_each(|file| change(file).and_then(|()| sample.limit.go_on()))
        })?;
        files.iter().try_for_each(check)?;
        values.push(Ok(took / files.len().max(1) as f64 * sample.size.changed as f64));
    }
    sample.end(mounted)?;
    Ok(values)
}

fn overwrite(sample: &Sample<'_>) -> Result<Values> {
    both(
        sample,
        |file| {
            let opened = File::options().write(true).open(&file.path);
            let opened = opened.map_err(io_error("open", &file.path))?;
            opened.write_all_at(&[b'o'; LEN], 0).map_err(io_error("write", &file.path))
        },
        |file| {
            expect(&shown(&file.path), &file.size.max(LEN as u64), &size_of(&file.path)?)?;
            let expected = mark(&[b'o'; LEN]);
            expect(&shown(&file.path), &expected, &mark_of(&file.path, LEN as u64)?)
        },
    )
}

fn append(sample: &Sample<'_>) -> Result<Values> {
    both(
        sample,
        |file| {
            let opened = File::options().append(true).open(&file.path);
            let mut opened = opened.map_err(io_error("open", &file.path))?;
            opened.write_all(&[b'a'; LEN]).map_err(io_error("write", &file.path))
        },
        |file| {
            expect(&shown(&file.path), &(file.size + LEN as u64), &size_of(&file.path)?)?;
            expect(&shown(&file.path), &file.mark, &mark_of(&file.path, file.size)?)
        },
    )
}

fn rename(sample: &Sample<'_>) -> Result<Values> {
    both(
        sample,
        |file| {
            let renamed = renamed(&file.path);
            fs::rename(&file.path, &renamed).map_err(io_error("rename", &file.path))
        },
        |file| {
            let gone = fs::symlink_metadata(&file.path).is_err();
            expect(&format!("whether {} is gone", shown(&file.path)), &true, &gone)?;
            expect(&shown(&file.path), &file.mark, &mark_of(&renamed(&file.path), file.size)?)
        },
    )
}

fn renamed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".renamed");
    name.into()
}

fn size_of(path: &Path) -> Result<u64> {
    let metadata = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
    Ok(metadata.size())
}

fn chmod(sample: &Sample<'_>) -> Result<Values> {
    let mounted = sample.mount(Access::Change(&[]))?;
    let files = sample.fixture.files.iter().filter(|file| file.is_file() || file.is_dir());
    let files: Vec<_> = files.take(usize::try_from(sample.size.changed).unwrap_or(0)).collect();
    let (took, ()) = timed(|| {
        for file in &files {
            let path = mounted.root.join(&file.path);
            let metadata = fs::symlink_metadata(&path).map_err(io_error("look at", &path))?;
            let permissions = Permissions::from_mode(changed_mode(metadata.mode()));
            fs::set_permissions(&path, permissions).map_err(io_error("change", &path))?;
            sample.limit.go_on()?;
        }
        Ok(())
    })?;
    for file in &files {
        let path = mounted.root.join(&file.path);
        let found = fs::symlink_metadata(&path).map_err(io_error("look at", &path))?.mode();
        expect(&shown(&path), &changed_mode(found), &(found & mode::PERMISSIONS))?;
        if file.is_file() {
            expect(&shown(&path), &file.mark, &mark_of(&path, file.size)?)?;
        }
    }
    sample.end(mounted)?;
    let part = files.len().max(1) as f64;
    Ok(vec![Ok(took / part * sample.size.changed as f64)])
}

/// Returns permissions as `chmod -R u=rwX,g=rX,o=` gives them; the same again when they are so already.
const fn changed_mode(mode: u32) -> u32 {
    let may_be_run = mode & mode::TYPE == mode::DIRECTORY || mode & 0o100 != 0;
    if may_be_run { 0o750 } else { 0o640 }
}
