//! Removing files, and files that are open and have no name any more.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use nix::errno::Errno;
use xattr::FileExt as _;

use crate::common::{Place, everywhere, large, refused};

fn open_both(place: &Place, name: &str) -> File {
    File::options().read(true).write(true).open(place.path(name)).unwrap()
}

#[test]
fn a_removed_file_is_gone_and_its_name_is_free() {
    everywhere(|place| {
        for name in ["large", "dir/child", "dir/sub/grandchild", "link", "file"] {
            fs::remove_file(place.path(name)).unwrap();
            assert_eq!(refused(fs::symlink_metadata(place.path(name))), Errno::ENOENT, "{name}");
            assert_eq!(refused(fs::remove_file(place.path(name))), Errno::ENOENT, "{name}");
        }
        assert_eq!(place.names(""), ["dir", "empty", "hard"]);
        assert_eq!(place.names("dir/sub"), [""; 0]);
        for round in 0..3 {
            for name in ["large", "dir/child", "link"] {
                File::create_new(place.path(name))
                    .unwrap()
                    .write_all_at(name.as_bytes(), 0)
                    .unwrap();
                assert_eq!(place.text(name), name, "round {round}");
                fs::remove_file(place.path(name)).unwrap();
            }
        }
        fs::create_dir(place.path("large")).unwrap();
        fs::write(place.path("file"), "again\n").unwrap();
        assert_eq!(place.names(""), ["dir", "empty", "file", "hard", "large"]);
        assert_eq!(place.text("hard"), "content\n");
    });
}

#[test]
fn a_removal_that_makes_no_sense_is_refused() {
    everywhere(|place| {
        for (name, errno) in [
            ("dir", Errno::EISDIR),
            ("empty", Errno::EISDIR),
            ("missing", Errno::ENOENT),
            ("missing/below", Errno::ENOENT),
            ("file/below", Errno::ENOTDIR),
            ("file/", Errno::ENOTDIR),
            ("link/", Errno::ENOTDIR),
        ] {
            assert_eq!(refused(fs::remove_file(place.path(name))), errno, "{name}");
        }
        assert_eq!(place.names(""), ["dir", "empty", "file", "hard", "large", "link"]);
    });
}

#[test]
fn a_file_that_is_open_and_removed_works_in_full() {
    everywhere(|place| {
        let mut file = open_both(place, "large");
        let reader = File::open(place.path("large")).unwrap();
        let ino = place.stat("large").ino();
        fs::remove_file(place.path("large")).unwrap();
        let stat = file.metadata().unwrap();
        assert_eq!((stat.ino(), stat.nlink(), stat.len()), (ino, 0, 1 << 20));
        assert_eq!(file.seek(SeekFrom::End(-16)).unwrap(), (1 << 20) - 16);
        let mut bytes = [0; 16];
        reader.read_exact_at(&mut bytes, 16).unwrap();
        assert_eq!(&bytes, b"000000000000001\n");

        file.write_all_at(b"WRITTEN", 16).unwrap();
        reader.read_exact_at(&mut bytes, 16).unwrap();
        assert_eq!(&bytes, b"WRITTEN00000001\n");
        file.set_len(100).unwrap();
        file.set_len(200).unwrap();
        assert_eq!(reader.metadata().unwrap().len(), 200);
        file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)).unwrap();
        let stat = reader.metadata().unwrap();
        assert_eq!((stat.mode(), stat.mtime(), stat.nlink()), (0o100_600, 0, 0));
        file.set_xattr("user.note", b"value").unwrap();
        assert_eq!(reader.get_xattr("user.note").unwrap().as_deref(), Some(&b"value"[..]));
        file.sync_all().unwrap();
        let mut expected = large()[..100].to_vec();
        expected[16..23].copy_from_slice(b"WRITTEN");
        expected.resize(200, 0);
        let mut found = vec![0; 200];
        assert_eq!(reader.read_at(&mut found, 0).unwrap(), 200);
        assert!(found == expected);
    });
}

#[test]
fn each_change_works_first_on_a_file_without_a_name() {
    everywhere(|place| {
        without_name(place, "chmod", |file| {
            file.set_permissions(fs::Permissions::from_mode(0o606)).unwrap();
            assert_eq!(file.metadata().unwrap().mode(), 0o100_606);
        });
        without_name(place, "times", |file| {
            file.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)).unwrap();
            assert_eq!(file.metadata().unwrap().mtime(), 0);
        });
        without_name(place, "xattr", |file| {
            file.set_xattr("user.note", b"value").unwrap();
            assert_eq!(file.list_xattr().unwrap().count(), 1);
            file.remove_xattr("user.note").unwrap();
        });
        without_name(place, "append", |file| file.write_all_at(b"x", 6).unwrap());
        without_name(place, "sync", |file| file.sync_all().unwrap());
        without_name(place, "reserve", |file| {
            nix::fcntl::fallocate(file, nix::fcntl::FallocateFlags::empty(), 0, 10).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 10);
        });
        without_name(place, "truncate", |file| {
            file.set_len(0).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 0);
        });
    });
}

/// Removes `dir/child`, changes it, and makes it again.
fn without_name(place: &Place, what: &str, change: impl FnOnce(&File)) {
    let file = open_both(place, "dir/child");
    let kept = place.path("dir/kept");
    fs::copy(place.path("dir/child"), &kept).unwrap();
    fs::remove_file(place.path("dir/child")).unwrap();
    change(&file);
    let stat = file.metadata().unwrap();
    assert_eq!(stat.nlink(), 0, "{what}");
    if stat.len() >= 6 {
        let mut start = [0; 6];
        file.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"child\n", "{what}");
    }
    fs::rename(kept, place.path("dir/child")).unwrap();
    assert_eq!(place.text("dir/child"), "child\n", "{what}");
}

#[test]
fn a_name_made_again_is_another_file_than_the_open_one() {
    everywhere(|place| {
        let old = open_both(place, "large");
        fs::remove_file(place.path("large")).unwrap();
        fs::write(place.path("large"), "new\n").unwrap();
        let ino = |file: &File| file.metadata().unwrap().ino();
        let new = open_both(place, "large");
        assert_ne!(ino(&old), ino(&new));
        old.write_all_at(b"OLD", 0).unwrap();
        new.write_all_at(b"NEW", 0).unwrap();
        assert_eq!(place.text("large"), "NEW\n");
        let mut start = [0; 6];
        old.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"OLD000");
        assert_eq!((old.metadata().unwrap().nlink(), new.metadata().unwrap().nlink()), (0, 1));
        let proc = fs::read_link(format!("/proc/self/fd/{}", old.as_raw_fd())).unwrap();
        assert!(proc.to_str().unwrap().ends_with("/large (deleted)"), "{}", proc.display());
    });
}

#[test]
fn a_file_that_is_replaced_while_open_works_in_full() {
    everywhere(|place| {
        let old = open_both(place, "dir/child");
        fs::rename(place.path("large"), place.path("dir/child")).unwrap();
        old.write_all_at(b"CH", 0).unwrap();
        old.set_len(4).unwrap();
        old.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        let stat = old.metadata().unwrap();
        assert_eq!((stat.nlink(), stat.len(), stat.mode()), (0, 4, 0o100_600));
        assert!(fs::read(place.path("dir/child")).unwrap() == large());
        assert_eq!(place.stat("dir/child").mode(), 0o100_644);
    });
}
