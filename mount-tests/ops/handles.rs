//! Handles of files, which outlive what the kernel knows of them (`name_to_handle_at`).

use std::fs::{self, File};
use std::io::{Error, Read, Result};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::common::{Session, Who, script};

/// A handle as the kernel writes it (`struct file_handle`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Handle {
    len: u32,
    kind: i32,
    bytes: [u8; 128],
}

#[allow(unsafe_code, reason = "no safe wrapper has the call")]
fn handle_of(path: &Path) -> Handle {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut handle = Handle { len: 128, kind: 0, bytes: [0; 128] };
    let mut mount = 0;
    // SAFETY: the path ends with NUL, and the handle has the room that it says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            0,
        )
    };
    assert_eq!(result, 0, "{path:?}: {}", Error::last_os_error());
    handle
}

#[allow(unsafe_code, reason = "no safe wrapper has the call")]
fn open_handle(mount: &File, handle: &Handle) -> Result<File> {
    let (call, mount) = (libc::SYS_open_by_handle_at, mount.as_raw_fd());
    // SAFETY: the handle is one that the kernel has written.
    let fd = unsafe { libc::syscall(call, mount, &raw const *handle, libc::O_RDONLY) };
    match i32::try_from(fd).unwrap() {
        -1 => Err(Error::last_os_error()),
        // SAFETY: the call has opened it for us.
        fd => Ok(unsafe { File::from_raw_fd(fd) }),
    }
}

/// Has the kernel forget files that nobody uses.
fn forget() {
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

const LAYER: &str =
    "mkdir -p d/sub && for f in low written d/in d/sub/deep gone removed; do echo $f > $f; done
    ln low linked && mkdir dir-gone";

/// Every way for a file to be somewhere else than it was.
const CHANGES: &str = "echo written >> written && mv written d/moved && chmod 600 d/in && mv d e
    echo new > e/new && mkdir made && echo new > made/inside && rm gone && rm -r dir-gone";

const SHOWN: [&str; 10] = [
    "low",
    "linked",
    "e",
    "e/moved",
    "e/in",
    "e/sub",
    "e/sub/deep",
    "e/new",
    "made",
    "made/inside",
];

/// What two names of a file of a layer are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    Kept,
    Broken,
}

/// Returns the handle, the number and the content of what is shown.
fn taken(merged: &Path, path: &str) -> (PathBuf, Handle, u64, String) {
    let path = merged.join(path);
    let stat = fs::symlink_metadata(&path).unwrap();
    let content = if stat.is_dir() { listing(&path) } else { fs::read_to_string(&path).unwrap() };
    let handle = handle_of(&path);
    (path, handle, stat.ino(), content)
}

fn listing(dir: &Path) -> String {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    format!("{names:?}")
}

fn check(merged: &Path, links: Links) {
    script(CHANGES, merged);
    let mount = File::open(merged).unwrap();
    let all = SHOWN.map(|path| taken(merged, path));
    for (path, handle, number, content) in &all {
        forget();
        let mut file = open_handle(&mount, handle).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let stat = file.metadata().unwrap();
        assert_eq!(stat.ino(), *number, "{path:?}");
        let mut text = String::new();
        if stat.is_dir() {
            text = listing(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())));
        } else {
            file.read_to_string(&mut text).unwrap();
        }
        assert_eq!(text, *content, "{path:?}");
    }
    let lost = taken(merged, "removed");
    script("rm -r removed e/moved e/new made && rm low", merged);
    // Their inodes are given to others.
    for number in 0..50 {
        fs::write(merged.join(format!("follows-{number}")), "another\n").unwrap();
    }
    forget();
    for (path, handle, number, content) in all.iter().chain([&lost]) {
        let found = open_handle(&mount, handle);
        let name = path.strip_prefix(merged).unwrap().to_str().unwrap();
        match name {
            "removed" | "e/moved" | "e/new" | "made" | "made/inside" => {
                assert_eq!(found.unwrap_err().raw_os_error(), Some(libc::ESTALE), "{name}");
            }
            "low" if links == Links::Broken => {
                assert_eq!(found.unwrap_err().raw_os_error(), Some(libc::ESTALE), "{name}");
            }
            // The file has another name.
            "low" | "linked" => {
                let mut file = found.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(file.metadata().unwrap().ino(), *number);
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, *content);
            }
            _ => assert_eq!(found.unwrap().metadata().unwrap().ino(), *number, "{name}"),
        }
    }
}

#[test]
fn a_handle_leads_to_its_file_in_an_image_for_as_long_as_it_is_there() {
    let session = Session::new(Who::Root);
    script(LAYER, &session.dir("image"));
    session.run(&["import", "image", "test/handles"]);
    let mount = session.dir("mount");
    session.run(&["create", "--name", "handles", "test/handles"]);
    session.run(&["mount", "handles", "mount"]);
    check(&mount, Links::Kept);
    session.unmount("mount");
    // The image itself, which cannot be changed.
    session.run(&["mount", "test/handles", "mount"]);
    let opened = File::open(&mount).unwrap();
    let (_, handle, number, content) = taken(&mount, "d/sub/deep");
    forget();
    let file = open_handle(&opened, &handle).unwrap();
    assert_eq!(file.metadata().unwrap().ino(), number);
    assert_eq!(std::io::read_to_string(file).unwrap(), content);
}

#[test]
fn a_handle_leads_to_its_file_in_plain_directories_for_as_long_as_it_is_there() {
    for (more, links) in [("", Links::Kept), (",nfs_export=on,index=off", Links::Broken)] {
        let session = Session::new(Who::Root);
        for name in ["upper", "work"] {
            session.dir(name);
        }
        script(LAYER, &session.dir("low"));
        let mount = session.dir("mount");
        let options = format!("lowerdir=low,upperdir=upper,workdir=work,metacopy=on{more}");
        session.run(&["overlay", "-o", &options, "mount"]);
        check(&mount, links);
    }
}
