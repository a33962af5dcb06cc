//! Reading and writing: what one handle writes, all others read, wherever the data is.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use nix::errno::Errno;

use crate::common::{Place, everywhere, large, refused};

fn open_both(place: &Place, name: &str) -> File {
    File::options().read(true).write(true).open(place.path(name)).unwrap()
}

#[test]
fn a_handle_from_before_the_first_write_reads_what_is_written() {
    everywhere(|place| {
        for (name, hard) in [("file", "hard"), ("large", "large")] {
            let old = File::open(place.path(name)).unwrap();
            let mut start = [0; 4];
            old.read_exact_at(&mut start, 0).unwrap();
            let writer = File::options().write(true).open(place.path(hard)).unwrap();
            writer.write_all_at(b"NEW!", 2).unwrap();
            let mut seen = [0; 6];
            old.read_exact_at(&mut seen, 0).unwrap();
            assert_eq!([&start[..2], b"NEW!"].concat(), seen, "{name}");
            writer.set_len(3).unwrap();
            assert_eq!(old.read_at(&mut seen, 0).unwrap(), 3, "{name}");
            assert_eq!(old.metadata().unwrap().len(), 3);
        }
    });
}

#[test]
fn regression_a_stale_handle_does_not_poison_a_partial_write() {
    // A handle from before copy-up that kept reading the old data would fill the page cache with it;
    // the next write to part of that page would then store old data.
    everywhere(|place| {
        let old = File::open(place.path("large")).unwrap();
        old.read_exact_at(&mut [0; 16], 0).unwrap();
        let mut writer = open_both(place, "large");
        writer.write_all(&[b'B'; 64 << 10]).unwrap();
        writer.sync_all().unwrap();
        drop_cached_pages(&writer);
        old.read_exact_at(&mut [0; 2], 0).unwrap();
        writer.write_all_at(b"CC", 0).unwrap();
        writer.sync_all().unwrap();
        drop_cached_pages(&writer);
        let mut expected = large();
        expected[..64 << 10].fill(b'B');
        expected[..2].fill(b'C');
        assert!(fs::read(place.path("large")).unwrap() == expected);
    });
}

/// Makes the kernel read the file anew.
fn drop_cached_pages(file: &File) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}

#[test]
fn writing_a_part_keeps_the_rest() {
    everywhere(|place| {
        let mut expected = large();
        let file = open_both(place, "large");
        for (at, bytes) in [(0, &b"first"[..]), (4_095, b"across"), (500_000, b"middle")] {
            file.write_all_at(bytes, at as u64).unwrap();
            expected[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let end = expected.len() as u64;
        file.write_all_at(b"over the end", end - 4).unwrap();
        expected.truncate(expected.len() - 4);
        expected.extend_from_slice(b"over the end");
        assert!(fs::read(place.path("large")).unwrap() == expected);
        let stat = place.stat("large");
        assert_eq!(stat.len(), expected.len() as u64);
        assert!(stat.blocks() * 512 >= stat.len());
        assert_eq!(place.text("file"), "content\n");
    });
}

#[test]
fn reading_at_offsets_gives_what_is_there_and_nothing_past_the_end() {
    everywhere(|place| {
        let (content, file) = (large(), File::open(place.path("large")).unwrap());
        for (at, len) in [(0, 1), (15, 17), (4_090, 12), (131_071, 70_000), (1_048_570, 6)] {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at as u64).unwrap();
            assert!(bytes == content[at..at + len], "{len} bytes at {at}");
        }
        let mut bytes = [0; 100];
        assert_eq!(file.read_at(&mut bytes, 1_048_570).unwrap(), 6);
        assert_eq!(file.read_at(&mut bytes, 1_048_576).unwrap(), 0);
        assert_eq!(file.read_at(&mut bytes, 1 << 40).unwrap(), 0);
        assert_eq!(refused(file.read_at(&mut bytes, u64::MAX)), Errno::EINVAL);
    });
}

#[test]
fn the_position_of_a_handle_moves_as_it_is_told() {
    everywhere(|place| {
        let mut file = open_both(place, "file");
        assert_eq!(file.seek(SeekFrom::End(-3)).unwrap(), 5);
        assert_eq!(file.seek(SeekFrom::Current(-2)).unwrap(), 3);
        file.write_all(b"T").unwrap();
        assert_eq!(file.stream_position().unwrap(), 4);
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "ent\n");
        assert_eq!(refused(file.seek(SeekFrom::Start(u64::MAX))), Errno::EINVAL);
        assert_eq!(refused(file.seek(SeekFrom::End(-9))), Errno::EINVAL);
        let mut twin = file.try_clone().unwrap();
        twin.seek(SeekFrom::Start(1)).unwrap();
        assert_eq!(file.stream_position().unwrap(), 1);
        assert_eq!(place.text("hard"), "conTent\n");
    });
}

#[test]
fn appended_bytes_go_to_the_end_whoever_moved_it() {
    everywhere(|place| {
        let append = |name: &str| File::options().append(true).open(place.path(name)).unwrap();
        let (mut one, mut two) = (append("file"), append("hard"));
        one.write_all(b"one\n").unwrap();
        two.write_all(b"two\n").unwrap();
        one.seek(SeekFrom::Start(0)).unwrap();
        one.write_all(b"three\n").unwrap();
        assert_eq!(place.text("file"), "content\none\ntwo\nthree\n");
        two.set_len(3).unwrap();
        one.write_all(b"!").unwrap();
        assert_eq!(place.text("hard"), "con!");

        append("large").write_all(b"last\n").unwrap();
        let mut expected = large();
        expected.extend_from_slice(b"last\n");
        assert!(fs::read(place.path("large")).unwrap() == expected);
    });
}

#[test]
fn many_small_writes_and_vectors_add_up() {
    everywhere(|place| {
        let mut file = File::create(place.path("new")).unwrap();
        for number in 0..300 {
            writeln!(file, "{number}").unwrap();
        }
        let parts = [std::io::IoSlice::new(b"a"), std::io::IoSlice::new(b"bc")];
        assert_eq!(file.write_vectored(&parts).unwrap(), 3);
        assert_eq!(file.write(b"").unwrap(), 0);
        let expected: String = (0..300).map(|number| format!("{number}\n")).collect();
        assert_eq!(place.text("new"), expected + "abc");
        assert_eq!(place.stat("new").len(), 1_093);
    });
}

#[test]
fn direct_and_synchronous_access_see_the_same_bytes() {
    everywhere(|place| {
        let direct = |flags| {
            let mut options = File::options();
            options.read(true).write(true).custom_flags(flags);
            options.open(place.path("large")).unwrap()
        };
        let synchronous = direct(libc::O_SYNC);
        synchronous.write_all_at(b"SYNC", 100).unwrap();
        let mut memory = Aligned([0; 8192]);
        let file = direct(libc::O_DIRECT);
        assert_eq!(file.read_at(&mut memory.0, 0).unwrap(), 8192);
        let mut expected = large();
        expected[100..104].copy_from_slice(b"SYNC");
        assert!(memory.0[..] == expected[..8192]);
        memory.0.fill(b'D');
        assert_eq!(file.write_at(&memory.0, 4096).unwrap(), 8192);
        expected[4096..12288].fill(b'D');
        assert!(fs::read(place.path("large")).unwrap() == expected);
    });
}

/// Memory as `O_DIRECT` wants it.
#[repr(align(4096))]
struct Aligned([u8; 8192]);
