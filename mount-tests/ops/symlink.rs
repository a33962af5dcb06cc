//! Symbolic links.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use nix::errno::Errno;

use crate::common::{everywhere, refused};

#[test]
fn a_link_holds_what_it_was_made_with() {
    everywhere(|place| {
        let longest = "x/".repeat(2_047) + "y";
        assert_eq!(longest.len(), 4_095);
        for (number, target) in ["a", "../up", "/", "with space\nand line", "dir/", ".", &longest]
            .into_iter()
            .enumerate()
        {
            let name = format!("link-{number}");
            symlink(target, place.path(&name)).unwrap();
            assert_eq!(fs::read_link(place.path(&name)).unwrap(), Path::new(target));
            let stat = place.stat(&name);
            assert_eq!((stat.len(), stat.nlink()), (target.len() as u64, 1));
            assert_eq!(stat.mode(), 0o120_777);
        }
        assert_eq!(place.stat("link").len(), 4);
        assert_eq!(refused(symlink(longest + "z", place.path("longer"))), Errno::ENAMETOOLONG);
        assert_eq!(refused(symlink("", place.path("none"))), Errno::ENOENT);
        assert_eq!(refused(symlink("x", place.path("file"))), Errno::EEXIST);
        assert_eq!(refused(symlink("x", place.path("link"))), Errno::EEXIST);
        assert_eq!(refused(fs::read_link(place.path("file"))), Errno::EINVAL);
        assert_eq!(refused(fs::read_link(place.path("dir"))), Errno::EINVAL);
        assert_eq!(refused(fs::read_link(place.path("missing"))), Errno::ENOENT);
    });
}

#[test]
fn links_lead_through_directories_and_to_nothing() {
    everywhere(|place| {
        symlink("dir", place.path("to-dir")).unwrap();
        symlink("../to-dir/sub", place.path("empty/to-sub")).unwrap();
        symlink(place.path("file"), place.path("absolute")).unwrap();
        assert_eq!(place.text("to-dir/child"), "child\n");
        assert_eq!(place.text("empty/to-sub/grandchild"), "grandchild\n");
        assert_eq!(place.text("absolute"), "content\n");
        fs::write(place.path("empty/to-sub/new"), "new\n").unwrap();
        assert_eq!(place.text("dir/sub/new"), "new\n");
        assert_eq!(refused(fs::remove_dir(place.path("to-dir/"))), Errno::ENOTDIR);
        assert!(place.stat("to-dir").is_symlink());

        symlink("nowhere", place.path("dangling")).unwrap();
        assert_eq!(refused(fs::metadata(place.path("dangling"))), Errno::ENOENT);
        fs::write(place.path("dangling"), "there now\n").unwrap();
        assert_eq!(place.text("nowhere"), "there now\n");
        assert_eq!(refused(fs::create_dir(place.path("dangling"))), Errno::EEXIST);
    });
}

#[test]
fn links_that_lead_in_a_circle_are_refused() {
    everywhere(|place| {
        symlink("two", place.path("one")).unwrap();
        symlink("one", place.path("two")).unwrap();
        symlink("self/below", place.path("self")).unwrap();
        for name in ["one", "two", "self", "one/below"] {
            assert_eq!(refused(fs::metadata(place.path(name))), Errno::ELOOP, "{name}");
            assert_eq!(refused(fs::write(place.path(name), "")), Errno::ELOOP, "{name}");
        }
        fs::remove_file(place.path("two")).unwrap();
        symlink("file", place.path("two")).unwrap();
        assert_eq!(place.text("one"), "content\n");
    });
}

#[test]
fn a_link_is_removed_and_its_target_stays() {
    everywhere(|place| {
        fs::remove_file(place.path("link")).unwrap();
        assert_eq!(place.text("file"), "content\n");
        symlink("large", place.path("link")).unwrap();
        assert_eq!(fs::read_link(place.path("link")).unwrap(), Path::new("large"));
        fs::remove_file(place.path("link")).unwrap();
        fs::write(place.path("link"), "a file now\n").unwrap();
        assert_eq!(place.text("file"), "content\n");
        assert_eq!(place.text("link"), "a file now\n");
    });
}
