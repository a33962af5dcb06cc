//! How long does a lookup take, whatever the number of layers?
//!
//! In the index of a chain of 150,000 inodes, one name after another in no order; and of names that are
//! not there.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "the macros of criterion make items without docs")]

mod stand;

use std::ffi::OsString;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strata::layer::{Chain, ROOT};

use crate::stand::{IN_EACH, Objects, chain, layers};

const ENTRIES: usize = 150_000;
/// How many are looked up in a round. It is odd, and the step is prime: so all of them come, in no order.
const NAMES: usize = 20_001;
const STEP: usize = 7_919;

/// Returns directories and names in them.
fn names(chain: &Chain, name: impl Fn(usize) -> String) -> Vec<(u32, OsString)> {
    let dirs = ENTRIES / (IN_EACH + 1);
    let one = |number: usize| {
        let number = number * STEP % NAMES;
        let dir = format!("dir-{:05}", number % dirs);
        let dir = chain.lookup(ROOT, dir.as_ref()).unwrap().unwrap();
        (dir, name(number).into())
    };
    (0..NAMES).map(one).collect()
}

fn how_long_does_a_lookup_take(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::new(folder.path());
    let mut group = criterion.benchmark_group("how_long_does_a_lookup_take");
    group.throughput(Throughput::Elements(NAMES as u64)).sample_size(20);
    for count in [1, 10, 500] {
        let chain = chain(layers(ENTRIES, count, &objects), &objects);
        let there = names(&chain, |number| format!("file-{:02}.txt", number % IN_EACH));
        let absent = names(&chain, |number| format!("file-{number}.c"));
        for (what, names, found) in [("there", there, true), ("absent", absent, false)] {
            group.bench_function(BenchmarkId::new(what, count), |bencher| {
                bencher.iter(|| {
                    for (dir, name) in &names {
                        assert_eq!(black_box(chain.lookup(*dir, name).unwrap()).is_some(), found);
                    }
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, how_long_does_a_lookup_take);
criterion_main!(benches);
