//! Making and removing directories.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::errno::Errno;

use crate::common::{Place, everywhere, refused};

#[test]
fn directories_are_made_and_filled_at_any_depth() {
    everywhere(|place| {
        let deep = "dir/sub/1/2/3/4/5/6/7/8";
        fs::create_dir_all(place.path(deep)).unwrap();
        fs::write(place.path(deep).join("file"), "deep\n").unwrap();
        assert_eq!(place.text(&format!("{deep}/file")), "deep\n");
        assert_eq!(place.names("dir/sub"), ["1", "grandchild"]);
        assert_eq!(place.text("dir/sub/grandchild"), "grandchild\n");
        fs::remove_dir_all(place.path("dir/sub/1")).unwrap();
        assert_eq!(place.names("dir/sub"), ["grandchild"]);
    });
}

#[test]
fn a_directory_that_cannot_be_made_is_refused() {
    everywhere(|place| {
        let make = |name: &str| fs::create_dir(place.path(name));
        for taken in ["dir", "file", "link", "dir/child", "."] {
            assert_eq!(refused(make(taken)), Errno::EEXIST, "{taken}");
        }
        assert_eq!(refused(make("missing/new")), Errno::ENOENT);
        assert_eq!(refused(make("file/new")), Errno::ENOTDIR);
        make("new/").unwrap();
        assert!(place.stat("new").is_dir());
    });
}

#[test]
fn a_directory_that_cannot_be_removed_is_refused() {
    everywhere(|place| {
        let remove = |name: &str| fs::remove_dir(place.path(name));
        for full in ["dir", "dir/sub", ""] {
            assert_eq!(refused(remove(full)), Errno::ENOTEMPTY, "{full}");
        }
        assert_eq!(refused(remove("file")), Errno::ENOTDIR);
        assert_eq!(refused(remove("link")), Errno::ENOTDIR);
        assert_eq!(refused(remove("missing")), Errno::ENOENT);
        assert_eq!(refused(remove("empty/.")), Errno::EINVAL);
        assert_eq!(refused(remove("dir/sub/..")), Errno::ENOTEMPTY);
        assert_eq!(place.names("dir"), ["child", "sub"]);
    });
}

#[test]
fn an_emptied_directory_can_be_removed_and_made_again_empty() {
    everywhere(|place| {
        fs::remove_file(place.path("dir/sub/grandchild")).unwrap();
        assert_eq!(refused(fs::remove_dir(place.path("dir"))), Errno::ENOTEMPTY);
        fs::remove_dir(place.path("dir/sub")).unwrap();
        fs::remove_file(place.path("dir/child")).unwrap();
        assert_eq!(place.names("dir"), [""; 0]);
        fs::remove_dir(place.path("dir")).unwrap();
        assert!(!place.path("dir").exists());
        fs::create_dir(place.path("dir")).unwrap();
        assert_eq!(place.names("dir"), [""; 0]);
        assert!(!place.path("dir/child").exists());
        // The names below are free, for a file where a directory was and the other way.
        fs::write(place.path("dir/sub"), "a file now\n").unwrap();
        fs::create_dir(place.path("dir/child")).unwrap();
        assert_eq!(place.names("dir"), ["child", "sub"]);
        assert_eq!(place.names("dir/child"), [""; 0]);
        fs::remove_dir_all(place.path("dir")).unwrap();
        fs::write(place.path("dir"), "a file too\n").unwrap();
        assert_eq!(place.text("dir"), "a file too\n");
        fs::remove_file(place.path("dir")).unwrap();
        fs::create_dir(place.path("dir")).unwrap();
        fs::write(place.path("dir/new"), "").unwrap();
        assert_eq!(place.names("dir"), ["new"]);
    });
}

#[test]
fn links_of_a_directory_count_its_subdirectories() {
    everywhere(|place| {
        let links = |name: &str| place.stat(name).nlink();
        assert_eq!([links("dir"), links("dir/sub"), links("empty")], [3, 2, 2]);
        let above = links("");
        fs::create_dir(place.path("dir/two")).unwrap();
        fs::write(place.path("dir/file"), "").unwrap();
        assert_eq!(links("dir"), 4);
        fs::remove_file(place.path("dir/sub/grandchild")).unwrap();
        fs::remove_dir(place.path("dir/sub")).unwrap();
        assert_eq!(links("dir"), 3);
        fs::rename(place.path("dir/two"), place.path("two")).unwrap();
        assert_eq!((links("dir"), links("")), (2, above + 1));
        fs::rename(place.path("two"), place.path("empty")).unwrap();
        assert_eq!(links(""), above);
        fs::create_dir(place.path("dir/sub")).unwrap();
        assert_eq!((links("dir"), links("dir/sub")), (3, 2));
    });
}

#[test]
fn a_directory_that_is_open_and_removed_takes_nothing_more() {
    everywhere(|place| {
        let open = File::open(place.path("empty")).unwrap();
        let here =
            |name: &str| format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&open));
        fs::remove_dir(place.path("empty")).unwrap();
        assert_eq!(open.metadata().unwrap().nlink(), 0);
        assert_eq!(refused(fs::write(here("new"), "")), Errno::ENOENT);
        assert_eq!(refused(fs::create_dir(here("new"))), Errno::ENOENT);
        assert_eq!(refused(fs::metadata(here("new"))), Errno::ENOENT);
        assert_eq!(fs::read_dir(here("")).unwrap().count(), 0);
        open.set_permissions(fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(open.metadata().unwrap().mode(), 0o040_700);
        fs::create_dir(place.path("empty")).unwrap();
        assert_eq!(fs::read_dir(here("")).unwrap().count(), 0);
        assert_ne!(open.metadata().unwrap().ino(), place.stat("empty").ino());
    });
}

#[test]
fn times_of_a_directory_change_with_its_names() {
    everywhere(|place| {
        fs::create_dir(place.path("dir/two")).unwrap();
        changes_times(place, "create", || fs::write(place.path("dir/new"), "").unwrap());
        changes_times(place, "mkdir", || fs::create_dir(place.path("dir/made")).unwrap());
        changes_times(place, "link", || {
            fs::hard_link(place.path("file"), place.path("dir/linked")).unwrap();
        });
        changes_times(place, "symlink", || {
            std::os::unix::fs::symlink("x", place.path("dir/symlink")).unwrap();
        });
        changes_times(place, "unlink", || fs::remove_file(place.path("dir/child")).unwrap());
        changes_times(place, "rmdir", || fs::remove_dir(place.path("dir/two")).unwrap());
        changes_times(place, "rename in", || {
            fs::rename(place.path("file"), place.path("dir/file")).unwrap();
        });
        changes_times(place, "rename out", || {
            fs::rename(place.path("dir/sub"), place.path("sub")).unwrap();
        });
        let before = times(place);
        fs::write(place.path("dir/new"), "content changes no names").unwrap();
        fs::set_permissions(place.path("dir/new"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(times(place), before);
    });
}

fn times(place: &Place) -> (i64, i64, i64, i64) {
    let stat = place.stat("dir");
    (stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec())
}

fn changes_times(place: &Place, what: &str, work: impl FnOnce()) {
    let dir = File::open(place.path("dir")).unwrap();
    dir.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)).unwrap();
    assert_eq!(place.stat("dir").mtime(), 0);
    work();
    let stat = place.stat("dir");
    assert!(stat.mtime() > 0, "{what} does not change mtime");
    assert!(stat.ctime() > 0, "{what} does not change ctime");
}
