//! How long does it take to merge the layers of an image?
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "the macros of criterion make items without docs")]

mod stand;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strata::layer::{Limits, merge};

use crate::stand::{Objects, layers};

const ENTRIES: usize = 20_000;

fn how_long_does_a_merge_take(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::new(folder.path());
    let mut group = criterion.benchmark_group("how_long_does_a_merge_take");
    group.throughput(Throughput::Elements(ENTRIES as u64)).sample_size(10);
    for count in [1, 10, 100] {
        let layers = layers(ENTRIES, count, &objects);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| merge(&layers, Limits::NONE, tempfile::tempfile().unwrap()).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, how_long_does_a_merge_take);
criterion_main!(benches);
