//! Many containers of one image at the same time.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::bench::error::io_error;
use crate::bench::mounted::{Access, Mounted};
use crate::bench::process::{Memory, kilobytes};
use crate::bench::run::Sample;
use crate::bench::walk::Entry;
use crate::bench::workload::{Figure, Values, Workload, WorkloadKind, expect, timed};
use crate::bench::{Error, FixtureKind, Group, Result, Unit};
use crate::sys;

/// Starting them.
pub(crate) static CONTAINERS: Workload = Workload {
    id: "containers",
    group: Group::Mounts,
    title: "containers started from one image",
    what: "mounts 20 containers (at the full size) of the tree, one after the other and all of them at the \
           same time; in each a shell is started and files of 30 MB are read. The time is that of one; the \
           memory is that of all",
    figures: &[
        Figure { id: "containers-time", title: "start of a container", unit: Unit::Seconds },
        Figure {
            id: "containers-server",
            title: "all containers, servers' memory",
            unit: Unit::Bytes,
        },
        Figure { id: "containers-cache", title: "all containers, page cache", unit: Unit::Bytes },
    ],
    fixture: FixtureKind::Tree,
    kind: WorkloadKind::Mounts,
    run: containers,
};

/// Bytes that each container reads, and the most of one file.
const READ_BYTES: u64 = 30_000_000;
const FILE_BYTES: u64 = 4 << 20;

fn containers(sample: &Sample<'_>) -> Result<Values> {
    if sample.fixture.program.is_none() {
        return Err(Error::NotHere("the tree has no program to start: no /bin/sh".to_owned()));
    }
    let files = files_to_read(sample);
    let emptied = match sample.drop_caches() {
        Err(Error::NotHere(reason)) => Err(reason),
        other => other.map(Ok)?,
    };
    let cached_before = cached()?;
    let mut mounted = Vec::new();
    let (took, ()) = timed(|| {
        for _ in 0..sample.size.containers {
            mounted.push(start(sample, &files)?);
        }
        Ok(())
    })?;
    let cached_after = cached()?;
    let mut memory = Memory::default();
    for one in &mounted {
        memory += one.server_memory()?;
    }
    mounted.into_iter().try_for_each(|one| sample.end(one))?;
    let server = match sample.driver.has_server() {
        true => Ok(memory.written as f64),
        false => Err("the kernel serves it, no process".to_owned()),
    };
    let cache = emptied.map(|()| cached_after.saturating_sub(cached_before) as f64);
    Ok(vec![Ok(took / sample.size.containers as f64), server, cache])
}

/// Returns the largest files, but for the very large, up to what a container reads.
fn files_to_read<'a>(sample: &Sample<'a>) -> Vec<&'a Entry> {
    let files = sample.fixture.files.iter();
    let mut files: Vec<_> =
        files.filter(|file| file.is_file() && file.size <= FILE_BYTES).collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.size));
    let mut left = READ_BYTES;
    files.retain(|file| {
        let fits = file.size <= left;
        left -= if fits { file.size } else { 0 };
        fits && file.size > 0
    });
    files
}

fn start(sample: &Sample<'_>, files: &[&Entry]) -> Result<Mounted> {
    let mounted = sample.mount(Access::MakeNew)?;
    let words = sample.fixture.program.iter().flatten();
    let words: Vec<_> = words.collect();
    if let [program, arguments @ ..] = &words[..] {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin");
        sys::run_in_root(&mut command, &mounted.root)?;
        sample.limit.run(&mut command)?;
    }
    for file in files {
        let path: PathBuf = mounted.root.join(&file.path);
        let content = fs::read(&path).map_err(io_error("read", &path))?;
        expect(&path.display().to_string(), &file.size, &(content.len() as u64))?;
        sample.limit.go_on()?;
    }
    Ok(mounted)
}

/// Returns the bytes of files that the kernel has in memory.
fn cached() -> Result<u64> {
    const PATH: &str = "/proc/meminfo";
    let text = fs::read_to_string(PATH).map_err(io_error("read", PATH))?;
    let known = kilobytes(&text, "Cached:");
    known
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| Error::NotHere(format!("{PATH} is strange")))
}
