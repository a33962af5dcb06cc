//! Every operation of a file system, with its server killed at each of the system calls that it makes:
//! before and after the change, before and after the answer. Programs must see what they see when
//! nobody is killed.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use nix::fcntl::{AtFlags, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, mknod};

use crate::common::{Lower, Tree, Who, differences, forget_times, tree_of};
use crate::survive::Held;
use crate::survive::tracer::{When, kill_at};

/// An operation, in a folder that has what [`fill`] makes; what it returns a program sees.
struct Case {
    name: &'static str,
    prepare: fn(&Path) -> io::Result<()>,
    act: fn(&Path) -> io::Result<String>,
}

fn fill(dir: &Path) {
    fs::create_dir_all(dir.join("dir/sub")).unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    for (name, content) in [("file", "content\n"), ("other", "other\n"), ("dir/child", "child\n")] {
        fs::write(dir.join(name), content).unwrap();
    }
    fs::hard_link(dir.join("file"), dir.join("hard")).unwrap();
    symlink("file", dir.join("link")).unwrap();
}

fn nothing(_: &Path) -> io::Result<()> {
    Ok(())
}

fn done(result: io::Result<()>) -> io::Result<String> {
    result.map(|()| "done".to_owned())
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<String> {
    done(Ok(renameat2(nix::fcntl::AT_FDCWD, from, nix::fcntl::AT_FDCWD, to, flags)?))
}

/// Describes a file that is open and what is read from it.
fn opened(mut file: File) -> io::Result<String> {
    let (metadata, mut text) = (file.metadata()?, String::new());
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    Ok(format!("{text:?} links {} mode {:o}", metadata.nlink(), metadata.mode()))
}

#[allow(unsafe_code, reason = "the standard library has no flags for attributes")]
fn set_new_xattr(path: &Path, value: &[u8]) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let (name, flags) = (c"user.survive", libc::XATTR_CREATE);
    // SAFETY: both strings end with a zero, and the value is as long as is said.
    let set = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const CASES: &[Case] = &[
    Case {
        name: "create",
        prepare: nothing,
        act: |dir| {
            let mut options = OpenOptions::new();
            let options = options.write(true).read(true).create_new(true).mode(0o604);
            let mut file = options.open(dir.join("new"))?;
            file.write_all(b"new\n")?;
            opened(file)
        },
    },
    Case {
        name: "create where something was",
        prepare: |dir| fs::remove_file(dir.join("other")),
        act: |dir| {
            let mut options = OpenOptions::new();
            let options = options.write(true).read(true).create_new(true).mode(0o440);
            let mut file = options.open(dir.join("other"))?;
            file.write_all(b"new\n")?;
            opened(file)
        },
    },
    Case {
        name: "mkdir",
        prepare: nothing,
        act: |dir| {
            fs::create_dir(dir.join("new"))?;
            done(fs::write(dir.join("new/file"), "in it\n"))
        },
    },
    Case {
        name: "mkdir where something was",
        prepare: |dir| fs::remove_dir_all(dir.join("dir")),
        act: |dir| done(fs::create_dir(dir.join("dir"))),
    },
    Case { name: "symlink", prepare: nothing, act: |dir| done(symlink("target", dir.join("new"))) },
    Case {
        name: "fifo",
        prepare: nothing,
        act: |dir| {
            let mode = Mode::from_bits_truncate(0o620);
            done(Ok(mknod(&dir.join("new"), SFlag::S_IFIFO, mode, 0)?))
        },
    },
    Case {
        name: "link",
        prepare: nothing,
        act: |dir| done(fs::hard_link(dir.join("hard"), dir.join("new"))),
    },
    Case {
        name: "link where something was",
        prepare: |dir| fs::remove_file(dir.join("other")),
        act: |dir| done(fs::hard_link(dir.join("file"), dir.join("other"))),
    },
    Case {
        name: "unlink one of two names",
        prepare: nothing,
        act: |dir| {
            let file = File::open(dir.join("hard"))?;
            fs::remove_file(dir.join("file"))?;
            opened(file)
        },
    },
    Case {
        name: "unlink what is open",
        prepare: nothing,
        act: |dir| {
            let mut file = OpenOptions::new().read(true).append(true).open(dir.join("other"))?;
            fs::remove_file(dir.join("other"))?;
            file.write_all(b"more\n")?;
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            opened(file)
        },
    },
    Case { name: "rmdir", prepare: nothing, act: |dir| done(fs::remove_dir(dir.join("empty"))) },
    Case {
        name: "rmdir of what is open",
        prepare: nothing,
        act: |dir| {
            let open = File::open(dir.join("empty"))?;
            fs::remove_dir(dir.join("empty"))?;
            Ok(format!("links {}", open.metadata()?.nlink()))
        },
    },
    Case {
        name: "rename",
        prepare: nothing,
        act: |dir| done(fs::rename(dir.join("other"), dir.join("dir/new"))),
    },
    Case {
        name: "rename over a file that is open",
        prepare: nothing,
        act: |dir| {
            let file = File::open(dir.join("other"))?;
            fs::rename(dir.join("dir/child"), dir.join("other"))?;
            opened(file)
        },
    },
    Case {
        name: "rename over one of two names",
        prepare: nothing,
        act: |dir| done(fs::rename(dir.join("other"), dir.join("hard"))),
    },
    Case {
        name: "rename of a directory",
        prepare: nothing,
        act: |dir| {
            fs::rename(dir.join("dir"), dir.join("moved"))?;
            fs::read_to_string(dir.join("moved/child"))
        },
    },
    Case {
        name: "rename of a directory over an empty one",
        prepare: nothing,
        act: |dir| done(fs::rename(dir.join("dir"), dir.join("empty"))),
    },
    Case {
        name: "rename to where something was",
        prepare: |dir| fs::remove_dir(dir.join("empty")),
        act: |dir| done(fs::rename(dir.join("dir"), dir.join("empty"))),
    },
    Case {
        name: "exchange",
        prepare: nothing,
        act: |dir| rename(&dir.join("file"), &dir.join("dir"), RenameFlags::RENAME_EXCHANGE),
    },
    Case {
        name: "rename that replaces nothing",
        prepare: nothing,
        act: |dir| rename(&dir.join("other"), &dir.join("new"), RenameFlags::RENAME_NOREPLACE),
    },
    Case {
        name: "rename that may not replace",
        prepare: nothing,
        act: |dir| {
            let refused =
                rename(&dir.join("other"), &dir.join("file"), RenameFlags::RENAME_NOREPLACE);
            Ok(refused.unwrap_err().to_string())
        },
    },
    Case {
        name: "append",
        prepare: nothing,
        act: |dir| {
            let mut file = OpenOptions::new().read(true).append(true).open(dir.join("file"))?;
            file.write_all(b"one\n")?;
            file.write_all(b"two\n")?;
            opened(file)
        },
    },
    Case {
        name: "write in the middle",
        prepare: nothing,
        act: |dir| {
            let file = OpenOptions::new().read(true).write(true).open(dir.join("file"))?;
            file.write_all_at(b"TEN", 3)?;
            file.sync_all()?;
            opened(file)
        },
    },
    Case {
        name: "truncate",
        prepare: nothing,
        act: |dir| {
            let file = OpenOptions::new().read(true).write(true).open(dir.join("file"))?;
            file.set_len(3)?;
            file.set_len(5)?;
            opened(file)
        },
    },
    Case {
        name: "open and truncate",
        prepare: nothing,
        act: |dir| done(fs::write(dir.join("other"), "anew\n")),
    },
    Case {
        name: "chmod",
        prepare: nothing,
        act: |dir| {
            fs::set_permissions(dir.join("dir"), fs::Permissions::from_mode(0o750))?;
            done(fs::set_permissions(dir.join("hard"), fs::Permissions::from_mode(0o600)))
        },
    },
    Case {
        name: "new attribute",
        prepare: nothing,
        act: |dir| done(set_new_xattr(&dir.join("file"), b"value")),
    },
    Case {
        name: "attribute that is there",
        prepare: |dir| xattr::set(dir.join("file"), "user.survive", b"value"),
        act: |dir| Ok(set_new_xattr(&dir.join("file"), b"value").unwrap_err().to_string()),
    },
    Case {
        name: "remove an attribute",
        prepare: |dir| xattr::set(dir.join("file"), "user.survive", b"value"),
        act: |dir| {
            xattr::remove(dir.join("file"), "user.survive")?;
            let again = xattr::remove(dir.join("file"), "user.survive");
            Ok(again.unwrap_err().to_string())
        },
    },
    Case {
        name: "allocate",
        prepare: nothing,
        act: |dir| {
            let file = OpenOptions::new().read(true).write(true).open(dir.join("file"))?;
            nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 4, 60)?;
            Ok(format!("{} bytes", file.metadata()?.len()))
        },
    },
    Case {
        name: "copy a range",
        prepare: nothing,
        act: |dir| {
            let from = File::open(dir.join("other"))?;
            let to = OpenOptions::new().read(true).write(true).open(dir.join("file"))?;
            let (mut start, mut end) = (0, 4);
            nix::fcntl::copy_file_range(&from, Some(&mut start), &to, Some(&mut end), 5)?;
            opened(to)
        },
    },
    Case {
        name: "a file that gets its name later",
        prepare: nothing,
        act: |dir| {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o640);
            let mut file = options.open(dir)?;
            file.write_all(b"nameless\n")?;
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let (here, new) = (nix::fcntl::AT_FDCWD, dir.join("new"));
            nix::unistd::linkat(here, path.as_str(), here, &new, AtFlags::AT_SYMLINK_FOLLOW)?;
            opened(file)
        },
    },
    Case {
        name: "list",
        prepare: |dir| fs::write(dir.join("dir/new"), ""),
        act: |dir| {
            let names = fs::read_dir(dir.join("dir"))?.map(|entry| Ok(entry?.file_name()));
            let mut names = names.collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(format!("{names:?}"))
        },
    },
];

/// Where the files of a case are.
#[derive(Clone, Copy, Debug)]
enum At {
    Lower,
    /// In the lower, and their attributes in the upper.
    Both,
    Upper,
}

/// Describes a folder, but for times: they are those of another moment.
fn seen(dir: &Path) -> Tree {
    let mut tree = tree_of(dir);
    forget_times(&mut tree, |_, _| true);
    tree
}

/// The folders of a mount that nobody has used yet.
struct Folders<'a> {
    held: &'a Held,
    who: Who,
    next: usize,
}

impl Folders<'_> {
    /// Does what a case needs before, in a new folder.
    fn prepare(&mut self, case: &Case, at: At) -> String {
        let name = format!("{:04}", self.next);
        self.next += 1;
        let dir = self.held.path(&name);
        self.who.act(|| {
            if let At::Upper = at {
                fs::remove_dir_all(&dir).unwrap();
                fill(&dir);
            }
            if let At::Both = at {
                for name in ["file", "other", "dir/child", "dir", "empty"] {
                    let mode = fs::metadata(dir.join(name)).unwrap().mode() & 0o777 ^ 0o010;
                    let mode = fs::Permissions::from_mode(mode);
                    fs::set_permissions(dir.join(name), mode).unwrap();
                }
            }
            (case.prepare)(&dir).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        });
        name
    }

    /// Runs a case; tells what it said and what is there then.
    fn run(&self, case: &Case, name: &str) -> (String, Tree) {
        let dir = self.held.path(name);
        self.who.act(|| {
            let said = (case.act)(&dir).unwrap_or_else(|error| format!("error: {error}"));
            (said, seen(&dir))
        })
    }

    /// Runs a case with the server killed at one of its calls; none if it does not make so many.
    fn run_killed(
        &self,
        case: &Case,
        name: &str,
        (number, when): (usize, When),
    ) -> Option<(String, Tree)> {
        let (is_over, server) = (AtomicBool::new(false), self.held.server());
        std::thread::scope(|scope| {
            let (ready, is_ready) = channel::<()>();
            let tracer =
                scope.spawn(|| kill_at(server, number, when, move || drop(ready), &is_over));
            // It is dropped when the server is followed.
            assert!(is_ready.recv().is_err());
            let dir = self.held.path(name);
            let act = || (case.act)(&dir).unwrap_or_else(|error| format!("error: {error}"));
            let said = self.who.act(act);
            is_over.store(true, Ordering::Release);
            let killed = tracer.join().unwrap();
            killed.then(|| (said, self.who.act(|| seen(&dir))))
        })
    }
}

/// Runs every case in a mount: once undisturbed, then with every `step`th of its calls killed, of which
/// the first is that of a number.
fn in_a_mount(who: Who, lower: Lower, (first, step): (usize, usize)) {
    // Each try has a folder.
    let folders = CASES.len() * 3 * (1 + 80_usize.div_ceil(step));
    let mut held = Held::new(who, lower, |dir| {
        for number in 0..folders {
            let folder = dir.join(format!("{number:04}"));
            fs::create_dir(&folder).unwrap();
            fill(&folder);
        }
    });
    let mut folders = Folders { held: &held, who, next: 0 };
    let (mut kills, mut offset) = (0, first);
    for case in CASES {
        for at in [At::Lower, At::Both, At::Upper] {
            let undisturbed = folders.prepare(case, at);
            let expected = folders.run(case, &undisturbed);
            assert!(!expected.0.starts_with("error"), "{} {at:?}: {}", case.name, expected.0);
            let points = (1..).flat_map(|number| [(number, When::Before), (number, When::After)]);
            for point in points.skip(offset).step_by(step) {
                let name = folders.prepare(case, at);
                let Some(found) = folders.run_killed(case, &name, point) else { break };
                let told = format!("{} {at:?}, killed at {point:?}", case.name);
                assert_eq!(found.0, expected.0, "{told}");
                assert_eq!(differences(&expected.1, &found.1), Vec::<String>::new(), "{told}");
                kills += 1;
            }
            // Early and late ones by turns.
            offset = (offset + 23) % step;
        }
    }
    eprintln!("{who:?}, {lower:?}: {kills} servers were killed at their calls");
    assert!(kills >= CASES.len() / 2, "{kills}");
    assert_eq!(held.unmount(), 0);
}

/// Runs every case with a part of its calls killed that is always the same, or with all of them.
fn everywhere(who: Who, lower: Lower, first: usize) {
    if std::env::var_os("STRATA_SURVIVE_ALL").is_none() {
        eprintln!("every {STEP}th call, from number {first} on; all with STRATA_SURVIVE_ALL=1");
        return in_a_mount(who, lower, (first, STEP));
    }
    // A server of plain directories looks through them: there are to be few.
    for first in 0..SMALL_STEP {
        in_a_mount(who, lower, (first, SMALL_STEP));
    }
}

const STEP: usize = 61;
const SMALL_STEP: usize = 17;

#[test]
fn a_server_killed_at_any_call_is_not_noticed() {
    everywhere(Who::Root, Lower::Image, 0);
}

#[test]
fn a_server_of_a_user_killed_at_any_call_is_not_noticed() {
    everywhere(Who::User, Lower::Image, 20);
}

#[test]
fn a_server_of_plain_directories_killed_at_any_call_is_not_noticed() {
    everywhere(Who::Root, Lower::Dirs, 40);
}
