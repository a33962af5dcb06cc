//! How fast is a tar unpacked?
//!
//! Into an index and objects: a tar of small files, and one of large ones. What no way through a tar can
//! go below is its bytes, hashed once.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "the macros of criterion make items without docs")]

mod stand;

use std::hint::black_box;
use std::io::{self, sink};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strata::digest::HashingReader;

use crate::stand::{Objects, Tar, file, index, tree_tar};

const SMALL_ENTRIES: usize = 20_000;
const LARGE: u8 = 16;
const LARGE_BYTES: usize = 4 << 20;

fn how_fast_is_a_tar_unpacked(criterion: &mut Criterion) {
    let mut large = Tar::new(Vec::new());
    for letter in b'a'..b'a' + LARGE {
        file(&mut large, &format!("file-{letter}"), &vec![letter; LARGE_BYTES]);
    }
    let small = tree_tar(SMALL_ENTRIES, 0, 1);
    let mut group = criterion.benchmark_group("how_fast_is_a_tar_unpacked");
    group.sample_size(10);
    for (name, tar) in [("small_files", small), ("large_files", large.finish().unwrap())] {
        group.throughput(Throughput::Bytes(tar.len() as u64));
        group.bench_function(name, |bencher| {
            let folder = tempfile::tempdir().unwrap();
            let objects = Objects::new(folder.path());
            bencher.iter(|| index(&tar, &objects));
        });
        group.bench_function(format!("{name}_only_hashed"), |bencher| {
            bencher.iter(|| {
                let mut reader = HashingReader::new(&tar[..]);
                io::copy(&mut reader, &mut sink()).unwrap();
                black_box(reader.finish().0)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, how_fast_is_a_tar_unpacked);
criterion_main!(benches);
