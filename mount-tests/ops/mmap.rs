//! Files mapped into memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use memmap2::{Mmap, MmapMut, MmapOptions};

use crate::common::{Place, everywhere, large};

fn open_both(place: &Place, name: &str) -> File {
    File::options().read(true).write(true).open(place.path(name)).unwrap()
}

#[allow(unsafe_code, reason = "another program could cut the file short under the map")]
fn map(file: &File) -> Mmap {
    // SAFETY: the file is this test's alone, which keeps its size.
    unsafe { Mmap::map(file) }.unwrap()
}

#[allow(unsafe_code, reason = "another program could cut the file short under the map")]
fn map_shared(file: &File) -> MmapMut {
    // SAFETY: the file is this test's alone, which keeps its size.
    unsafe { MmapMut::map_mut(file) }.unwrap()
}

#[allow(unsafe_code, reason = "another program could cut the file short under the map")]
fn map_private(file: &File) -> MmapMut {
    // SAFETY: the file is this test's alone, which keeps its size.
    unsafe { MmapOptions::new().map_copy(file) }.unwrap()
}

#[test]
fn what_is_written_to_a_shared_map_is_in_the_file() {
    everywhere(|place| {
        let mut expected = large();
        {
            let mut map = map_shared(&open_both(place, "large"));
            assert!(map[..] == expected);
            for at in [0, 4_095, 700_000] {
                map[at..at + 3].copy_from_slice(b"MAP");
                expected[at..at + 3].copy_from_slice(b"MAP");
            }
            map.flush().unwrap();
            assert!(fs::read(place.path("large")).unwrap() == expected);
            map[1 << 19] = b'!';
            expected[1 << 19] = b'!';
        }
        assert!(fs::read(place.path("large")).unwrap() == expected);
        map_shared(&open_both(place, "file"))[..3].copy_from_slice(b"MAP");
        assert_eq!(place.text("hard"), "MAPtent\n");
    });
}

#[test]
fn what_is_written_to_a_private_map_stays_there() {
    everywhere(|place| {
        let mut map = map_private(&File::open(place.path("large")).unwrap());
        map[..3].copy_from_slice(b"MAP");
        assert_eq!(&map[..5], b"MAP00");
        assert!(fs::read(place.path("large")).unwrap() == large());
    });
}

#[test]
fn a_map_from_before_the_first_write_shows_it() {
    everywhere(|place| {
        for name in ["file", "large"] {
            let map = map(&File::open(place.path(name)).unwrap());
            let before = map[0];
            let writer = open_both(place, name);
            writer.write_all_at(b"W", 3).unwrap();
            assert_eq!((map[0], map[3]), (before, b'W'), "{name}");
            // And the other way: what a map writes, a handle reads.
            let mut shared = map_shared(&writer);
            shared[0] = b'S';
            let mut start = [0; 4];
            writer.read_exact_at(&mut start, 0).unwrap();
            assert_eq!((start[0], start[3]), (b'S', b'W'), "{name}");
            assert_eq!(map[0], b'S', "{name}");
        }
        assert_eq!(place.text("hard"), "SonWent\n");
    });
}

#[test]
fn a_map_outlives_the_handle_and_the_name() {
    everywhere(|place| {
        let mut map = map_shared(&open_both(place, "large"));
        fs::remove_file(place.path("large")).unwrap();
        assert!(map[..] == large());
        map[500_000..500_004].copy_from_slice(b"gone");
        map.flush().unwrap();
        assert_eq!(&map[500_000..500_004], b"gone");
        assert!(!place.names("").contains(&"large".to_owned()));
    });
}
