//! How long does it take to read a file of an image?
//!
//! Small files, whose contents are in the index: looked up, read, forgotten. A large one, which is an
//! object, in the pieces that the kernel asks for.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "the macros of criterion make items without docs")]

mod stand;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strata::overlay::{Ino, Overlay};

use crate::stand::{Objects, Tar, dir, file, find, read_only};

const SMALL: usize = 2_000;
const LARGE_BYTES: usize = 64 << 20;
const PIECE: usize = 128 * 1024;

/// Opens a file and reads it in pieces.
fn read(overlay: &Overlay, ino: Ino, buffer: &mut [u8]) -> u64 {
    overlay.open(ino).unwrap();
    let mut offset = 0;
    loop {
        match overlay.read(ino, buffer, offset).unwrap() {
            0 => break,
            len => offset += len as u64,
        }
    }
    offset
}

fn how_long_does_it_take_to_read_a_file(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::new(folder.path());
    let mut tar = Tar::new(Vec::new());
    dir(&mut tar, "small");
    (0..SMALL).for_each(|number| file(&mut tar, &format!("small/file-{number}"), &[b's'; 2000]));
    file(&mut tar, "large", &vec![b'l'; LARGE_BYTES]);
    let overlay = read_only(&tar.finish().unwrap(), &objects);
    let mut buffer = vec![0; PIECE];
    let mut group = criterion.benchmark_group("how_long_does_it_take_to_read_a_file");
    let dir = find(&overlay, "small");
    let names: Vec<_> = (0..SMALL).map(|number| format!("file-{number}")).collect();
    group.throughput(Throughput::Elements(SMALL as u64)).sample_size(20);
    group.bench_function("small_files", |bencher| {
        bencher.iter(|| {
            for name in &names {
                let ino = overlay.lookup(dir, name.as_ref()).unwrap().ino;
                assert_eq!(read(&overlay, ino, &mut buffer), 2000);
                overlay.forget(ino, 1);
            }
        });
    });
    let large = find(&overlay, "large");
    group.throughput(Throughput::Bytes(LARGE_BYTES as u64));
    group.bench_function("a_large_file", |bencher| {
        bencher.iter(|| assert_eq!(read(&overlay, large, &mut buffer), LARGE_BYTES as u64));
    });
    group.finish();
}

criterion_group!(benches, how_long_does_it_take_to_read_a_file);
criterion_main!(benches);
