//! Renaming.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::common::{Place, Who, everywhere, large, refused};

fn rename(place: &Place, from: &str, to: &str) -> std::io::Result<()> {
    fs::rename(place.path(from), place.path(to))
}

fn rename_how(place: &Place, from: &str, to: &str, how: RenameFlags) -> nix::Result<()> {
    renameat2(AT_FDCWD, &place.path(from), AT_FDCWD, &place.path(to), how)
}

#[test]
fn a_file_replaces_a_file() {
    everywhere(|place| {
        let (ino, reader) = (place.stat("large").ino(), File::open(place.path("file")).unwrap());
        rename(place, "large", "file").unwrap();
        assert!(fs::read(place.path("file")).unwrap() == large());
        assert_eq!(place.stat("file").ino(), ino);
        assert!(!place.path("large").exists());
        assert_eq!((place.text("hard"), place.stat("hard").nlink()), ("content\n".to_owned(), 1));
        // Who has the replaced file open still has it.
        let mut start = [0; 8];
        reader.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"content\n");
        rename(place, "file", "dir/child").unwrap();
        rename(place, "link", "dir/sub/grandchild").unwrap();
        assert_eq!(place.names(""), ["dir", "empty", "hard"]);
        assert_eq!(place.stat("dir/child").ino(), ino);
        assert_eq!(fs::read_link(place.path("dir/sub/grandchild")).unwrap().to_str(), Some("file"));
    });
}

#[test]
fn a_rename_that_makes_no_sense_is_refused() {
    everywhere(|place| {
        for (from, to, errno) in [
            ("file", "dir", Errno::EISDIR),
            ("file", "empty", Errno::EISDIR),
            ("dir", "file", Errno::ENOTDIR),
            ("empty", "link", Errno::ENOTDIR),
            ("empty", "dir", Errno::ENOTEMPTY),
            ("empty", "dir/sub", Errno::ENOTEMPTY),
            ("dir/sub", "dir", Errno::ENOTEMPTY),
            ("dir", "dir/sub/below", Errno::EINVAL),
            ("dir", "dir/sub", Errno::EINVAL),
            ("missing", "new", Errno::ENOENT),
            ("file", "missing/new", Errno::ENOENT),
            ("file", "hard/new", Errno::ENOTDIR),
            ("file", "new/", Errno::ENOTDIR),
            ("dir/.", "new", Errno::EBUSY),
            ("dir/sub", "empty/..", Errno::EBUSY),
        ] {
            assert_eq!(refused(rename(place, from, to)), errno, "{from} to {to}");
        }
        assert_eq!(place.names(""), ["dir", "empty", "file", "hard", "large", "link"]);
        assert_eq!(place.names("dir"), ["child", "sub"]);
        assert_eq!(place.text("file"), "content\n");
    });
}

#[test]
fn a_directory_moves_with_all_below_it() {
    everywhere(|place| {
        let ino = |name: &str| place.stat(name).ino();
        let before = [ino("dir"), ino("dir/child"), ino("dir/sub"), ino("dir/sub/grandchild")];
        rename(place, "dir", "moved").unwrap();
        let after =
            [ino("moved"), ino("moved/child"), ino("moved/sub"), ino("moved/sub/grandchild")];
        assert_eq!(after, before);
        assert_eq!(place.text("moved/sub/grandchild"), "grandchild\n");
        fs::write(place.path("moved/sub/grandchild"), "changed\n").unwrap();
        fs::write(place.path("moved/sub/new"), "new\n").unwrap();
        assert_eq!(refused(fs::metadata(place.path("dir"))), Errno::ENOENT);

        // The old name is free, and what is made there has nothing to do with it.
        fs::create_dir(place.path("dir")).unwrap();
        assert_eq!(place.names("dir"), [""; 0]);
        rename(place, "moved/sub", "dir/sub").unwrap();
        assert_eq!(place.names("dir/sub"), ["grandchild", "new"]);
        assert_eq!(place.names("moved"), ["child"]);
        rename(place, "moved", "dir/sub/moved").unwrap();
        assert_eq!(place.text("dir/sub/moved/child"), "child\n");
        assert_eq!([ino("dir/sub/moved"), ino("dir/sub/moved/child")], before[..2]);
    });
}

#[test]
fn a_directory_replaces_an_empty_one() {
    everywhere(|place| {
        let ino = place.stat("dir").ino();
        rename(place, "dir", "empty").unwrap();
        assert_eq!(place.stat("empty").ino(), ino);
        assert_eq!(place.names("empty"), ["child", "sub"]);
        assert_eq!(place.names("empty/sub"), ["grandchild"]);

        // What was emptied, not only what was empty.
        fs::create_dir(place.path("new")).unwrap();
        fs::write(place.path("new/file"), "new\n").unwrap();
        assert_eq!(refused(rename(place, "new", "empty/sub")), Errno::ENOTEMPTY);
        fs::remove_file(place.path("empty/sub/grandchild")).unwrap();
        rename(place, "new", "empty/sub").unwrap();
        assert_eq!(place.names("empty/sub"), ["file"]);
        fs::remove_dir_all(place.path("empty")).unwrap();
        assert_eq!(place.names(""), ["file", "hard", "large", "link"]);
    });
}

#[test]
fn regression_a_directory_over_an_emptied_one_shows_no_ghosts() {
    // The lower files of the emptied directory must stay gone, in this mount and the next.
    everywhere(|place| {
        fs::create_dir(place.path("new")).unwrap();
        fs::write(place.path("new/only"), "only\n").unwrap();
        fs::remove_file(place.path("dir/child")).unwrap();
        fs::remove_dir_all(place.path("dir/sub")).unwrap();
        rename(place, "new", "dir").unwrap();
        assert_eq!(place.names("dir"), ["only"]);
        fs::create_dir(place.path("other")).unwrap();
        fs::remove_dir(place.path("empty")).unwrap();
        rename(place, "other", "empty").unwrap();
        assert_eq!(place.names("empty"), [""; 0]);
        rename(place, "dir", "empty").unwrap();
        rename(place, "empty", "dir").unwrap();
        assert_eq!(place.names("dir"), ["only"]);
        assert_eq!(place.names(""), ["dir", "file", "hard", "large", "link"]);
    });
}

#[test]
fn a_rename_without_replacing_takes_only_a_free_name() {
    everywhere(|place| {
        let noreplace = RenameFlags::RENAME_NOREPLACE;
        for (from, to) in [("file", "large"), ("dir", "empty"), ("file", "hard"), ("file", "file")]
        {
            let refusal = refused(rename_how(place, from, to, noreplace));
            assert_eq!(refusal, Errno::EEXIST, "{from} to {to}");
        }
        let missing = rename_how(place, "missing", "new", noreplace);
        assert_eq!(refused(missing), Errno::ENOENT);
        rename_how(place, "file", "new", noreplace).unwrap();
        rename_how(place, "dir", "file", noreplace).unwrap();
        assert_eq!(place.names("file"), ["child", "sub"]);
        assert_eq!(place.text("new"), "content\n");
        fs::remove_file(place.path("new")).unwrap();
        rename_how(place, "large", "new", noreplace).unwrap();
        assert!(fs::read(place.path("new")).unwrap() == large());
    });
}

#[test]
fn an_exchange_swaps_whatever_has_the_names() {
    everywhere(|place| {
        let exchange = |one: &str, two: &str| {
            let inos = (place.stat(one).ino(), place.stat(two).ino());
            rename_how(place, one, two, RenameFlags::RENAME_EXCHANGE).unwrap();
            if !(place.forgets_links() && two == "link") {
                assert_eq!((place.stat(two).ino(), place.stat(one).ino()), inos, "{one} and {two}");
            }
        };
        exchange("file", "large");
        assert_eq!(place.text("large"), "content\n");
        exchange("dir", "link");
        assert_eq!(place.names("link"), ["child", "sub"]);
        assert!(place.stat("dir").is_symlink());
        exchange("link/sub", "empty");
        assert_eq!(place.names("empty"), ["grandchild"]);
        assert_eq!(place.names("link/sub"), [""; 0]);
        exchange("link/child", "hard");
        assert_eq!(
            (place.text("hard"), place.text("link/child")),
            ("child\n".into(), "content\n".into())
        );
        let how = RenameFlags::RENAME_EXCHANGE;
        assert_eq!(refused(rename_how(place, "file", "missing", how)), Errno::ENOENT);
        assert_eq!(refused(rename_how(place, "link", "link/sub", how)), Errno::EINVAL);
        assert_eq!(refused(rename_how(place, "link/sub", "link", how)), Errno::EINVAL);
        let both = how | RenameFlags::RENAME_NOREPLACE;
        assert_eq!(refused(rename_how(place, "file", "large", both)), Errno::EINVAL);
    });
}

#[test]
fn a_rename_between_two_names_of_one_file_does_nothing() {
    everywhere(|place| {
        rename(place, "file", "hard").unwrap();
        assert_eq!(place.names(""), ["dir", "empty", "file", "hard", "large", "link"]);
        rename(place, "dir", "dir").unwrap();
        rename(place, "file", "file").unwrap();
        assert_eq!((place.text("hard"), place.stat("file").nlink()), ("content\n".into(), 2));
    });
}

#[test]
fn a_link_and_an_open_file_are_renamed_as_they_are() {
    everywhere(|place| {
        rename(place, "link", "dir/link").unwrap();
        assert_eq!(fs::read_link(place.path("dir/link")).unwrap().to_str(), Some("file"));
        assert!(!place.path("dir/link").exists());
        symlink("nowhere", place.path("dangling")).unwrap();
        rename(place, "dangling", "large").unwrap();
        assert_eq!(fs::read_link(place.path("large")).unwrap().to_str(), Some("nowhere"));

        let file = File::options().read(true).write(true).open(place.path("file")).unwrap();
        rename(place, "file", "dir/sub/file").unwrap();
        file.write_all_at(b"CON", 0).unwrap();
        assert_eq!(place.text("dir/sub/file"), "CONtent\n");
        rename(place, "dir", "moved").unwrap();
        file.write_all_at(b"TENT", 3).unwrap();
        assert_eq!(place.text("moved/sub/file"), "CONTENT\n");
        assert_eq!(place.text("hard"), "CONTENT\n");
    });
}

#[test]
fn a_chain_of_renames_ends_where_it_leads_and_frees_every_name() {
    everywhere(|place| {
        for (kind, first) in [("file", "file"), ("dir", "dir")] {
            let mut at = first.to_owned();
            for step in 0..30 {
                let next = match step % 3 {
                    0 => format!("{kind}-{step}"),
                    1 => format!("empty/{kind}-{step}"),
                    _ => first.to_owned(),
                };
                rename(place, &at, &next).unwrap();
                at = next;
            }
            assert_eq!(at, first);
        }
        assert_eq!(place.names("empty"), [""; 0]);
        assert_eq!(place.names(""), ["dir", "empty", "file", "hard", "large", "link"]);
        assert_eq!(place.text("dir/sub/grandchild"), "grandchild\n");
        assert_eq!((place.text("file"), place.stat("hard").nlink()), ("content\n".into(), 2));
        rename(place, "dir", "a").unwrap();
        rename(place, "empty", "dir").unwrap();
        rename(place, "a", "empty").unwrap();
        assert_eq!((place.names("dir").len(), place.names("empty").len()), (0, 2));
        fs::remove_dir(place.path("dir")).unwrap();
        fs::write(place.path("dir"), "").unwrap();
    });
}

#[test]
fn a_rename_that_leaves_a_whiteout_leaves_a_device() {
    everywhere(|place| {
        if place.is_theirs() || place.who == Who::User {
            // A device is for root to make; leaving a whiteout is not, but it needs no test twice.
            return;
        }
        for (from, to) in [("file", "dir/child"), ("dir", "moved"), ("link", "empty/link")] {
            rename_how(place, from, to, RenameFlags::RENAME_WHITEOUT).unwrap();
            let left = place.stat(from);
            assert_eq!((left.mode(), left.rdev()), (0o020_000, 0), "{from}");
            assert!(place.names("").contains(&from.to_owned()));
            fs::remove_file(place.path(from)).unwrap();
        }
        assert_eq!(place.text("moved/child"), "content\n");
        let how = RenameFlags::RENAME_WHITEOUT | RenameFlags::RENAME_EXCHANGE;
        assert_eq!(refused(rename_how(place, "large", "hard", how)), Errno::EINVAL);
    });
}
