//! Sizes: truncating, growing, holes, and room reserved or given back.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, copy_file_range, fallocate};
use nix::unistd::{Whence, lseek, truncate};

use crate::common::{Place, Session, Who, everywhere, large, refused, run};

fn open_both(place: &Place, name: &str) -> File {
    File::options().read(true).write(true).open(place.path(name)).unwrap()
}

#[track_caller]
fn assert_content(place: &Place, name: &str, expected: &[u8]) {
    let found = fs::read(place.path(name)).unwrap();
    assert_eq!(found.len(), expected.len(), "{name}");
    assert!(found == expected, "{name}");
    assert_eq!(place.stat(name).len(), expected.len() as u64, "{name}");
}

#[test]
fn truncating_by_path_keeps_the_beginning() {
    everywhere(|place| {
        let mut expected = large();
        for size in [700_001, 4_096, 10] {
            truncate(&place.path("large"), size).unwrap();
            expected.truncate(usize::try_from(size).unwrap());
            assert_content(place, "large", &expected);
        }
        truncate(&place.path("link"), 3).unwrap();
        assert_content(place, "hard", b"con");
        truncate(&place.path("file"), 0).unwrap();
        assert_content(place, "hard", b"");
        assert_eq!(refused(truncate(&place.path("dir"), 0)), Errno::EISDIR);
        assert_eq!(refused(truncate(&place.path("missing"), 0)), Errno::ENOENT);
        assert_eq!(refused(truncate(&place.path("file"), -1)), Errno::EINVAL);
    });
}

#[test]
fn growing_adds_zeros() {
    everywhere(|place| {
        truncate(&place.path("file"), 20).unwrap();
        assert_content(place, "hard", b"content\n\0\0\0\0\0\0\0\0\0\0\0\0");
        let file = open_both(place, "large");
        let mut expected = large();
        file.set_len(3_000_000).unwrap();
        expected.resize(3_000_000, 0);
        assert_content(place, "large", &expected);
        // What was cut off does not come back.
        file.set_len(5).unwrap();
        file.set_len(5_000).unwrap();
        expected.truncate(5);
        expected.resize(5_000, 0);
        assert_content(place, "large", &expected);
    });
}

#[test]
fn a_write_past_the_end_leaves_a_hole() {
    everywhere(|place| {
        let file = File::create(place.path("new")).unwrap();
        file.write_all_at(b"end", 1 << 20).unwrap();
        let stat = place.stat("new");
        assert_eq!(stat.len(), (1 << 20) + 3);
        assert!(stat.blocks() * 512 < 1 << 19, "{} blocks", stat.blocks());
        assert_eq!(data(&file, 0).unwrap(), 1 << 20);
        assert_eq!(hole(&file, 0).unwrap(), 0);
        assert_eq!(hole(&file, 1 << 20).unwrap(), (1 << 20) + 3);
        assert_eq!(refused(data(&file, 2 << 20)), Errno::ENXIO);

        open_both(place, "file").write_all_at(b"end", 8_192).unwrap();
        let mut expected = b"content\n".to_vec();
        expected.resize(8_192, 0);
        expected.extend_from_slice(b"end");
        assert_content(place, "hard", &expected);
    });
}

fn data(file: &File, from: i64) -> nix::Result<i64> {
    lseek(file, from, Whence::SeekData)
}

fn hole(file: &File, from: i64) -> nix::Result<i64> {
    lseek(file, from, Whence::SeekHole)
}

#[test]
fn a_file_without_holes_has_one_at_its_end() {
    everywhere(|place| {
        for (name, len) in [("file", 8), ("large", 1 << 20)] {
            let file = File::open(place.path(name)).unwrap();
            assert_eq!(data(&file, 0).unwrap(), 0, "{name}");
            assert_eq!(hole(&file, 3).unwrap(), len, "{name}");
            assert_eq!(data(&file, len - 1).unwrap(), len - 1, "{name}");
            assert_eq!(refused(data(&file, len)), Errno::ENXIO, "{name}");
            assert_eq!(refused(hole(&file, len)), Errno::ENXIO, "{name}");
        }
    });
}

#[test]
fn holes_are_punched_and_ranges_zeroed() {
    everywhere(|place| {
        let file = open_both(place, "large");
        let mut expected = large();
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&file, FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep, 8_192, 65_536).unwrap();
        expected[8_192..8_192 + 65_536].fill(0);
        assert_content(place, "large", &expected);
        assert_eq!(hole(&file, 0).unwrap(), 8_192);
        assert_eq!(data(&file, 8_192).unwrap(), 8_192 + 65_536);

        fallocate(&file, FallocateFlags::FALLOC_FL_ZERO_RANGE, 1_000_000, 100_000).unwrap();
        expected.resize(1_100_000, 0);
        expected[1_000_000..].fill(0);
        assert_content(place, "large", &expected);
        assert_eq!(refused(fallocate(&file, keep, 0, 0)), Errno::EINVAL);
        assert_eq!(refused(fallocate(&file, keep, -1, 5)), Errno::EINVAL);
    });
}

#[test]
fn room_is_reserved_with_and_without_growing() {
    everywhere(|place| {
        let file = open_both(place, "file");
        fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 1 << 20).unwrap();
        assert_content(place, "hard", b"content\n");
        assert!(place.stat("file").blocks() >= 2_048);
        fallocate(&file, FallocateFlags::empty(), 0, 10).unwrap();
        assert_content(place, "hard", b"content\n\0\0");
        let reader = File::open(place.path("file")).unwrap();
        let reserved = fallocate(&reader, FallocateFlags::empty(), 0, 10);
        assert_eq!(refused(reserved), Errno::EBADF);
    });
}

#[test]
fn ranges_are_copied_between_files_and_within_one() {
    everywhere(|place| {
        let (from, to) = (open_both(place, "large"), open_both(place, "file"));
        let (mut from_at, mut to_at) = (16, 4);
        let copied = copy_file_range(&from, Some(&mut from_at), &to, Some(&mut to_at), 32);
        assert_eq!(copied, Ok(32));
        assert_eq!((from_at, to_at), (48, 36));
        assert_content(place, "hard", b"cont000000000000001\n000000000000002\n");

        let (mut from_at, mut to_at) = (0, 500_000);
        let copied = copy_file_range(&from, Some(&mut from_at), &from, Some(&mut to_at), 16);
        assert_eq!(copied, Ok(16));
        let mut expected = large();
        expected.copy_within(0..16, 500_000);
        assert_content(place, "large", &expected);

        let small = File::open(place.path("dir/child")).unwrap();
        let (mut from_at, mut to_at) = (2, 0);
        let copied = copy_file_range(&small, Some(&mut from_at), &to, Some(&mut to_at), 100);
        assert_eq!(copied, Ok(4));
        assert!(place.text("hard").starts_with("ild\n000000000000001\n"));
        let past = copy_file_range(&small, Some(&mut 50), &to, Some(&mut 0), 10);
        assert_eq!(past, Ok(0));
        let backwards = copy_file_range(&to, Some(&mut 0), &small, Some(&mut 0), 10);
        assert_eq!(refused(backwards), Errno::EBADF);
    });
}

#[test]
fn a_whole_file_is_copied_by_the_standard_library() {
    everywhere(|place| {
        fs::copy(place.path("large"), place.path("copy")).unwrap();
        assert_content(place, "copy", &large());
        fs::copy(place.path("dir/child"), place.path("large")).unwrap();
        assert_content(place, "large", b"child\n");
        assert_content(place, "copy", &large());
    });
}

#[test]
fn a_sparse_file_stays_sparse_when_it_is_changed() {
    everywhere(|place| {
        let file = open_both(place, "dir/child");
        file.set_len(4 << 20).unwrap();
        file.write_all_at(b"middle", 2 << 20).unwrap();
        let mut expected = b"child\n".to_vec();
        expected.resize(4 << 20, 0);
        expected[2 << 20..(2 << 20) + 6].copy_from_slice(b"middle");
        assert_content(place, "dir/child", &expected);
        assert!(place.stat("dir/child").blocks() * 512 < 1 << 20);
        assert_eq!(data(&file, 100_000).unwrap(), 2 << 20);
    });
}

#[test]
fn a_sparse_file_of_the_image_stays_sparse_when_it_is_copied_up() {
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        let (image, target) = (session.dir("image"), session.dir("mount"));
        let mut expected = vec![0; 8 << 20];
        expected[4 << 20..(4 << 20) + 6].copy_from_slice(b"middle");
        who.act(|| {
            let file = File::create(image.join("sparse")).unwrap();
            file.set_len(8 << 20).unwrap();
            file.write_all_at(b"middle", 4 << 20).unwrap();
        });
        // A tar that knows of holes keeps them.
        let tar = session.path("image.tar");
        let mut command = Command::new("tar");
        command.arg("--sparse").arg("-cf").arg(&tar).arg("-C").arg(&image).arg("sparse");
        assert_eq!(run(who.run(&mut command)).code, 0);
        session.run(&["import", tar.to_str().unwrap(), "test/image"]);
        session.run(&["create", "--name", "test", "test/image"]);
        session.run(&["mount", "test", target.to_str().unwrap()]);
        who.act(|| {
            let file = File::options().read(true).write(true).open(target.join("sparse")).unwrap();
            assert_eq!(data(&file, 0).unwrap(), 4 << 20);
            assert!(fs::read(target.join("sparse")).unwrap() == expected);
            file.write_all_at(b"begin", 0).unwrap();
            expected[..5].copy_from_slice(b"begin");
            assert!(fs::read(target.join("sparse")).unwrap() == expected);
            assert_eq!(data(&file, 100_000).unwrap(), 4 << 20);
            assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
        });
    }
}
