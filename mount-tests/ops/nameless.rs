//! Files without a name (`O_TMPFILE`).

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::linkat;

use crate::common::{Place, everywhere, refused};

fn nameless(place: &Place, dir: &str, flags: OFlag) -> std::io::Result<File> {
    let flags = (OFlag::O_TMPFILE | flags).bits();
    File::options().read(true).write(true).mode(0o640).custom_flags(flags).open(place.path(dir))
}

fn name(place: &Place, file: &File, name: &str) -> nix::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = AtFlags::AT_SYMLINK_FOLLOW;
    linkat(AT_FDCWD, path.as_str(), AT_FDCWD, &place.path(name), flags)
}

#[test]
fn a_file_without_a_name_works_in_full_and_shows_nowhere() {
    everywhere(|place| {
        for dir in ["dir", "empty", ""] {
            let before = place.names(dir);
            let mut file = nameless(place, dir, OFlag::empty()).unwrap();
            let metadata = file.metadata().unwrap();
            assert_eq!((metadata.nlink(), metadata.len()), (0, 0));
            assert_eq!(metadata.mode(), 0o100_640);
            file.write_all(b"nobody sees this").unwrap();
            file.set_len(6).unwrap();
            file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
            let metadata = file.metadata().unwrap();
            assert_eq!((metadata.len(), metadata.mode()), (6, 0o100_600));
            file.rewind().unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "nobody");
            file.sync_all().unwrap();
            assert_eq!(place.names(dir), before);
        }
        let two = [nameless(place, "dir", OFlag::empty()), nameless(place, "dir", OFlag::empty())];
        let [first, second] = two.map(Result::unwrap);
        assert_ne!(first.metadata().unwrap().ino(), second.metadata().unwrap().ino());
        assert_eq!(refused(nameless(place, "file", OFlag::empty())), Errno::ENOTDIR);
        assert_eq!(refused(nameless(place, "missing", OFlag::empty())), Errno::ENOENT);
    });
}

#[test]
fn a_file_without_a_name_is_given_one_when_it_is_ready() {
    everywhere(|place| {
        fs::remove_file(place.path("dir/child")).unwrap();
        for new in ["dir/child", "empty/new", "new"] {
            let mut file = nameless(place, "dir", OFlag::empty()).unwrap();
            file.write_all(b"ready\n").unwrap();
            assert_eq!(refused(name(place, &file, "file")), Errno::EEXIST);
            name(place, &file, new).unwrap();
            assert_eq!(place.text(new), "ready\n");
            let (metadata, stat) = (file.metadata().unwrap(), place.stat(new));
            assert_eq!((metadata.ino(), metadata.nlink()), (stat.ino(), 1));
            assert_eq!(stat.mode(), 0o100_640);
            file.write_at(b"R", 0).unwrap();
            assert_eq!(place.text(new), "Ready\n");
            name(place, &file, &format!("{new}-2")).unwrap();
            assert_eq!(place.stat(new).nlink(), 2);
            fs::remove_file(place.path(new)).unwrap();
            fs::rename(place.path(&format!("{new}-2")), place.path(new)).unwrap();
            assert_eq!(place.text(new), "Ready\n");
        }
        let exclusive = nameless(place, "dir", OFlag::O_EXCL).unwrap();
        assert_eq!(refused(name(place, &exclusive, "dir/never")), Errno::ENOENT);
    });
}
