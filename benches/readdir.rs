//! How long does it take to list a directory?
//!
//! Of 50,000 entries, all of them in an image: with names alone, and with the attributes that the kernel
//! asks for on a walk.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "the macros of criterion make items without docs")]

mod stand;

use std::ops::ControlFlow;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strata::overlay::{Ino, Overlay, ReadDir};

use crate::stand::{Objects, Tar, dir, file, find, read_only};

const ENTRIES: u64 = 50_000;

/// Lists a directory as a mount does for the kernel: so many entries for each answer.
fn list(overlay: &Overlay, dir: Ino, what: ReadDir) -> u64 {
    const IN_AN_ANSWER: u64 = 200;
    let (mut position, mut all) = (0, 0);
    loop {
        let mut count = 0;
        overlay
            .read_dir(dir, None, position, what, &mut |entry| {
                if count == IN_AN_ANSWER {
                    return ControlFlow::Break(());
                }
                (position, count) = (entry.next, count + 1);
                ControlFlow::Continue(())
            })
            .unwrap();
        all += count;
        if count == 0 {
            return all;
        }
    }
}

fn how_long_does_it_take_to_list_a_directory(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::new(folder.path());
    let mut tar = Tar::new(Vec::new());
    dir(&mut tar, "wide");
    (0..ENTRIES).for_each(|number| file(&mut tar, &format!("wide/entry-{number:06}"), b""));
    let overlay = read_only(&tar.finish().unwrap(), &objects);
    let wide = find(&overlay, "wide");
    let mut group = criterion.benchmark_group("how_long_does_it_take_to_list_a_directory");
    group.throughput(Throughput::Elements(ENTRIES)).sample_size(20);
    for (name, what) in [("names", ReadDir::Names), ("attributes", ReadDir::Attributes)] {
        group.bench_function(name, |bencher| {
            // And its two names for itself and the one above.
            bencher.iter(|| assert_eq!(list(&overlay, wide, what), ENTRIES + 2));
        });
    }
    group.finish();
}

criterion_group!(benches, how_long_does_it_take_to_list_a_directory);
criterion_main!(benches);
