//! Programs that people run: tar, git, a compiler.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::bench::error::io_error;
use crate::bench::fixture::SOURCE;
use crate::bench::mounted::Access;
use crate::bench::run::Sample;
use crate::bench::walk::{self, Seen};
use crate::bench::workload::{Figure, Values, Workload, WorkloadKind, expect, timed};
use crate::bench::{Error, FixtureKind, Group, Result, Unit};

/// Unpacking sources.
pub(crate) static UNTAR: Workload = Workload {
    id: "untar",
    group: Group::Programs,
    title: "untar of a source tree",
    what: "unpacks a tar of sources, 3,000 files at the full size, into a new directory with tar(1)",
    figures: &[Figure { id: "untar", title: "untar of a source tree", unit: Unit::Seconds }],
    fixture: FixtureKind::Source,
    kind: WorkloadKind::Files,
    run: untar,
};

/// Asking git what has changed.
pub(crate) static GIT: Workload = Workload {
    id: "git-status",
    group: Group::Programs,
    title: "git status",
    what: "git status in a repository that is in a layer: first, where git does not know the files' numbers \
           and times and reads all of them, and then again",
    figures: &[
        Figure { id: "git-status-first", title: "git status, first", unit: Unit::Seconds },
        Figure { id: "git-status-again", title: "git status, again", unit: Unit::Seconds },
    ],
    fixture: FixtureKind::Source,
    kind: WorkloadKind::Files,
    run: git_status,
};

/// Compiling.
pub(crate) static COMPILE: Workload = Workload {
    id: "compile",
    group: Group::Programs,
    title: "a compile",
    what: "compiles 20 files of C (at the full size) that are in a layer, into a new directory",
    figures: &[Figure { id: "compile", title: "a compile", unit: Unit::Seconds }],
    fixture: FixtureKind::Source,
    kind: WorkloadKind::Files,
    run: compile,
};

const GIT_DIR: &str = ".git";

fn untar(sample: &Sample<'_>) -> Result<Values> {
    let archive = sample.fixture.archive.as_ref();
    let archive = archive.ok_or_else(|| Error::NotHere("there is no archive".to_owned()))?;
    let mounted = sample.mount(Access::MakeNew)?;
    let out = mounted.root.join("unpacked");
    fs::create_dir(&out).map_err(io_error("make", &out))?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(archive).arg("-C").arg(&out);
    let (took, _) = timed(|| sample.limit.run(&mut tar))?;
    let git = Path::new(SOURCE).join(GIT_DIR);
    let files = sample.fixture.files.iter();
    let files: Vec<_> = files.filter(|file| !file.path.starts_with(&git)).cloned().collect();
    let (expected, seen) = (Seen::of(&files), walk::count(&out, &|| Ok(()))?);
    expect("files that were unpacked", &expected.entries, &seen.entries)?;
    expect("bytes that were unpacked", &expected.bytes, &seen.bytes)?;
    sample.end(mounted)?;
    Ok(vec![Ok(took)])
}

fn git_status(sample: &Sample<'_>) -> Result<Values> {
    let mounted = sample.mount(Access::Change(&[]))?;
    let mut command = Command::new("git");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/nonexistent");
    // It is somebody else's where the server shows root as the owner.
    command.args(["-c", "safe.directory=*", "-C"]).arg(mounted.root.join(SOURCE));
    command.args(["status", "--porcelain"]);
    let (first, said) = timed(|| sample.limit.run(&mut command))?;
    let (again, said_again) = timed(|| sample.limit.run(&mut command))?;
    expect("what git says has changed", &String::new(), &text(&said))?;
    expect("what git says then has changed", &String::new(), &text(&said_again))?;
    sample.end(mounted)?;
    Ok(vec![Ok(first), Ok(again)])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn compile(sample: &Sample<'_>) -> Result<Values> {
    let mounted = sample.mount(Access::Change(&[]))?;
    let out = mounted.root.join("objects");
    fs::create_dir(&out).map_err(io_error("make", &out))?;
    let sources = sample
        .fixture
        .files
        .iter()
        .filter(|file| file.path.extension().is_some_and(|extension| extension == "c"));
    let count = usize::try_from(sample.size.compiled).unwrap_or(0);
    let sources: Vec<_> =
        sources.take(count).map(|file| Path::new("..").join(&file.path)).collect();
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-c", "-I", &format!("../{SOURCE}/include")]).args(&sources);
    compiler.current_dir(&out);
    let (took, _) = timed(|| sample.limit.run(&mut compiler))?;
    let made = walk::count(&out, &|| Ok(()))?;
    expect("files that were compiled", &(sources.len() as u64), &made.entries)?;
    expect("whether they hold something", &true, &(made.bytes > 0))?;
    sample.end(mounted)?;
    Ok(vec![Ok(took)])
}
