//! Opening: what each flag of open(2) asks for, and what it refuses.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use nix::errno::Errno;

use crate::common::{everywhere, large, refused};

fn with_flags(flags: i32) -> OpenOptions {
    let mut options = File::options();
    options.read(true).custom_flags(flags);
    options
}

#[test]
fn opening_what_is_something_else_is_refused() {
    everywhere(|place| {
        let open = |name: &str, flags| with_flags(flags).open(place.path(name));
        assert_eq!(refused(open("link", libc::O_NOFOLLOW)), Errno::ELOOP);
        assert_eq!(refused(open("file", libc::O_DIRECTORY)), Errno::ENOTDIR);
        assert_eq!(refused(open("link", libc::O_DIRECTORY)), Errno::ENOTDIR);
        assert_eq!(refused(open("file/below", 0)), Errno::ENOTDIR);
        assert_eq!(refused(open("file/", 0)), Errno::ENOTDIR);
        assert_eq!(refused(open("missing", 0)), Errno::ENOENT);
        assert_eq!(refused(open("missing/below", 0)), Errno::ENOENT);
        open("link", 0).unwrap();
        open("dir", libc::O_DIRECTORY).unwrap();
        let write = |name: &str| File::options().write(true).open(place.path(name));
        assert_eq!(refused(write("dir")), Errno::EISDIR);
        assert_eq!(refused(write("missing")), Errno::ENOENT);
        assert_eq!(refused(File::create(place.path("dir"))), Errno::EISDIR);
        assert_eq!(refused(File::create(place.path("missing/new"))), Errno::ENOENT);
        assert_eq!(refused(File::open(place.path("dir")).unwrap().read(&mut [0])), Errno::EISDIR);
        let path_only = open("file", libc::O_PATH).unwrap();
        assert_eq!(path_only.metadata().unwrap().ino(), place.stat("file").ino());
        assert_eq!(refused((&path_only).read(&mut [0])), Errno::EBADF);
    });
}

#[test]
fn exclusive_creation_takes_only_a_free_name() {
    everywhere(|place| {
        let create = |name: &str| File::create_new(place.path(name));
        for taken in ["file", "link", "dir", "dir/child"] {
            assert_eq!(refused(create(taken)), Errno::EEXIST, "{taken}");
        }
        fs::remove_file(place.path("file")).unwrap();
        // The link leads nowhere now, and is a name all the same.
        assert_eq!(refused(create("link")), Errno::EEXIST);
        create("file").unwrap().write_all(b"again\n").unwrap();
        assert_eq!(place.text("link"), "again\n");
        assert_eq!(place.text("hard"), "content\n");
        assert_ne!(place.stat("file").ino(), place.stat("hard").ino());
    });
}

#[test]
fn a_handle_does_what_it_was_opened_for_and_no_more() {
    everywhere(|place| {
        let mut reader = File::open(place.path("file")).unwrap();
        assert_eq!(refused(reader.write(b"x")), Errno::EBADF);
        assert_eq!(refused(reader.set_len(0)), Errno::EINVAL);
        let mut writer = File::options().write(true).open(place.path("file")).unwrap();
        assert_eq!(refused(writer.read(&mut [0])), Errno::EBADF);
        writer.write_all(b"CON").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "CONtent\n");
        assert_eq!(place.text("hard"), "CONtent\n");
    });
}

#[test]
fn truncation_on_opening_empties_the_file_under_all_its_names() {
    everywhere(|place| {
        let before = place.stat("file");
        let mut earlier = File::open(place.path("hard")).unwrap();
        let file = File::options().write(true).truncate(true).open(place.path("file")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
        assert_eq!(earlier.metadata().unwrap().len(), 0);
        assert_eq!(earlier.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(place.text("hard"), "");
        let after = place.stat("file");
        assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
        assert!((after.mtime(), after.mtime_nsec()) >= (before.mtime(), before.mtime_nsec()));

        File::create(place.path("large")).unwrap().write_all(b"small").unwrap();
        assert_eq!(place.text("large"), "small");
        // Even a handle that only reads may truncate.
        with_flags(libc::O_TRUNC).open(place.path("dir/child")).unwrap();
        assert_eq!(place.text("dir/child"), "");
    });
}

#[test]
fn creation_without_exclusion_opens_what_is_there() {
    everywhere(|place| {
        let open = |name: &str| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).open(place.path(name))
        };
        let mut text = String::new();
        open("link").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "content\n");
        assert_eq!(open("large").unwrap().metadata().unwrap().len(), large().len() as u64);
        open("dir/new").unwrap();
        assert_eq!(place.names("dir"), ["child", "new", "sub"]);
        std::os::unix::fs::symlink("dir/made", place.path("to")).unwrap();
        open("to").unwrap().write_all(b"through\n").unwrap();
        assert_eq!(place.text("dir/made"), "through\n");
    });
}

#[test]
fn a_file_opened_again_through_proc_is_the_same_file() {
    use std::os::fd::AsRawFd;
    everywhere(|place| {
        let reader = File::open(place.path("large")).unwrap();
        let proc = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let mut again = File::options().write(true).open(&proc).unwrap();
        again.write_all(b"AGAIN").unwrap();
        assert!(place.text("large").starts_with("AGAIN0000000000\n"));
        fs::remove_file(place.path("large")).unwrap();
        let mut start = [0; 5];
        // It has no name any more, and can be opened all the same.
        File::open(&proc).unwrap().read_exact(&mut start).unwrap();
        assert_eq!(&start, b"AGAIN");
    });
}
