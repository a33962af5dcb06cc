//! Permissions: changing them, what changes them, and what they permit.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, fchown, lchown};
use std::process::Command;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::common::{Place, Who, everywhere, refused, run};

fn chmod(place: &Place, name: &str, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode))
}

fn mode(place: &Place, name: &str) -> u32 {
    place.stat(name).mode() & 0o7777
}

#[test]
fn chmod_sets_all_permissions_and_nothing_else() {
    everywhere(|place| {
        for name in ["file", "large", "dir", "dir/sub", "empty"] {
            let before = place.stat(name);
            for wanted in [0o600, 0o7777, 0o4755, 0o2755, 0o1777, 0o700, 0o711] {
                chmod(place, name, wanted).unwrap();
                assert_eq!(mode(place, name), wanted, "{name}");
            }
            let after = place.stat(name);
            assert_eq!((after.ino(), after.mtime()), (before.ino(), before.mtime()), "{name}");
            assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()), "{name}");
        }
        assert_eq!(mode(place, "hard"), 0o711);
        chmod(place, "link", 0o644).unwrap();
        assert_eq!((mode(place, "file"), mode(place, "link")), (0o644, 0o777));
        assert_eq!((place.text("hard"), place.names("dir").len()), ("content\n".into(), 2));
        let file = File::open(place.path("file")).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!((mode(place, "hard"), file.metadata().unwrap().mode()), (0o640, 0o100_640));
        assert_eq!(refused(chmod(place, "missing", 0o600)), Errno::ENOENT);
    });
}

#[test]
fn changing_hands_takes_set_uid_and_set_gid_away() {
    everywhere(|place| {
        if !place.may_chown() {
            assert_eq!(refused(chown(place.path("file"), Some(1), None)), Errno::EPERM);
            return;
        }
        for (before, after) in
            [(0o6755, 0o755), (0o2644, 0o2644), (0o4644, 0o644), (0o1755, 0o1755)]
        {
            chmod(place, "file", before).unwrap();
            chown(place.path("file"), Some(7), Some(8)).unwrap();
            assert_eq!(mode(place, "file"), after, "from {before:o}");
        }
        assert_eq!((place.stat("hard").uid(), place.stat("hard").gid()), (7, 8));
        fchown(File::open(place.path("large")).unwrap(), Some(9), None).unwrap();
        assert_eq!(place.stat("large").uid(), 9);
        chmod(place, "dir", 0o6755).unwrap();
        chown(place.path("dir"), Some(7), Some(8)).unwrap();
        assert_eq!((mode(place, "dir"), place.stat("dir").gid()), (0o6755, 8));
        assert_eq!(place.names("dir"), ["child", "sub"]);
        lchown(place.path("link"), Some(10), Some(11)).unwrap();
        assert_eq!((place.stat("link").uid(), place.stat("link").gid()), (10, 11));
        assert_eq!(fs::read_link(place.path("link")).unwrap().to_str(), Some("file"));
        assert_eq!(place.stat("file").uid(), 7);
        chown(place.path("link"), Some(12), None).unwrap();
        assert_eq!((place.stat("file").uid(), place.stat("link").uid()), (12, 10));
        chown(place.path("file"), None, None).unwrap();
        assert_eq!((place.stat("file").uid(), place.stat("file").gid()), (12, 8));
    });
}

#[test]
fn who_is_not_root_loses_set_uid_and_set_gid_by_writing() {
    everywhere(|place| {
        for (name, change) in [
            ("file", (|file| file.write_all_at(b"x", 0)) as fn(&File) -> std::io::Result<()>),
            ("large", |file| file.set_len(5)),
        ] {
            chmod(place, name, 0o6777).unwrap();
            place.as_user(|| {
                change(&File::options().write(true).open(place.path(name)).unwrap()).unwrap();
            });
            assert_eq!(mode(place, name), 0o777, "{name}");
        }
        chmod(place, "dir/child", 0o6777).unwrap();
        place.as_user(|| drop(File::create(place.path("dir/child")).unwrap()));
        assert_eq!(mode(place, "dir/child"), 0o777, "O_TRUNC");
        if place.who == Who::Root {
            chmod(place, "file", 0o6777).unwrap();
            File::options()
                .write(true)
                .open(place.path("file"))
                .unwrap()
                .write_all_at(b"x", 0)
                .unwrap();
            assert_eq!(mode(place, "file"), 0o6777, "root keeps them");
        }
    });
}

#[test]
fn permissions_are_enforced_for_an_ordinary_user() {
    everywhere(|place| {
        // Whoever mounts without privilege is root to the files, as in a container.
        if place.is_theirs() {
            chmod(place, "file", 0).unwrap();
            assert_eq!(place.text("file"), "content\n");
            return;
        }
        chmod(place, "file", 0).unwrap();
        chmod(place, "large", 0o444).unwrap();
        chmod(place, "dir", 0o555).unwrap();
        chmod(place, "empty", 0o666).unwrap();
        place.as_user(|| {
            assert_eq!(refused(File::open(place.path("file"))), Errno::EACCES);
            let write = |name: &str| File::options().write(true).open(place.path(name));
            assert_eq!(refused(write("large")), Errno::EACCES);
            File::open(place.path("large")).unwrap();
            assert_eq!(refused(fs::write(place.path("dir/new"), "")), Errno::EACCES);
            assert_eq!(refused(fs::remove_file(place.path("dir/child"))), Errno::EACCES);
            assert_eq!(refused(fs::metadata(place.path("empty/any"))), Errno::EACCES);
            let may = |name: &str, how| access(&place.path(name), how);
            assert_eq!(may("file", AccessFlags::F_OK), Ok(()));
            assert_eq!(may("file", AccessFlags::R_OK), Err(Errno::EACCES));
            assert_eq!(may("large", AccessFlags::R_OK), Ok(()));
            assert_eq!(may("large", AccessFlags::W_OK), Err(Errno::EACCES));
            assert_eq!(may("dir", AccessFlags::R_OK | AccessFlags::X_OK), Ok(()));
            assert_eq!(may("dir", AccessFlags::W_OK), Err(Errno::EACCES));
            assert_eq!(may("missing", AccessFlags::F_OK), Err(Errno::ENOENT));
        });
        if place.who == Who::Root {
            assert_eq!(place.text("file"), "content\n");
            assert_eq!(access(&place.path("large"), AccessFlags::W_OK), Ok(()));
            assert_eq!(access(&place.path("large"), AccessFlags::X_OK), Err(Errno::EACCES));
            place.as_user(|| {
                assert_eq!(refused(chmod(place, "large", 0o666)), Errno::EPERM);
                assert_eq!(refused(chown(place.path("large"), Some(65_534), None)), Errno::EPERM);
            });
        }
        chmod(place, "file", 0o644).unwrap();
        chmod(place, "empty", 0o755).unwrap();
        chmod(place, "dir", 0o755).unwrap();
    });
}

#[test]
fn in_a_sticky_directory_others_keep_their_files() {
    everywhere(|place| {
        if place.who == Who::User {
            // It takes two users, and root to become the second.
            return;
        }
        chmod(place, "dir", 0o1777).unwrap();
        place.as_user(|| {
            let child = place.path("dir/child");
            assert_eq!(refused(fs::remove_file(&child)), Errno::EPERM);
            assert_eq!(refused(fs::rename(&child, place.path("dir/moved"))), Errno::EPERM);
            fs::write(place.path("dir/own"), "own\n").unwrap();
            assert_eq!(refused(fs::rename(place.path("dir/own"), &child)), Errno::EPERM);
            fs::remove_file(place.path("dir/own")).unwrap();
        });
        chmod(place, "dir", 0o777).unwrap();
        place.as_user(|| fs::remove_file(place.path("dir/child")).unwrap());
        assert_eq!(place.names("dir"), ["sub"]);
    });
}

#[test]
fn what_a_set_gid_directory_holds_has_its_group() {
    everywhere(|place| {
        if !place.may_chown() {
            return;
        }
        chown(place.path("dir"), None, Some(1234)).unwrap();
        chmod(place, "dir", 0o2777).unwrap();
        File::create(place.path("dir/file")).unwrap();
        fs::create_dir(place.path("dir/made")).unwrap();
        fs::create_dir(place.path("dir/made/below")).unwrap();
        std::os::unix::fs::symlink("x", place.path("dir/symlink")).unwrap();
        // Where a name was removed before, too.
        fs::remove_file(place.path("dir/child")).unwrap();
        fs::write(place.path("dir/child"), "").unwrap();
        for name in ["file", "made", "made/below", "symlink", "child"] {
            assert_eq!(place.stat(&format!("dir/{name}")).gid(), 1234, "{name}");
        }
        for name in ["dir/made", "dir/made/below"] {
            assert_eq!(mode(place, name), 0o2755, "{name}");
        }
        assert_eq!(mode(place, "dir/file"), 0o644);
        assert_eq!(place.stat("dir/sub").gid(), place.stat("file").gid());
    });
}

#[test]
fn the_umask_of_the_caller_takes_permissions_away() {
    everywhere(|place| {
        // A process has one umask for all its threads, so another process makes the files.
        let script = "umask 077; mkdir made dir/sub2; : > new; mkfifo fifo; rm file; : > file
                      umask 0; mkdir open; : > all; umask 027; : > some; rm -r dir/sub; mkdir dir/sub";
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(place.path(""));
        assert_eq!(run(place.who.run(&mut command)).code, 0);
        for (name, expected) in [
            ("made", 0o700),
            ("dir/sub2", 0o700),
            ("new", 0o600),
            ("fifo", 0o600),
            ("file", 0o600),
            ("open", 0o777),
            ("all", 0o666),
            ("some", 0o640),
            ("dir/sub", 0o750),
        ] {
            assert_eq!(mode(place, name), expected, "{name}");
        }
    });
}

#[test]
fn what_an_ordinary_user_makes_is_theirs() {
    everywhere(|place| {
        // What the one makes who mounted it without privilege is the image's root's.
        let theirs = if place.is_theirs() { 0 } else { 65_534 };
        chmod(place, "dir", 0o777).unwrap();
        chmod(place, "dir/sub", 0o777).unwrap();
        place.as_user(|| {
            fs::write(place.path("dir/new"), "").unwrap();
            fs::create_dir(place.path("dir/sub/made")).unwrap();
            std::os::unix::fs::symlink("x", place.path("dir/symlink")).unwrap();
        });
        for name in ["dir/new", "dir/sub/made", "dir/symlink"] {
            let stat = place.stat(name);
            assert_eq!((stat.uid(), stat.gid()), (theirs, theirs), "{name}");
        }
    });
}
