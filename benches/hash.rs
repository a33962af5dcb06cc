//! How fast are contents hashed?
#![allow(missing_docs, reason = "the macros of criterion make items without docs")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strata::digest::Digest;

fn how_fast_are_contents_hashed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("how_fast_are_contents_hashed");
    group.sample_size(20);
    for (name, bytes) in [("4 KiB", 4 << 10), ("1 MiB", 1 << 20)] {
        let content = vec![7; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| Digest::of(black_box(&content)));
        });
    }
    group.finish();
}

criterion_group!(benches, how_fast_are_contents_hashed);
criterion_main!(benches);
