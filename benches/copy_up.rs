//! How long does a copy-up take?
//!
//! The first write to small files, and to one of 32 MiB; and a change of attributes, which copies no
//! content. Nothing is synced, so that the disk is no part of it; `strata bench` measures with it.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "the macros of criterion make items without docs")]

mod stand;

use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use strata::overlay::{Ino, Overlay, SetAttr, Sync};

use crate::stand::{Objects, Tar, dir, file, find, writable};

const SMALL: usize = 200;
const LARGE_BYTES: usize = 32 << 20;

/// A tree that nobody has changed, in a folder of its own.
struct Fresh {
    overlay: Overlay,
    files: Vec<Ino>,
    _folder: tempfile::TempDir,
}

fn fresh(tar: &[u8], objects: &Objects, paths: &[String], place: &Path) -> Fresh {
    let folder = tempfile::tempdir_in(place).unwrap();
    let overlay = writable(tar, objects, folder.path(), Sync::Never);
    let files = paths.iter().map(|path| find(&overlay, path)).collect();
    Fresh { overlay, files, _folder: folder }
}

fn write_to_each(fresh: Fresh) -> Fresh {
    for ino in &fresh.files {
        fresh.overlay.write(*ino, b"changed", 0).unwrap();
    }
    fresh
}

fn change_each(fresh: Fresh) -> Fresh {
    for ino in &fresh.files {
        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        fresh.overlay.setattr(*ino, set).unwrap();
    }
    fresh
}

/// A name, what is changed, how many files that is, and how.
type Run<'a> = (&'a str, &'a [String], u64, fn(Fresh) -> Fresh);

fn how_long_does_a_copy_up_take(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::new(folder.path());
    let mut tar = Tar::new(Vec::new());
    dir(&mut tar, "small");
    let small: Vec<_> = (0..SMALL).map(|number| format!("small/file-{number}")).collect();
    small.iter().for_each(|path| file(&mut tar, path, &[b's'; 2000]));
    file(&mut tar, "large", &vec![b'l'; LARGE_BYTES]);
    let tar = tar.finish().unwrap();
    let large = ["large".to_owned()];
    let mut group = criterion.benchmark_group("how_long_does_a_copy_up_take");
    group.sample_size(10);
    let runs: [Run<'_>; 3] = [
        ("first_write_to_small_files", &small, SMALL as u64, write_to_each),
        ("attributes_of_small_files", &small, SMALL as u64, change_each),
        ("first_write_to_a_large_file", &large, 1, write_to_each),
    ];
    for (name, paths, count, work) in runs {
        group.throughput(Throughput::Elements(count));
        group.bench_function(name, |bencher| {
            let setup = || fresh(&tar, &objects, paths, folder.path());
            bencher.iter_batched(setup, work, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, how_long_does_a_copy_up_take);
criterion_main!(benches);
