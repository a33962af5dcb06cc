//! Times of files.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, futimens, utimensat};
use nix::sys::time::TimeSpec;

use crate::common::{Place, everywhere, refused};

fn set(place: &Place, name: &str, atime: TimeSpec, mtime: TimeSpec) -> nix::Result<()> {
    utimensat(AT_FDCWD, &place.path(name), &atime, &mtime, UtimensatFlags::NoFollowSymlink)
}

fn mtime(place: &Place, name: &str) -> (i64, i64) {
    let stat = place.stat(name);
    (stat.mtime(), stat.mtime_nsec())
}

fn atime(place: &Place, name: &str) -> (i64, i64) {
    let stat = place.stat(name);
    (stat.atime(), stat.atime_nsec())
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    everywhere(|place| {
        for name in ["file", "large", "dir", "dir/sub", "link", "empty"] {
            let (first, second) = (TimeSpec::new(123, 456_789_012), TimeSpec::new(1 << 33, 1));
            set(place, name, first, second).unwrap();
            assert_eq!(atime(place, name), (123, 456_789_012), "{name}");
            assert_eq!(mtime(place, name), (1 << 33, 1), "{name}");
            set(place, name, TimeSpec::new(-1, 500_000_000), TimeSpec::new(-2, 1)).unwrap();
            assert_eq!((atime(place, name), mtime(place, name)), ((-1, 500_000_000), (-2, 1)));
            set(place, name, first, second).unwrap();
            set(place, name, TimeSpec::UTIME_OMIT, TimeSpec::new(7, 999_999_999)).unwrap();
            assert_eq!(atime(place, name), (123, 456_789_012), "{name}");
            assert_eq!(mtime(place, name), (7, 999_999_999), "{name}");
            set(place, name, TimeSpec::new(9, 8), TimeSpec::UTIME_OMIT).unwrap();
            assert_eq!((atime(place, name), mtime(place, name)), ((9, 8), (7, 999_999_999)));
            set(place, name, TimeSpec::UTIME_OMIT, TimeSpec::UTIME_OMIT).unwrap();
            assert_eq!((atime(place, name), mtime(place, name)), ((9, 8), (7, 999_999_999)));
        }
        assert_eq!(mtime(place, "hard"), mtime(place, "file"));
        assert_eq!(place.text("hard"), "content\n");
        let missing = set(place, "missing", TimeSpec::new(0, 0), TimeSpec::new(0, 0));
        assert_eq!(refused(missing), Errno::ENOENT);
        let wrong = set(place, "file", TimeSpec::new(0, 1_000_000_000), TimeSpec::new(0, 0));
        assert_eq!(refused(wrong), Errno::EINVAL);
    });
}

#[test]
fn now_is_now() {
    everywhere(|place| {
        let zero = TimeSpec::new(0, 0);
        for name in ["file", "dir"] {
            set(place, name, zero, zero).unwrap();
            set(place, name, TimeSpec::UTIME_NOW, zero).unwrap();
            assert!(atime(place, name) > (1_000_000_000, 0), "{name}");
            assert_eq!(mtime(place, name), (0, 0), "{name}");
            set(place, name, zero, TimeSpec::UTIME_NOW).unwrap();
            assert!(mtime(place, name) > (1_000_000_000, 0), "{name}");
            assert_eq!(atime(place, name), (0, 0), "{name}");
        }
        // A handle that only reads will do.
        futimens(File::open(place.path("large")).unwrap(), &zero, &zero).unwrap();
        assert_eq!((atime(place, "large"), mtime(place, "large")), ((0, 0), (0, 0)));
    });
}

#[test]
fn changing_a_file_changes_its_times_and_reading_it_not_that_of_change() {
    everywhere(|place| {
        let zero = TimeSpec::new(0, 0);
        let changes = |what: &str, name: &str, change: &dyn Fn()| {
            set(place, name, zero, zero).unwrap();
            assert_eq!(mtime(place, name), (0, 0));
            change();
            assert!(mtime(place, name) > (0, 0), "{what} does not change mtime");
            assert!(place.stat(name).ctime() > 0, "{what} does not change ctime");
        };
        let open = |name: &str| File::options().write(true).open(place.path(name)).unwrap();
        changes("write", "file", &|| open("file").write_all_at(b"x", 0).unwrap());
        changes("truncate", "large", &|| open("large").set_len(10).unwrap());
        changes("truncate to the same size", "large", &|| open("large").set_len(10).unwrap());
        changes("O_TRUNC", "dir/child", &|| drop(File::create(place.path("dir/child")).unwrap()));
        changes("fallocate", "file", &|| {
            nix::fcntl::fallocate(open("file"), nix::fcntl::FallocateFlags::empty(), 0, 99)
                .unwrap();
        });

        set(place, "dir/sub/grandchild", zero, TimeSpec::new(5, 6)).unwrap();
        assert_eq!(place.text("dir/sub/grandchild"), "grandchild\n");
        let grandchild = place.path("dir/sub/grandchild");
        fs::set_permissions(&grandchild, fs::Permissions::from_mode(0o600)).unwrap();
        xattr::set(&grandchild, "user.note", b"value").unwrap();
        fs::rename(&grandchild, place.path("moved")).unwrap();
        assert_eq!(mtime(place, "moved"), (5, 6));
    });
}

#[test]
fn times_that_were_set_outlive_writes_that_came_before() {
    everywhere(|place| {
        // As tar and cp -p do it: write, set the times through the handle, close.
        for name in ["new", "file", "large"] {
            let mut options = File::options();
            options.write(true).create(true).truncate(true);
            let file = options.open(place.path(name)).unwrap();
            file.write_all_at(b"bytes", 0).unwrap();
            futimens(&file, &TimeSpec::new(1, 2), &TimeSpec::new(3, 4)).unwrap();
            assert_eq!(file.metadata().unwrap().mtime(), 3);
            drop(file);
            assert_eq!((atime(place, name), mtime(place, name)), ((1, 2), (3, 4)), "{name}");
        }
    });
}
