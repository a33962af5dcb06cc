//! Advisory locks.

use std::fs::{self, File};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};

use crate::common::{Place, everywhere, refused};

fn open_both(place: &Place, name: &str) -> File {
    File::options().read(true).write(true).open(place.path(name)).unwrap()
}

#[test]
fn a_flock_belongs_to_the_open_file() {
    everywhere(|place| {
        let exclusive = |file| Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let shared = |file| Flock::lock(file, FlockArg::LockSharedNonblock);
        for (name, other) in [("file", "hard"), ("large", "large"), ("dir", "dir")] {
            let open = |name: &str| File::open(place.path(name)).unwrap();
            let held = exclusive(open(name)).map_err(|(_, errno)| errno).unwrap();
            let refusal = exclusive(open(other)).map_err(|(_, errno)| errno);
            assert_eq!(refused(refusal), Errno::EWOULDBLOCK, "{name}");
            let refusal = shared(open(other)).map_err(|(_, errno)| errno);
            assert_eq!(refused(refusal), Errno::EWOULDBLOCK, "{name}");
            drop(held);
            let one = shared(open(name)).map_err(|(_, errno)| errno).unwrap();
            let two = shared(open(other)).map_err(|(_, errno)| errno).unwrap();
            drop((one, two));
        }
    });
}

#[test]
fn a_flock_holds_while_the_file_is_changed_and_renamed() {
    everywhere(|place| {
        let held = Flock::lock(File::open(place.path("large")).unwrap(), FlockArg::LockExclusive);
        let held = held.map_err(|(_, errno)| errno).unwrap();
        let is_free = |name: &str| {
            Flock::lock(open_both(place, name), FlockArg::LockExclusiveNonblock).is_ok()
        };
        assert!(!is_free("large"));
        fs::write(place.path("large"), "changed\n").unwrap();
        assert!(!is_free("large"));
        fs::rename(place.path("large"), place.path("dir/moved")).unwrap();
        assert!(!is_free("dir/moved"));
        fs::write(place.path("large"), "another\n").unwrap();
        assert!(is_free("large"));
        drop(held);
        assert!(is_free("dir/moved"));
    });
}

#[test]
fn ranges_are_locked_for_an_open_file() {
    everywhere(|place| {
        let (one, two) = (open_both(place, "file"), open_both(place, "hard"));
        let lock = |file: &File, kind, start, len| {
            let lock = range(kind, start, len);
            fcntl(file, FcntlArg::F_OFD_SETLK(&lock))
        };
        lock(&one, libc::F_WRLCK, 0, 10).unwrap();
        assert_eq!(refused(lock(&two, libc::F_WRLCK, 5, 10)), Errno::EAGAIN);
        assert_eq!(refused(lock(&two, libc::F_RDLCK, 9, 1)), Errno::EAGAIN);
        lock(&two, libc::F_WRLCK, 10, 0).unwrap();
        let mut found = range(libc::F_RDLCK, 100, 1);
        fcntl(&one, FcntlArg::F_OFD_GETLK(&mut found)).unwrap();
        assert_eq!(i32::from(found.l_type), libc::F_WRLCK);
        assert_eq!((found.l_start, found.l_len), (10, 0));
        fs::write(place.path("file"), "changed\n").unwrap();
        assert_eq!(refused(lock(&two, libc::F_WRLCK, 0, 1)), Errno::EAGAIN);
        // Not by closing: a command that another test is starting may hold the open file until its exec.
        lock(&one, libc::F_UNLCK, 0, 0).unwrap();
        lock(&two, libc::F_WRLCK, 0, 0).unwrap();
    });
}

#[allow(clippy::cast_possible_truncation, reason = "the constants are below 8")]
fn range(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

#[test]
fn a_range_locked_by_this_process_is_told_to_another() {
    everywhere(|place| {
        let file = open_both(place, "large");
        fcntl(&file, FcntlArg::F_SETLK(&range(libc::F_WRLCK, 100, 50))).unwrap();
        // Locks of one process do not meet each other, so the other side is asked as an open file.
        let other = open_both(place, "large");
        let mut found = range(libc::F_RDLCK, 120, 1);
        fcntl(&other, FcntlArg::F_OFD_GETLK(&mut found)).unwrap();
        assert_eq!((i32::from(found.l_type), found.l_start), (libc::F_WRLCK, 100));
        assert_eq!(u32::try_from(found.l_pid), Ok(std::process::id()));
        fcntl(&file, FcntlArg::F_SETLK(&range(libc::F_UNLCK, 0, 0))).unwrap();
        let mut found = range(libc::F_RDLCK, 120, 1);
        fcntl(&other, FcntlArg::F_OFD_GETLK(&mut found)).unwrap();
        assert_eq!(i32::from(found.l_type), libc::F_UNLCK);
    });
}
