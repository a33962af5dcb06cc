//! Making things durable, and asking how much room there is.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use nix::sys::statfs::{fstatfs, statfs};
use nix::sys::statvfs::statvfs;
use nix::unistd::{fdatasync, fsync, syncfs};

use crate::common::{Layer, everywhere, large};

#[test]
fn everything_can_be_synced_changed_or_not() {
    everywhere(|place| {
        for name in ["file", "large", "dir", "dir/child", "empty", ""] {
            let file = File::open(place.path(name)).unwrap();
            fsync(&file).unwrap();
            fdatasync(&file).unwrap();
            syncfs(&file).unwrap();
        }
        let file = File::options().write(true).open(place.path("large")).unwrap();
        let reader = File::open(place.path("large")).unwrap();
        file.write_all_at(b"CHANGED", 0).unwrap();
        fdatasync(&file).unwrap();
        fsync(&reader).unwrap();
        fs::write(place.path("dir/new"), "new\n").unwrap();
        fsync(File::open(place.path("dir")).unwrap()).unwrap();
        fs::remove_file(place.path("large")).unwrap();
        fsync(&file).unwrap();
        xattr::set(place.path("dir/child"), "user.note", b"x").unwrap();
        fsync(File::open(place.path("dir/child")).unwrap()).unwrap();
        let mut start = [0; 16];
        reader.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(start[7..], large()[7..16]);
    });
}

#[test]
fn the_state_of_the_file_system_makes_sense() {
    everywhere(|place| {
        let state = statfs(&place.path("file")).unwrap();
        assert!(state.blocks() > 0 && state.block_size() > 0);
        assert!(state.blocks_free() <= state.blocks());
        assert!(state.blocks_available() <= state.blocks_free());
        assert!(state.files_free() <= state.files());
        assert_eq!(state.maximum_name_length(), 255);
        let open = fstatfs(File::open(place.path("dir")).unwrap()).unwrap();
        assert_eq!(open.blocks(), state.blocks());
        let state = statvfs(&place.path("")).unwrap();
        assert!(state.fragment_size() > 0);
        assert_eq!(state.name_max(), 255);
        if place.layer != Layer::Plain {
            // What a mount shows is the room for its changes.
            let below = statvfs(&std::env::temp_dir()).unwrap();
            let bytes = |state: nix::sys::statvfs::Statvfs| state.blocks() * state.fragment_size();
            assert_eq!(bytes(state), bytes(below));
        }
    });
}
