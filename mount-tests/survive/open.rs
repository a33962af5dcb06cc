//! What is open when a server is replaced works on, whatever has become of its names.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use memmap2::MmapMut;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg};

use crate::common::{Lower, Who};
use crate::survive::Held;
use crate::survive::held::How;

fn fill(dir: &Path) {
    for name in ["a", "b", "c"] {
        fs::write(dir.join(name), format!("{name}\n")).unwrap();
    }
    fs::create_dir_all(dir.join("dir/sub")).unwrap();
    for number in 0..100 {
        fs::write(dir.join(format!("dir/of-the-lower-{number:03}")), "").unwrap();
    }
}

/// Runs a test in all kinds of mounts.
fn everywhere(test: impl Fn(&Held) + Sync) {
    for (who, lower) in
        [(Who::Root, Lower::Image), (Who::User, Lower::Image), (Who::Root, Lower::Dirs)]
    {
        // Servers of plain directories cannot be upgraded.
        let all = How::all().into_iter().filter(|how| lower == Lower::Image || *how == How::Killed);
        for how in all {
            eprintln!("{who:?}, {lower:?}, {how:?}");
            let mut held = Held::with(who, lower, how, fill);
            who.act(|| test(&held));
            assert!(held.replaced() > 0);
            assert_eq!(held.unmount(), 0, "{who:?}, {lower:?}, {how:?}");
        }
    }
}

fn text(file: &File) -> String {
    let mut bytes = vec![0; 4096];
    let len = file.read_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

fn both(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

#[test]
fn a_file_without_a_name_is_read_written_and_changed() {
    everywhere(|held| {
        for name in ["made", "a"] {
            let mut file = both(&held.path(name));
            let ino = file.metadata().unwrap().ino();
            fs::remove_file(held.path(name)).unwrap();
            held.replace();
            assert_eq!(file.metadata().unwrap().nlink(), 0);
            assert_eq!(file.metadata().unwrap().ino(), ino);
            file.set_len(0).unwrap();
            file.write_all(b"one\n").unwrap();
            held.replace();
            file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
            xattr::FileExt::set_xattr(&file, "user.kept", b"value").unwrap();
            held.replace();
            file.write_all(b"two\n").unwrap();
            held.replace();
            let metadata = file.metadata().unwrap();
            assert_eq!((metadata.nlink(), metadata.ino(), metadata.len()), (0, ino, 8));
            assert_eq!(metadata.mode() & 0o777, 0o600);
            assert_eq!(text(&file), "one\ntwo\n");
            let kept = xattr::FileExt::get_xattr(&file, "user.kept").unwrap();
            assert_eq!(kept.as_deref(), Some(&b"value"[..]));
            assert!(!held.path(name).exists());
        }
    });
}

#[test]
fn a_file_of_the_lower_that_has_lost_its_name_is_read() {
    everywhere(|held| {
        let (removed, replaced) = (File::open(held.path("a")).unwrap(), File::open(held.path("b")));
        let replaced = replaced.unwrap();
        fs::remove_file(held.path("a")).unwrap();
        fs::rename(held.path("c"), held.path("b")).unwrap();
        held.replace();
        assert_eq!((text(&removed), text(&replaced)), ("a\n".to_owned(), "b\n".to_owned()));
        for file in [&removed, &replaced] {
            assert_eq!(file.metadata().unwrap().nlink(), 0);
        }
        held.replace();
        assert_eq!(fs::read_to_string(held.path("b")).unwrap(), "c\n");
    });
}

#[test]
fn a_file_made_without_a_name_gets_one() {
    everywhere(|held| {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o640);
        let mut file = options.open(held.path("dir")).unwrap();
        file.write_all(b"one\n").unwrap();
        held.replace();
        file.write_all(b"two\n").unwrap();
        let (here, path) = (nix::fcntl::AT_FDCWD, format!("/proc/self/fd/{}", file.as_raw_fd()));
        let named = held.path("named");
        nix::unistd::linkat(here, path.as_str(), here, &named, AtFlags::AT_SYMLINK_FOLLOW).unwrap();
        let ino = file.metadata().unwrap().ino();
        held.replace();
        file.write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&named).unwrap(), "one\ntwo\nthree\n");
        let metadata = fs::metadata(&named).unwrap();
        assert_eq!((metadata.ino(), metadata.nlink(), metadata.mode() & 0o777), (ino, 1, 0o640));
    });
}

#[test]
fn a_directory_without_a_name_is_empty_and_takes_nothing() {
    everywhere(|held| {
        fs::create_dir(held.path("made")).unwrap();
        for name in ["made", "dir/sub"] {
            let dir = File::open(held.path(name)).unwrap();
            fs::remove_dir(held.path(name)).unwrap();
            held.replace();
            let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
            assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
            assert_eq!(dir.metadata().unwrap().nlink(), 0, "{name}");
            let refused = fs::write(format!("{path}/new"), "").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::NotFound);
            fs::create_dir(held.path(name)).unwrap();
            held.replace();
            fs::write(held.path(name).join("new"), "").unwrap();
            assert_eq!(dir.metadata().unwrap().nlink(), 0, "{name}");
        }
    });
}

#[test]
fn a_listing_goes_on_where_it_was() {
    everywhere(|held| {
        let dir = held.path("dir");
        // More than one call of a program takes, which is 32 KiB.
        for number in 0..400 {
            fs::write(dir.join(format!("{number:03}-{}", "long".repeat(25))), "").unwrap();
        }
        let before: BTreeSet<_> =
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let (mut seen, mut removed) = (Vec::new(), BTreeSet::new());
        for (at, entry) in fs::read_dir(&dir).unwrap().enumerate() {
            let name = entry.unwrap().file_name();
            seen.push(name.clone());
            if at % 120 == 7 {
                held.replace();
                if name != "sub" {
                    fs::remove_file(dir.join(&name)).unwrap();
                    removed.insert(name);
                }
                fs::write(dir.join(format!("new-{at}")), "").unwrap();
            }
        }
        let distinct: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(distinct.len(), seen.len(), "an entry comes twice");
        let missing: Vec<_> = before.difference(&distinct).collect();
        assert_eq!(missing, Vec::<&std::ffi::OsString>::new());
        let after: BTreeSet<_> =
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(removed.intersection(&after).count(), 0);
    });
}

#[test]
#[allow(unsafe_code, reason = "a file that is mapped")]
fn what_is_mapped_and_what_is_locked_stays_so() {
    everywhere(|held| {
        let file = both(&held.path("mapped"));
        file.set_len(16384).unwrap();
        // SAFETY: nobody makes the file shorter.
        let mut map = unsafe { MmapMut::map_mut(&file) }.unwrap();
        map[..3].copy_from_slice(b"one");
        held.replace();
        map[8192..8195].copy_from_slice(b"two");
        map.flush().unwrap();
        held.replace();
        let mut found = [0; 3];
        file.read_exact_at(&mut found, 8192).unwrap();
        assert_eq!(&found, b"two");
        assert_eq!(&map[..3], b"one");
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
        held.replace();
        let refused = Flock::lock(both(&held.path("mapped")), FlockArg::LockExclusiveNonblock);
        assert_eq!(refused.unwrap_err().1, Errno::EWOULDBLOCK);
        drop(locked);
    });
}

#[test]
fn a_file_is_written_through_a_handle_that_could_not_be_opened_any_more() {
    // As git makes its objects: for a server that is not root the file itself says no.
    everywhere(|held| {
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o444).open(held.path("once")).unwrap();
        file.write_all(b"one\n").unwrap();
        held.replace();
        file.write_all(b"two\n").unwrap();
        held.replace();
        assert_eq!(fs::read_to_string(held.path("once")).unwrap(), "one\ntwo\n");
    });
}

#[test]
fn numbers_and_renamed_directories_are_found_again() {
    everywhere(|held| {
        let number = |path: &str| fs::metadata(held.path(path)).unwrap().ino();
        let before = [number("dir"), number("dir/of-the-lower-001"), number("b")];
        let open = File::open(held.path("dir/sub")).unwrap();
        fs::rename(held.path("dir"), held.path("moved")).unwrap();
        fs::write(held.path("moved/sub/new"), "new\n").unwrap();
        held.replace();
        let path = format!("/proc/self/fd/{}/new", open.as_raw_fd());
        assert_eq!(fs::read_to_string(path).unwrap(), "new\n");
        fs::set_permissions(held.path("b"), fs::Permissions::from_mode(0o600)).unwrap();
        held.replace();
        let after = [number("moved"), number("moved/of-the-lower-001"), number("b")];
        assert_eq!(after, before);
        assert_eq!(open.metadata().unwrap().ino(), number("moved/sub"));
    });
}
