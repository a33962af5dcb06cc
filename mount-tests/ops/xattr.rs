//! Extended attributes.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};

use nix::errno::Errno;

use crate::common::{Place, Who, everywhere, refused};

fn set(place: &Place, name: &str, key: &str, value: &[u8]) -> io::Result<()> {
    xattr::set(place.path(name), key, value)
}

fn get(place: &Place, name: &str, key: &str) -> Option<Vec<u8>> {
    xattr::get(place.path(name), key).unwrap()
}

fn keys(place: &Place, name: &str) -> Vec<String> {
    let keys = xattr::list(place.path(name)).unwrap();
    let keys: BTreeSet<_> = keys.map(|key| key.to_str().unwrap().to_owned()).collect();
    keys.into_iter().collect()
}

#[allow(unsafe_code, reason = "nothing safe passes the flags")]
fn set_flagged(place: &Place, name: &str, key: &str, value: &[u8], flags: i32) -> io::Result<()> {
    let path = CString::new(place.path(name).as_os_str().as_bytes()).unwrap();
    let key = CString::new(key).unwrap();
    let (value, len) = (value.as_ptr().cast(), value.len());
    // SAFETY: both strings end with a zero, and `len` is the length of the value.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), key.as_ptr(), value, len, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Calls `lgetxattr` and `llistxattr` with a buffer of this size.
#[allow(unsafe_code, reason = "nothing safe has a buffer that is too small")]
fn get_sized(place: &Place, name: &str, key: Option<&str>, size: usize) -> nix::Result<usize> {
    let path = CString::new(place.path(name).as_os_str().as_bytes()).unwrap();
    let mut buffer = vec![0_u8; size];
    let to = buffer.as_mut_ptr();
    let result = match key.map(|key| CString::new(key).unwrap()) {
        // SAFETY: the strings end with a zero, and the buffer has `size` bytes.
        Some(key) => unsafe { libc::lgetxattr(path.as_ptr(), key.as_ptr(), to.cast(), size) },
        // SAFETY: as above.
        None => unsafe { libc::llistxattr(path.as_ptr(), to.cast(), size) },
    };
    Errno::result(result).map(|len| usize::try_from(len).unwrap())
}

#[test]
fn attributes_are_set_read_listed_and_removed() {
    everywhere(|place| {
        for name in ["file", "large", "dir", "dir/sub", "empty"] {
            let before = place.stat(name);
            assert_eq!(get(place, name, "user.note"), None, "{name}");
            set(place, name, "user.note", b"a value\0with zero").unwrap();
            set(place, name, "user.empty", b"").unwrap();
            set(place, name, "user.note", b"another").unwrap();
            assert_eq!(get(place, name, "user.note").as_deref(), Some(&b"another"[..]), "{name}");
            assert_eq!(get(place, name, "user.empty").as_deref(), Some(&b""[..]), "{name}");
            assert_eq!(keys(place, name), ["user.empty", "user.note"], "{name}");
            xattr::remove(place.path(name), "user.empty").unwrap();
            assert_eq!(keys(place, name), ["user.note"], "{name}");
            let after = place.stat(name);
            assert_eq!((after.ino(), after.mtime()), (before.ino(), before.mtime()), "{name}");
            assert_eq!((after.mode(), after.uid()), (before.mode(), before.uid()), "{name}");
        }
        assert_eq!(get(place, "hard", "user.note").as_deref(), Some(&b"another"[..]));
        assert_eq!(place.text("hard"), "content\n");
        assert_eq!(place.names("dir"), ["child", "sub"]);
        fs::rename(place.path("dir"), place.path("moved")).unwrap();
        assert_eq!(keys(place, "moved"), ["user.note"]);
    });
}

#[test]
fn attributes_that_cannot_be_are_refused() {
    everywhere(|place| {
        let (create, replace) = (libc::XATTR_CREATE, libc::XATTR_REPLACE);
        let flagged = |key: &str, flags| set_flagged(place, "file", key, b"value", flags);
        assert_eq!(refused(flagged("user.note", replace)), Errno::ENODATA);
        flagged("user.note", create).unwrap();
        assert_eq!(refused(flagged("user.note", create)), Errno::EEXIST);
        flagged("user.note", replace).unwrap();
        assert_eq!(refused(xattr::remove(place.path("file"), "user.none")), Errno::ENODATA);
        assert_eq!(refused(xattr::remove(place.path("large"), "user.none")), Errno::ENODATA);
        assert_eq!(refused(set(place, "file", "nonsense", b"")), Errno::EOPNOTSUPP);
        assert_eq!(refused(set(place, "file", "unknown.name", b"")), Errno::EOPNOTSUPP);
        assert_eq!(refused(set(place, "missing", "user.note", b"")), Errno::ENOENT);
        let longest = format!("user.{}", "n".repeat(250));
        set(place, "file", &longest, b"").unwrap();
        assert_eq!(refused(set(place, "file", &(longest + "n"), b"")), Errno::ERANGE);

        assert_eq!(get_sized(place, "file", Some("user.note"), 0), Ok(5));
        assert_eq!(get_sized(place, "file", Some("user.note"), 5), Ok(5));
        assert_eq!(get_sized(place, "file", Some("user.note"), 4), Err(Errno::ERANGE));
        assert_eq!(get_sized(place, "file", Some("user.none"), 4), Err(Errno::ENODATA));
        assert_eq!(get_sized(place, "file", None, 0), Ok(266));
        assert_eq!(get_sized(place, "file", None, 265), Err(Errno::ERANGE));
    });
}

#[test]
fn links_and_special_files_take_no_user_attributes() {
    everywhere(|place| {
        nix::unistd::mkfifo(&place.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["link", "fifo"] {
            let result = set_flagged(place, name, "user.note", b"", 0);
            assert_eq!(refused(result), Errno::EPERM, "{name}");
            assert_eq!(get_sized(place, name, None, 0), Ok(0), "{name}");
        }
        if place.who == Who::Root {
            set_flagged(place, "link", "trusted.note", b"on the link", 0).unwrap();
            assert_eq!(get_sized(place, "link", Some("trusted.note"), 0), Ok(11));
            assert_eq!(keys(place, "file"), [""; 0]);
            assert_eq!(fs::read_link(place.path("link")).unwrap().to_str(), Some("file"));
        }
    });
}

#[test]
fn large_values_and_many_names_come_back_whole() {
    everywhere(|place| {
        // What fits into one block of ext4, which keeps all attributes of a file in one.
        let value: Vec<u8> = (0..2_500_u32).map(|number| number.to_le_bytes()[0]).collect();
        set(place, "large", "user.value", &value).unwrap();
        assert_eq!(get(place, "large", "user.value"), Some(value));
        for number in 0..40 {
            set(place, "dir", &format!("user.number-{number:02}"), b"x").unwrap();
        }
        let expected: Vec<_> = (0..40).map(|number| format!("user.number-{number:02}")).collect();
        assert_eq!(keys(place, "dir"), expected);
        for number in 0..40 {
            xattr::remove(place.path("dir"), format!("user.number-{number:02}")).unwrap();
        }
        assert_eq!(keys(place, "dir"), [""; 0]);
        let most = vec![0; (64 << 10) + 1];
        assert_eq!(refused(set(place, "file", "user.value", &most)), Errno::E2BIG);
    });
}

#[test]
fn attributes_for_root_are_roots() {
    everywhere(|place| {
        let result = set(place, "file", "trusted.note", b"root's");
        if place.who == Who::User {
            assert_eq!(refused(result), Errno::EPERM);
            return;
        }
        result.unwrap();
        set(place, "file", "user.note", b"all's").unwrap();
        assert_eq!(get(place, "hard", "trusted.note").as_deref(), Some(&b"root's"[..]));
        assert_eq!(keys(place, "file"), ["trusted.note", "user.note"]);
        place.as_user(|| {
            assert_eq!(keys(place, "file"), ["user.note"]);
            assert_eq!(get(place, "file", "trusted.note"), None);
            assert_eq!(refused(set(place, "file", "user.note", b"")), Errno::EACCES);
        });
    });
}

/// `CAP_NET_RAW`, permitted and effective, as setcap(8) writes it.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[test]
fn capabilities_of_a_file_stay_until_it_is_written_to() {
    everywhere(|place| {
        let key = "security.capability";
        let result = set(place, "file", key, CAPABILITY);
        if place.who == Who::User {
            assert_eq!(refused(result), Errno::EPERM);
            return;
        }
        result.unwrap();
        assert_eq!(get(place, "hard", key).as_deref(), Some(CAPABILITY));
        fs::rename(place.path("file"), place.path("dir/file")).unwrap();
        assert_eq!(get(place, "dir/file", key).as_deref(), Some(CAPABILITY));
        fs::write(place.path("dir/file"), "changed\n").unwrap();
        assert_eq!(get(place, "hard", key), None);
        // Of a file that was just made it is known that it has none.
        for content in ["new\n", "newer\n"] {
            fs::write(place.path("new"), content).unwrap();
            assert_eq!(get(place, "new", key), None);
            set(place, "new", key, CAPABILITY).unwrap();
            assert_eq!(get(place, "new", key).as_deref(), Some(CAPABILITY));
        }
        set(place, "large", key, CAPABILITY).unwrap();
        std::os::unix::fs::chown(place.path("large"), Some(1), None).unwrap();
        assert_eq!(get(place, "large", key), None);
    });
}

#[test]
fn marks_of_the_overlay_are_not_seen_and_their_names_are_free() {
    everywhere(|place| {
        // All that makes marks: copying up, renaming a directory, removing and making one.
        fs::write(place.path("file"), "changed\n").unwrap();
        set(place, "large", "user.note", b"x").unwrap();
        fs::rename(place.path("dir"), place.path("moved")).unwrap();
        fs::remove_dir(place.path("empty")).unwrap();
        fs::create_dir(place.path("empty")).unwrap();
        symlink("x", place.path("new")).unwrap();
        for name in ["file", "moved", "moved/child", "moved/sub", "empty", ""] {
            assert_eq!(keys(place, name), [""; 0], "{name}");
        }
        assert_eq!(keys(place, "large"), ["user.note"]);
        let (prefix, hidden) = match place.who {
            Who::Root => ("trusted.overlay.", None),
            Who::User => ("user.overlay.", Some("user.containers.override_stat")),
        };
        for suffix in ["opaque", "redirect", "metacopy", "whiteout", "origin"] {
            let key = format!("{prefix}{suffix}");
            set(place, "moved", &key, b"y").unwrap();
            assert_eq!(get(place, "moved", &key).as_deref(), Some(&b"y"[..]));
        }
        assert_eq!(keys(place, "moved").len(), 5);
        assert_eq!(place.names("moved"), ["child", "sub"]);
        if let Some(key) = hidden.filter(|_| place.is_theirs()) {
            assert_eq!(refused(set(place, "file", key, b"0:0:777")), Errno::EPERM);
        }
    });
}

#[test]
fn attributes_are_reached_through_an_open_file() {
    use xattr::FileExt;
    everywhere(|place| {
        let file = File::open(place.path("large")).unwrap();
        file.set_xattr("user.note", b"value").unwrap();
        assert_eq!(get(place, "large", "user.note").as_deref(), Some(&b"value"[..]));
        file.remove_xattr("user.note").unwrap();
        assert_eq!(file.list_xattr().unwrap().count(), 0);
        let dir = File::open(place.path("dir")).unwrap();
        dir.set_xattr("user.note", b"value").unwrap();
        assert_eq!(dir.get_xattr("user.note").unwrap().as_deref(), Some(&b"value"[..]));
    });
}
