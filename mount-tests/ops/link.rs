//! Hard links.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

use crate::common::{Layer, Place, Who, everywhere, large, refused};

fn link(place: &Place, from: &str, to: &str) -> std::io::Result<()> {
    fs::hard_link(place.path(from), place.path(to))
}

#[test]
fn all_names_of_a_file_are_the_same_file() {
    everywhere(|place| {
        let same = |names: &[&str], links| {
            let first = place.stat(names[0]);
            for name in names {
                let stat = place.stat(name);
                assert_eq!((stat.ino(), stat.nlink()), (first.ino(), links), "{name}");
                assert_eq!((stat.mode(), stat.len()), (first.mode(), first.len()), "{name}");
            }
        };
        same(&["file", "hard"], 2);
        link(place, "hard", "dir/third").unwrap();
        same(&["file", "hard", "dir/third"], 3);
        fs::write(place.path("dir/third"), "shared\n").unwrap();
        assert_eq!(
            (place.text("file"), place.text("hard")),
            ("shared\n".into(), "shared\n".into())
        );
        fs::set_permissions(place.path("file"), fs::Permissions::from_mode(0o640)).unwrap();
        same(&["file", "hard", "dir/third"], 3);
        fs::remove_file(place.path("file")).unwrap();
        same(&["hard", "dir/third"], 2);
        fs::write(place.path("file"), "another\n").unwrap();
        same(&["hard", "dir/third"], 2);
        assert_eq!(place.stat("file").nlink(), 1);
        fs::remove_file(place.path("hard")).unwrap();
        same(&["dir/third"], 1);
        assert_eq!(place.text("dir/third"), "shared\n");
    });
}

#[test]
fn a_name_is_taken_away_before_anything_is_written() {
    everywhere(|place| {
        let ino = place.stat("file").ino();
        fs::remove_file(place.path("file")).unwrap();
        assert_eq!((place.stat("hard").nlink(), place.stat("hard").ino()), (1, ino));
        link(place, "hard", "file").unwrap();
        assert_eq!((place.stat("file").nlink(), place.stat("file").ino()), (2, ino));
        fs::rename(place.path("file"), place.path("dir/file")).unwrap();
        File::options().append(true).open(place.path("hard")).unwrap().write_at(b"x", 0).unwrap();
        assert_eq!(place.text("dir/file"), "content\nx");
        assert_eq!(place.stat("hard").nlink(), 2);
    });
}

#[test]
fn a_link_that_cannot_be_made_is_refused() {
    everywhere(|place| {
        for (from, to, errno) in [
            ("dir", "new", Errno::EPERM),
            ("file", "large", Errno::EEXIST),
            ("file", "hard", Errno::EEXIST),
            ("file", "dir", Errno::EEXIST),
            ("file", "link", Errno::EEXIST),
            ("missing", "new", Errno::ENOENT),
            ("file", "missing/new", Errno::ENOENT),
            ("file", "large/new", Errno::ENOTDIR),
            ("file/", "new", Errno::ENOTDIR),
        ] {
            assert_eq!(refused(link(place, from, to)), errno, "{from} to {to}");
        }
        assert_eq!(place.stat("file").nlink(), 2);
        // What was removed can be linked to again.
        fs::remove_file(place.path("dir/child")).unwrap();
        link(place, "large", "dir/child").unwrap();
        assert!(fs::read(place.path("dir/child")).unwrap() == large());
        assert_eq!(place.stat("large").nlink(), 2);
    });
}

#[test]
fn a_symbolic_link_can_have_two_names() {
    everywhere(|place| {
        if place.is_theirs() && place.layer == Layer::Upper {
            // What the user made is the image's root's, and the kernel lets nobody link to another's
            // symbolic link (sysctl fs.protected_hardlinks).
            return;
        }
        link(place, "link", "dir/link").unwrap();
        assert!(place.stat("dir/link").is_symlink());
        assert_eq!(place.stat("link").nlink(), 2);
        assert_eq!(place.stat("link").ino(), place.stat("dir/link").ino());
        assert_eq!(fs::read_link(place.path("dir/link")).unwrap().to_str(), Some("file"));
        linkat(
            AT_FDCWD,
            &place.path("link"),
            AT_FDCWD,
            &place.path("new"),
            AtFlags::AT_SYMLINK_FOLLOW,
        )
        .unwrap();
        assert_eq!(place.stat("new").ino(), place.stat("file").ino());
        assert_eq!(place.stat("new").nlink(), 3);
        fs::remove_file(place.path("link")).unwrap();
        assert_eq!(place.stat("dir/link").nlink(), 1);
    });
}

#[test]
fn an_open_file_is_linked_by_its_descriptor_while_it_has_a_name() {
    everywhere(|place| {
        let file = File::open(place.path("large")).unwrap();
        let proc = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = |to: &str| {
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            linkat(AT_FDCWD, proc.as_str(), AT_FDCWD, &place.path(to), follow)
        };
        link("new").unwrap();
        fs::remove_file(place.path("large")).unwrap();
        link("dir/newer").unwrap();
        assert_eq!(place.stat("new").nlink(), 2);
        fs::remove_file(place.path("new")).unwrap();
        assert!(fs::read(place.path("dir/newer")).unwrap() == large());
        fs::remove_file(place.path("dir/newer")).unwrap();
        assert_eq!(refused(link("again")), Errno::ENOENT);
        assert_eq!(file.metadata().unwrap().nlink(), 0);
    });
}

#[test]
fn links_to_a_file_of_several_names_count_at_once() {
    everywhere(|place| {
        for number in 0..20 {
            link(place, "file", &format!("empty/{number}")).unwrap();
        }
        assert_eq!(place.stat("hard").nlink(), 22);
        let one = File::options().read(true).write(true).open(place.path("empty/7")).unwrap();
        one.write_all_at(b"CON", 0).unwrap();
        for number in 0..20 {
            assert_eq!(place.text(&format!("empty/{number}")), "CONtent\n");
            fs::remove_file(place.path(&format!("empty/{number}"))).unwrap();
        }
        assert_eq!(one.metadata().unwrap().nlink(), 2);
        fs::remove_file(place.path("file")).unwrap();
        fs::remove_file(place.path("hard")).unwrap();
        assert_eq!(one.metadata().unwrap().nlink(), 0);
        let mut start = [0; 8];
        one.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"CONtent\n");
    });
}

#[test]
fn ctime_of_a_file_changes_with_its_names() {
    everywhere(|place| {
        let ctime = || {
            let stat = place.stat("hard");
            (stat.ctime(), stat.ctime_nsec())
        };
        let mut before = ctime();
        let mut changed = |what: &str| {
            let after = ctime();
            assert!(after > before, "{what}");
            before = after;
            wait_for_the_clock();
        };
        wait_for_the_clock();
        link(place, "file", "new").unwrap();
        changed("link");
        fs::remove_file(place.path("new")).unwrap();
        changed("unlink");
        fs::rename(place.path("file"), place.path("moved")).unwrap();
        changed("rename");
        if place.who == Who::Root {
            std::os::unix::fs::chown(place.path("moved"), Some(1), None).unwrap();
            changed("chown");
        }
        fs::set_permissions(place.path("moved"), fs::Permissions::from_mode(0o600)).unwrap();
        changed("chmod");
    });
}

/// Waits until the clock that files get their times from has moved on.
fn wait_for_the_clock() {
    let clock = tempfile::tempfile().unwrap();
    let time = || {
        clock.write_all_at(b"x", 0).unwrap();
        let stat = clock.metadata().unwrap();
        (stat.mtime(), stat.mtime_nsec())
    };
    let start = time();
    while time() == start {
        std::thread::yield_now();
    }
}

#[test]
fn an_open_file_that_loses_one_name_is_found_by_the_other() {
    everywhere(|place| {
        let open = File::open(place.path("file")).unwrap();
        fs::remove_file(place.path("hard")).unwrap();
        assert_eq!(place.stat("file").nlink(), 1);
        assert_eq!(open.metadata().unwrap().nlink(), 1);
        fs::write(place.path("file"), "written\n").unwrap();
        assert_eq!(std::io::read_to_string(&open).unwrap(), "written\n");
        assert_eq!(place.text("file"), "written\n");
    });
}
