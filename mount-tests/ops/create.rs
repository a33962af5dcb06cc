//! Making files.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};

use crate::common::{Who, everywhere};

#[test]
fn a_new_file_is_there_with_its_mode_and_owner() {
    everywhere(|place| {
        File::options().write(true).create_new(true).mode(0o600).open(place.path("new")).unwrap();
        let metadata = place.stat("new");
        assert_eq!(metadata.mode(), 0o100_600);
        assert_eq!(metadata.nlink(), 1);
        assert_eq!(metadata.len(), 0);
        assert!(place.names("").contains(&"new".to_owned()));
    });
}

#[test]
fn creating_what_exists_is_refused_and_changes_nothing() {
    everywhere(|place| {
        let again = File::options().write(true).create_new(true).open(place.path("file"));
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(place.text("file"), "content\n");
        assert_eq!(fs::create_dir(place.path("dir")).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(place.stat("file").permissions().mode(), 0o100_644);
    });
}

#[test]
fn making_a_device_node_is_for_root() {
    everywhere(|place| {
        let made = nix::sys::stat::mknod(
            &place.path("null"),
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::from_bits_truncate(0o666),
            nix::sys::stat::makedev(1, 3),
        );
        if place.who == Who::Root {
            made.unwrap();
            assert_eq!(place.stat("null").rdev(), nix::sys::stat::makedev(1, 3));
        } else {
            assert_eq!(made, Err(nix::errno::Errno::EPERM));
        }
    });
}

/// To the upper such a device is a whiteout.
#[test]
fn a_device_with_the_number_of_a_whiteout_is_a_device_like_any_other() {
    everywhere(|place| {
        if place.who != Who::Root {
            return;
        }
        let make = |name: &str| {
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o640);
            nix::sys::stat::mknod(&place.path(name), nix::sys::stat::SFlag::S_IFCHR, mode, 0)
        };
        make("zero").unwrap();
        fs::remove_file(place.path("dir/child")).unwrap();
        make("dir/child").unwrap();
        fs::rename(place.path("zero"), place.path("empty/moved")).unwrap();
        fs::hard_link(place.path("empty/moved"), place.path("again")).unwrap();
        for name in ["dir/child", "empty/moved", "again"] {
            let metadata = place.stat(name);
            assert_eq!((metadata.mode(), metadata.rdev()), (0o020_640, 0), "{name}");
            assert_eq!(xattr::list(place.path(name)).unwrap().count(), 0, "{name}");
        }
        assert_eq!(place.names("dir"), ["child", "sub"]);
        fs::remove_file(place.path("dir/child")).unwrap();
        assert_eq!(place.names("dir"), ["sub"]);
    });
}
