//! Options of the driver for plain directories, held against the kernel's driver where it has them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Error;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::cli::overlay::{Stack, mount_kernel, unmount_kernel};
use crate::common::{Who, differences, mounts_below, script, tree_of};

/// Returns the names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into()).collect();
    names.sort();
    names
}

fn number(error: &Error) -> i32 {
    error.raw_os_error().unwrap_or_default()
}

/// What a program gets of paths that marks lead to, and of those beside them.
fn lookups(merged: &Path) -> Vec<String> {
    let mut said = vec![format!("{:?} {:?}", names(merged), names(&merged.join("e")))];
    for path in [
        "moved",
        "e/beside",
        "e/alone",
        "low-moved",
        "content",
        "d",
        "moved/x",
        "both",
        "pure/in",
        "pure/in/x",
        "last",
    ] {
        said.push(match fs::symlink_metadata(merged.join(path)) {
            Ok(found) => format!("{path}: {:o}", found.mode()),
            Err(error) => format!("{path}: {error}"),
        });
    }
    said
}

#[test]
fn nofollow_refuses_what_a_redirect_leads_to_as_the_kernel_does() {
    let mut all = Vec::new();
    for kernel in [true, false] {
        let stack = Stack::new(Who::Root);
        script("mkdir -p f/sub g && echo g > g/x && echo c > c", &stack.session.path("low"));
        stack.mount(",metacopy=on");
        script("mv d moved && mv f/sub e/beside && chmod 600 c && mv c content", &stack.merged);
        stack.session.detach(&stack.merged);
        // One in a layer, and one that leads nowhere.
        script(
            "mkdir low-moved && setfattr -n trusted.overlay.redirect -v /g low-moved
                mkdir ../low/last && setfattr -n trusted.overlay.redirect -v nowhere ../low/last",
            &stack.session.path("top"),
        );
        script(
            "mkdir e/alone && setfattr -n trusted.overlay.redirect -v nowhere e/alone
                mkdir -p pure/in && setfattr -n trusted.overlay.redirect -v /g pure/in",
            &stack.session.path("upper"),
        );
        let option = ",redirect_dir=nofollow";
        if kernel {
            mount_kernel(&stack, option);
        } else {
            stack.mount(option);
        }
        all.push(lookups(&stack.merged));
        let refused = |done: std::io::Result<()>| number(&done.unwrap_err());
        let at = |name: &str| stack.merged.join(name);
        assert_eq!(refused(fs::remove_dir(at("moved"))), libc::EPERM);
        assert_eq!(refused(fs::rename(at("moved"), at("again"))), libc::EPERM);
        assert_eq!(refused(fs::rename(at("g"), at("again"))), libc::EXDEV);
        // What is hidden is not in the way of anything.
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/new"), "").unwrap();
        assert_eq!(names(&at("d")), ["new"]);
        if kernel {
            unmount_kernel(&stack);
        } else {
            assert_eq!(fs::symlink_metadata(&stack.merged).unwrap().nlink(), 10);
            stack.session.detach(&stack.merged);
            // The same as layers, without an upper.
            let options = format!("lowerdir=upper:top:low{option}");
            stack.session.run(&["overlay", "-o", &options, "merged"]);
            let refused = fs::symlink_metadata(at("moved")).unwrap_err();
            assert_eq!(number(&refused), libc::EPERM);
            let refused = fs::symlink_metadata(at("content")).unwrap_err();
            assert_eq!(number(&refused), libc::EPERM);
            assert!(names(&stack.merged).contains(&"moved".to_owned()));
        }
    }
    assert_eq!(all[0], all[1]);
    assert!(all[1].contains(&"moved: Operation not permitted (os error 1)".to_owned()), "{all:?}");
}

/// Content and number of links of all names that were one file, and what the upper has of it.
fn links(stack: &Stack) -> Vec<String> {
    let mut said = Vec::new();
    for name in ["a", "b", "c", "d/d", "new"] {
        let path = stack.merged.join(name);
        if let Ok(content) = fs::read_to_string(&path) {
            let links = fs::symlink_metadata(&path).unwrap().nlink();
            said.push(format!("{name} {links} {content:?}"));
        }
    }
    said
}

fn with_links() -> Stack {
    let stack = Stack::new(Who::Root);
    script(
        "echo low > a && ln a b && ln a c && ln a d/d && ln -s x l && ln l m",
        &stack.session.path("low"),
    );
    stack
}

#[test]
fn without_an_index_hard_links_break_as_in_the_kernel() {
    let mut all = Vec::new();
    for kernel in [true, false] {
        let stack = with_links();
        let option = ",index=off,metacopy=off,redirect_dir=off";
        if kernel {
            mount_kernel(&stack, option);
        } else {
            stack.mount(option);
        }
        let mut said = vec![links(&stack)];
        for change in [
            "echo more >> a",
            "chmod 600 b",
            "ln c new",
            "echo of-new >> new",
            "rm b",
            "mv d/d d/e && mv d/e d/d && echo x > d/d",
            "chown -h 7 l && test $(stat -c %u m) = 0",
        ] {
            script(change, &stack.merged);
            said.push(links(&stack));
        }
        all.push(said);
        if kernel {
            unmount_kernel(&stack);
        } else {
            assert_eq!(names(&stack.session.path("work")), ["work"]);
        }
    }
    assert_eq!(all[0], all[1]);
}

#[test]
fn without_an_index_every_name_is_a_file_with_a_number_that_stays() {
    let stack = with_links();
    let numbers = || -> Vec<_> {
        let mut found = Vec::new();
        for dir in ["", "d"] {
            for entry in fs::read_dir(stack.merged.join(dir)).unwrap().map(Result::unwrap) {
                use std::os::unix::fs::DirEntryExt;
                let ino = fs::symlink_metadata(entry.path()).unwrap().ino();
                assert_eq!(entry.ino(), ino, "{:?}", entry.path());
                found.push((entry.path(), ino));
            }
        }
        found.sort();
        let unique: BTreeSet<_> = found.iter().map(|(_, ino)| *ino).collect();
        assert_eq!(unique.len(), found.len(), "{found:?}");
        found
    };
    stack.mount(",index=off");
    let before = numbers();
    // Who has one open sees nothing of what becomes of the others.
    let open = File::open(stack.merged.join("b")).unwrap();
    fs::write(stack.merged.join("a"), "written\n").unwrap();
    fs::remove_file(stack.merged.join("c")).unwrap();
    fs::write(stack.merged.join("c"), "new\n").unwrap();
    fs::remove_file(stack.merged.join("c")).unwrap();
    assert_eq!(std::io::read_to_string(open).unwrap(), "low\n");
    let after = numbers();
    let without = |list: &[(std::path::PathBuf, u64)]| -> Vec<_> {
        list.iter().filter(|(path, _)| !path.ends_with("c")).cloned().collect()
    };
    assert_eq!(without(&before), after);
    stack.session.detach(&stack.merged);
    stack.mount(",index=off");
    assert_eq!(numbers(), after);
    assert_eq!((stack.text("a").as_str(), stack.text("b").as_str()), ("written\n", "low\n"));
    // An upper that was written with an index is read without one, and the other way round.
    stack.session.detach(&stack.merged);
    stack.mount("");
    fs::write(stack.merged.join("b"), "indexed\n").unwrap();
    assert_eq!((stack.text("a").as_str(), stack.text("d/d").as_str()), ("written\n", "indexed\n"));
    stack.session.detach(&stack.merged);
    stack.mount(",index=off");
    assert_eq!((stack.text("b").as_str(), stack.text("d/d").as_str()), ("indexed\n", "low\n"));
    numbers();
}

#[test]
fn without_attributes_there_are_none_to_see_or_set() {
    for (option, has) in [(",noxattrs=1", false), (",noxattrs", false), (",noxattrs=0", true)] {
        let stack = Stack::new(Who::Root);
        let both = stack.merged.join("both");
        xattr::set(stack.session.path("top/both"), "user.note", b"x").unwrap();
        stack.mount(option);
        let refused = |error: Error| assert_eq!(number(&error), libc::EOPNOTSUPP, "{option}");
        if has {
            assert_eq!(xattr::get(&both, "user.note").unwrap().unwrap(), b"x");
            continue;
        }
        for _ in 0..2 {
            xattr::get(&both, "user.note").map_err(refused).unwrap_err();
            xattr::set(&both, "user.other", b"y").map_err(refused).unwrap_err();
            xattr::remove(&both, "user.note").map_err(refused).unwrap_err();
            let listed = xattr::list(&both).map(drop).map_err(refused);
            listed.unwrap_err();
        }
        // Those of the layers are kept all the same, and the marks of the upper work.
        script("chmod 600 both && rm d/low && mv d moved && mkdir d", &stack.merged);
        assert_eq!(names(&stack.merged.join("moved")), ["sub", "top"]);
        stack.session.detach(&stack.merged);
        stack.mount("");
        assert_eq!(xattr::get(&both, "user.note").unwrap().unwrap(), b"x");
    }
}

#[test]
fn marks_are_below_user_where_the_option_says_so() {
    let stack = Stack::new(Who::Root);
    stack.mount(",userxattr");
    script("rm -r e && mkdir e && touch e/only && rm both && mv d moved", &stack.merged);
    let written = tree_of(&stack.merged);
    stack.session.detach(&stack.merged);
    for name in ["e", "moved"] {
        let listed = xattr::list(stack.session.path("upper").join(name)).unwrap();
        let marks: Vec<_> = listed.map(|name| name.into_string().unwrap()).collect();
        assert!(marks.iter().any(|name| name.starts_with("user.overlay.")), "{marks:?}");
        assert!(!marks.iter().any(|name| name.starts_with("trusted.")), "{marks:?}");
    }
    stack.mount(",userxattr");
    assert_eq!(differences(&written, &tree_of(&stack.merged)), Vec::<String>::new());
    stack.session.detach(&stack.merged);
    mount_kernel(&stack, ",userxattr");
    assert_eq!(names(&stack.merged.join("e")), ["only"]);
    unmount_kernel(&stack);
}

/// Every way to make a file or to give it another owner or mode.
const MAKING: &str = "umask 0
    mkdir -m 2751 dir\n touch file\n chmod 4640 file\n mknod -m 620 null c 1 3
    mknod -m 660 disk b 8 0\n mknod -m 600 zero c 0 0\n mkfifo -m 604 fifo
    ln -s target slink\n chown -h 5:6 slink\n ln file second\n ln -s other root-link
    chown 7:8 dir\n chown 9:10 fifo\n chmod 751 d\n chown 11:12 both
    mkdir dir/below\n touch dir/below/file\n mv d moved\n rm second\n ln slink slink2";

#[test]
fn owners_and_modes_are_in_the_mark_that_the_option_names() {
    for (option, mark, other) in [
        (",xattr_permissions=1", "security.fuseoverlayfs.override_stat", "user.containers."),
        (",xattr_permissions=2", "user.containers.override_stat", "security.fuseoverlayfs."),
    ] {
        let stack = Stack::new(Who::Root);
        stack.mount(option);
        script(MAKING, &stack.merged);
        drop(UnixListener::bind(stack.merged.join("socket")).unwrap());
        chown(stack.merged.join("socket"), Some(13), None).unwrap();
        let stat = |name: &str| {
            let stat = fs::symlink_metadata(stack.merged.join(name)).unwrap();
            format!("{:o} {}:{} {:x}", stat.mode(), stat.uid(), stat.gid(), stat.rdev())
        };
        for (name, shown) in [
            ("dir", "42751 7:8 0"),
            ("file", "104640 0:0 0"),
            ("null", "20620 0:0 103"),
            ("disk", "60660 0:0 800"),
            ("zero", "20600 0:0 0"),
            ("fifo", "10604 9:10 0"),
            ("slink", "120777 5:6 0"),
            ("slink2", "120777 5:6 0"),
            ("root-link", "120777 0:0 0"),
            ("moved", "40751 0:0 0"),
            ("both", "100644 11:12 0"),
            ("dir/below", "42777 0:8 0"),
            ("dir/below/file", "100666 0:8 0"),
        ] {
            assert_eq!(stat(name), shown, "{name}, {option}");
        }
        assert!(stat("socket").starts_with("14") && stat("socket").ends_with(" 13:0 0"));
        assert_eq!(fs::read_link(stack.merged.join("slink2")).unwrap(), Path::new("target"));
        let shown = tree_of(&stack.merged);
        stack.session.detach(&stack.merged);
        let upper = stack.session.path("upper");
        for name in names(&upper) {
            let path = upper.join(&name);
            let stat = fs::symlink_metadata(&path).unwrap();
            if stat.file_type().is_char_device() && stat.rdev() == 0 {
                continue;
            }
            assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o6000), (0, 0, 0), "{name}");
            assert!(stat.is_dir() || stat.is_file() || name == "root-link", "{name} {stat:?}");
            let listed: Vec<_> = xattr::list(&path).unwrap().collect();
            assert_eq!(listed.iter().any(|name| name == mark), name != "root-link", "{name}");
            assert!(!listed.iter().any(|name| name.to_string_lossy().starts_with(other)));
        }
        let file = xattr::get(upper.join("file"), mark).unwrap().unwrap();
        assert_eq!(String::from_utf8(file).unwrap(), "0:0:4640");
        stack.mount(option);
        assert_eq!(differences(&shown, &tree_of(&stack.merged)), Vec::<String>::new());
        // A program sees nothing of the mark.
        assert_eq!(xattr::get(stack.merged.join("file"), mark).unwrap(), None);
        let set = xattr::set(stack.merged.join("file"), mark, b"0:0:777").unwrap_err();
        assert_eq!(number(&set), libc::EPERM);
        stack.session.detach(&stack.merged);
        as_a_layer(&stack, option, &shown);
    }
}

/// What was written is read the same when it is a layer.
fn as_a_layer(stack: &Stack, option: &str, shown: &crate::common::Tree) {
    let layers = ["upper", "top", "low"].map(|name| stack.session.path(name).display().to_string());
    let options = format!("lowerdir={}{option}", layers.join(":"));
    stack.session.run(&["overlay", "-o", &options, "merged"]);
    let tree = tree_of(&stack.merged);
    assert_eq!(differences(shown, &tree), Vec::<String>::new(), "{option}");
    for entry in fs::read_dir(&stack.merged).unwrap().map(Result::unwrap) {
        let kind = fs::symlink_metadata(entry.path()).unwrap().file_type();
        assert_eq!(entry.file_type().unwrap(), kind, "{:?}", entry.path());
    }
    stack.session.detach(&stack.merged);
    // And copied up from there.
    let [next, work] = ["next", "next-work"].map(|name| stack.session.dir(name));
    let options = format!("{options},upperdir={},workdir={}", next.display(), work.display());
    stack.session.run(&["overlay", "-o", &options, "merged"]);
    script("chown -h 20:21 fifo null slink2 dir/below/file && echo x >> file", &stack.merged);
    for name in ["fifo", "null", "slink2", "dir/below/file"] {
        let stat = fs::symlink_metadata(stack.merged.join(name)).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (20, 21), "{name}, {option}");
    }
    assert_eq!(fs::read_link(stack.merged.join("slink2")).unwrap(), Path::new("target"));
    stack.session.detach(&stack.merged);
    for dir in [next, work] {
        fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn a_mark_of_the_privileged_takes_privilege() {
    let stack = Stack::new(Who::User);
    let options = stack.options(",xattr_permissions=1");
    let said = stack.session.refused(&["overlay", "-o", &options, "merged"]);
    assert!(said.contains("xattr_permissions=1") && said.contains("privilege"), "{said}");
}

#[test]
fn options_that_change_nothing_are_accepted_and_said() {
    let stack = Stack::new(Who::Root);
    let needless = ["xino=on", "nfs_export=on", "writeback", "threaded=1", "nfs_filehandles=1"];
    let options = stack.options(&format!(",{}", needless.join(",")));
    stack.session.run(&["overlay", "-o", &options, "merged"]);
    assert_eq!(stack.text("both"), "top\n");
    let said = stack.session.refused(&["overlay", "-d", "-o", &options, "nowhere"]);
    for option in needless {
        assert!(said.contains(&format!("option {option} changes nothing here: ")), "{said}");
    }
}

#[test]
fn options_of_every_mount_and_their_opposites_work() {
    let stack = Stack::new(Who::Root);
    let flags = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = mounts.lines().find(|line| line.contains(stack.merged.to_str().unwrap()));
        line.unwrap().split(' ').nth(5).unwrap().to_owned()
    };
    for (options, has) in [
        (",nosuid,nodev,noexec,noatime", "rw,nosuid,nodev,noexec,noatime"),
        (",nosuid,nodev,noexec,noatime,suid,dev,exec,atime", "rw,relatime"),
        (",ro,nodiratime", "ro,nodiratime,relatime"),
        (",ro,rw,allow_other,default_permissions,suid,dev", "rw,relatime"),
    ] {
        stack.mount(options);
        assert_eq!(flags(), has, "{options}");
        assert_eq!(stack.text("both"), "top\n");
        stack.session.detach(&stack.merged);
    }
}

#[test]
fn an_option_with_a_wrong_value_is_named() {
    let stack = Stack::new(Who::Root);
    for option in [
        "redirect_dir=maybe",
        "redirect_dir",
        "index=auto",
        "metacopy=yes",
        "xino=maybe",
        "nfs_export=1",
        "noxattrs=2",
        "xattr_permissions=3",
        "fsync=2",
        "squash_to_uid=me",
        "gidmapping=1:2",
        "uidmapping=a:b:c",
        "plugins=x",
        "squash_to_root=1",
        "static_nlink=1",
        "userxattr=1",
        "volatile=1",
        "verity=on",
        "metacopy=on,redirect_dir=nofollow",
    ] {
        let options = stack.options(&format!(",{option}"));
        let said = stack.session.refused(&["overlay", "-o", &options, "merged"]);
        let named = option.split(',').next().unwrap();
        assert!(said.starts_with("Error: ") && said.contains(named), "{option}: {said}");
        assert!(mounts_below(&stack.session.path("")).is_empty(), "{option}");
    }
}

#[test]
fn paths_with_colons_commas_and_backslashes_are_escaped() {
    let stack = Stack::new(Who::Root);
    for name in [r"a:b", r"c,d", r"e\f"] {
        fs::create_dir(stack.session.path(name)).unwrap();
        fs::write(stack.session.path(name).join("of"), name).unwrap();
        fs::write(stack.session.path(name).join(format!("in {name}")), "").unwrap();
    }
    symlink("top", stack.session.path("by-link")).unwrap();
    chown(stack.session.path("a:b"), Some(3), None).unwrap();
    fs::set_permissions(stack.session.path("a:b"), fs::Permissions::from_mode(0o750)).unwrap();
    let options = r"lowerdir=a\:b:c\,d:e\\f:by-link,upperdir=upper,workdir=work";
    stack.session.run(&["overlay", "-o", options, "merged"]);
    assert_eq!(stack.text("of"), "a:b");
    assert_eq!(stack.text("both"), "top\n");
    for name in [r"in a:b", r"in c,d", r"in e\f"] {
        assert!(stack.merged.join(name).exists(), "{name}");
    }
}
