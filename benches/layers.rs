//! What a layer costs on its way to a mount.
//!
//! - `does_a_lookup_depend_on_the_number_of_layers`
//! - `how_fast_is_a_tar_unpacked`, and made again
//! - `how_long_does_a_merge_take`
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "the macros of criterion make items without docs")]

use std::ffi::OsString;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, sink};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strata::digest::Digest;
use strata::layer::{
    Chain, Index, Kind, LayerFiles, ObjectSink, ObjectSource, TarMeta, TarWriter, merge, unpack,
};

/// Files in all layers together.
const FILES: usize = 20_000;

/// No file here is large enough to be an object.
struct NoObjects;

impl ObjectSink for NoObjects {
    fn put(&mut self, _: Digest, _: &[u8]) -> io::Result<()> {
        Err(io::Error::other("not used"))
    }

    fn begin(&mut self) -> io::Result<File> {
        Err(io::Error::other("not used"))
    }

    fn commit(&mut self, _: File, _: Digest) -> io::Result<()> {
        Err(io::Error::other("not used"))
    }
}

impl ObjectSource for NoObjects {
    fn open(&self, _: Digest) -> io::Result<File> {
        Err(io::Error::other("not used"))
    }
}

fn meta(path: String, kind: Kind, size: u64) -> TarMeta {
    TarMeta { size, ..TarMeta::new(path, kind, 0o755) }
}

/// The tar of one layer: its share of the files, a hundred to a directory.
fn tar(layer: usize, layers: usize) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for number in (0..FILES).filter(|number| number % layers == layer) {
        if (number / layers).is_multiple_of(100) {
            tar.entry(&meta(format!("dir{layer}-{}", number / layers / 100), Kind::Directory, 0))
                .unwrap();
        }
        let content = format!("{number:01000}");
        let path = format!("dir{layer}-{}/file{number}", number / layers / 100);
        let size = content.len() as u64;
        tar.file(&meta(path, Kind::Regular, size), &mut content.as_bytes()).unwrap();
    }
    tar.finish().unwrap()
}

fn index(tar: &[u8]) -> Index {
    let files =
        LayerFiles { index: tempfile::tempfile().unwrap(), recipe: tempfile::tempfile().unwrap() };
    Index::open(&unpack(tar, files, &mut NoObjects).unwrap().files.index).unwrap()
}

fn layers(count: usize) -> Vec<Index> {
    (0..count).map(|layer| index(&tar(layer, count))).collect()
}

fn does_a_lookup_depend_on_the_number_of_layers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("does_a_lookup_depend_on_the_number_of_layers");
    for count in [1, 10, 100, 500] {
        let layers = layers(count);
        let merged = merge(&layers, tempfile::tempfile().unwrap()).unwrap();
        let chain = Chain::new(Index::open(&merged).unwrap(), layers, Arc::new(NoObjects)).unwrap();
        let dir = chain.lookup(0, "dir0-0".as_ref()).unwrap().unwrap();
        let names: Vec<OsString> = (0..chain.entry_count(dir).unwrap())
            .map(|position| chain.entry(dir, position).unwrap().unwrap().name.to_owned())
            .collect();
        group.throughput(Throughput::Elements(names.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                for name in &names {
                    black_box(chain.lookup(dir, name).unwrap());
                }
            });
        });
    }
    group.finish();
}

fn how_fast_is_a_tar_unpacked(criterion: &mut Criterion) {
    let tar = tar(0, 1);
    let mut group = criterion.benchmark_group("how_fast_is_a_tar_unpacked");
    group.throughput(Throughput::Bytes(tar.len() as u64)).sample_size(10);
    group.bench_function("strata", |bencher| bencher.iter(|| index(&tar)));
    // What no way through a tar can go below: its bytes, hashed.
    group.bench_function("only_hashed", |bencher| {
        bencher.iter(|| {
            let mut reader = strata::digest::HashingReader::new(&tar[..]);
            io::copy(&mut reader, &mut sink()).unwrap();
            black_box(reader.finish().0)
        });
    });
    group.finish();
}

fn how_long_does_a_merge_take(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("how_long_does_a_merge_take");
    group.sample_size(10);
    for count in [1, 10, 100] {
        let layers = layers(count);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| merge(&layers, tempfile::tempfile().unwrap()).unwrap());
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    does_a_lookup_depend_on_the_number_of_layers,
    how_fast_is_a_tar_unpacked,
    how_long_does_a_merge_take
);
criterion_main!(benches);
