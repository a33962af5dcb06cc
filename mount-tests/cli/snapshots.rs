//! States of a container that are kept, and gone back to: mounted or not, interrupted, without room.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Session, Tree, Who, differences, mounts_below, spawn, succeed, tree_of};

/// Returns a session with the container `box` of an image with two folders and hard links, mounted at
/// `mount`.
fn with_container(who: Who) -> Session {
    let session = Session::new(who);
    let image = session.dir("image");
    for dir in ["kept", "renamed", "removed", "replaced"] {
        fs::create_dir(image.join(dir)).unwrap();
        for name in ["a", "b"] {
            fs::write(image.join(dir).join(name), format!("{dir}/{name}\n").repeat(1000)).unwrap();
        }
    }
    fs::hard_link(image.join("kept/a"), image.join("linked")).unwrap();
    fs::write(image.join("deleted"), "deleted\n").unwrap();
    session.run(&["import", "image", "base:1"]);
    session.run(&["create", "--name", "box", "base:1"]);
    session.dir("mount");
    session.run(&["mount", "box", "mount"]);
    session
}

/// Makes every kind of change that a writable layer can hold.
fn change(root: &Path) {
    fs::write(root.join("linked"), "content of two names\n").unwrap();
    fs::remove_file(root.join("deleted")).unwrap();
    fs::rename(root.join("renamed"), root.join("moved")).unwrap();
    fs::write(root.join("moved/a"), "changed below a redirect\n").unwrap();
    fs::remove_dir_all(root.join("removed")).unwrap();
    fs::remove_dir_all(root.join("replaced")).unwrap();
    fs::create_dir(root.join("replaced")).unwrap();
    fs::write(root.join("replaced/c"), "in an opaque directory\n").unwrap();
    // Only attributes: the content stays in the image.
    fs::set_permissions(root.join("kept/b"), Permissions::from_mode(0o4711)).unwrap();
    fs::create_dir(root.join("new")).unwrap();
    fs::write(root.join("new/file"), "new\n").unwrap();
    fs::hard_link(root.join("new/file"), root.join("new/again")).unwrap();
    symlink("nowhere", root.join("new/link")).unwrap();
    xattr::set(root.join("new/file"), "user.mark", b"value").unwrap();
    let sparse = File::create(root.join("new/sparse")).unwrap();
    sparse.write_all_at(b"end", 8 << 20).unwrap();
    succeed(Command::new("mkfifo").arg(root.join("new/fifo")));
}

/// Makes changes on top of those.
fn change_again(root: &Path) {
    fs::write(root.join("new/file"), "otherwise\n").unwrap();
    fs::write(root.join("moved/b"), "otherwise\n").unwrap();
    fs::remove_dir_all(root.join("kept")).unwrap();
    fs::remove_file(root.join("new/sparse")).unwrap();
    fs::write(root.join("deleted"), "there again\n").unwrap();
    fs::create_dir(root.join("removed")).unwrap();
    fs::rename(root.join("moved"), root.join("new/moved")).unwrap();
}

fn seen(session: &Session) -> Tree {
    session.who.act(|| tree_of(&session.path("mount")))
}

/// Returns the inode numbers of what is in the mount, by path.
fn numbers(session: &Session, names: &[&str]) -> BTreeMap<String, u64> {
    let number = |name: &&str| {
        let path = session.path("mount").join(name);
        ((*name).to_owned(), session.who.act(|| fs::symlink_metadata(path).unwrap().ino()))
    };
    names.iter().map(number).collect()
}

fn same(first: &Tree, second: &Tree, when: &str) {
    assert_eq!(differences(first, second), Vec::<String>::new(), "{when}");
}

/// Returns the names of the snapshots of `box`, newest first.
fn names(session: &Session) -> Vec<String> {
    session.run(&["snapshots", "-q", "box"]).lines().map(str::to_owned).collect()
}

/// Returns how many entries the folders have in which things are made and removed.
fn leftovers(session: &Session) -> usize {
    let count = |dir: &str| fs::read_dir(session.path("store").join(dir)).unwrap().count();
    ["staging", "trash", "leases"].into_iter().map(count).sum()
}

/// Returns the bytes on the disk that a folder takes.
fn room(path: &Path) -> u64 {
    let said = succeed(Command::new("du").args(["-s", "-B1"]).arg(path));
    said.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_mounted_container_goes_back_and_forth() {
    for who in [Who::Root, Who::User] {
        let session = with_container(who);
        let mount = session.path("mount");
        let fresh = seen(&session);
        assert_eq!(session.run(&["snapshot", "-m", "untouched", "box", "fresh"]), "fresh\n");
        who.act(|| change(&mount));
        let first = seen(&session);
        let stay = ["linked", "moved/a", "kept/b", "moved", "deleted"];
        let from_image = numbers(&session, &stay[..4]);
        let own = numbers(&session, &["new/again", "new/file"]);
        assert_eq!(session.run(&["snapshot", "box"]), "1\n");
        same(&first, &seen(&session), "keeping changes nothing");
        who.act(|| fs::write(mount.join("new/more"), "more\n").unwrap());
        let second = seen(&session);
        assert_eq!(
            session.run(&["undo", "box"]),
            "box is back at snapshot 1; what was before is kept as 2\n"
        );
        same(&first, &seen(&session), "undo");
        assert_eq!(from_image, numbers(&session, &stay[..4]), "numbers of files of the image");
        assert_eq!(own, numbers(&session, &["new/again", "new/file"]), "numbers of others");
        who.act(|| change_again(&mount));
        let third = seen(&session);
        // What an undo has kept is not where the next one leads.
        assert_eq!(session.run(&["undo", "-q", "box"]), "3\n");
        same(&first, &seen(&session), "a second undo");
        assert_eq!(from_image, numbers(&session, &stay[..4]));
        for (name, expected) in [("3", &third), ("2", &second), ("fresh", &fresh), ("1", &first)] {
            session.run(&["undo", "--no-keep", "box", name]);
            same(expected, &seen(&session), name);
        }
        assert_eq!(names(&session), ["3", "2", "1", "fresh"]);
        // The same without a mount, and again after one.
        session.unmount("mount");
        session.run(&["undo", "--no-keep", "box", "3"]);
        session.run(&["mount", "box", "mount"]);
        same(&third, &seen(&session), "without a mount");
        session.unmount("mount");
        assert_eq!(session.run(&["snapshot", "box", "still"]), "still\n");
        session.run(&["undo", "--no-keep", "box", "1"]);
        session.run(&["undo", "--no-keep", "box", "still"]);
        session.run(&["mount", "box", "mount"]);
        same(&third, &seen(&session), "kept without a mount");
        session.unmount("mount");
        session.run(&["rm", "box"]);
        assert_eq!(leftovers(&session), 0);
        assert_eq!(fs::read_dir(session.path("store/containers")).unwrap().count(), 0);
    }
}

#[test]
fn what_has_not_changed_takes_room_once() {
    let session = with_container(Who::User);
    let mount = session.path("mount");
    let large = |byte: u8| vec![byte; 4 << 20];
    session.who.act(|| fs::write(mount.join("large"), large(1)).unwrap());
    for number in 1..=10 {
        session.who.act(|| fs::write(mount.join("small"), number.to_string()).unwrap());
        session.run(&["snapshot", "box"]);
    }
    session.run(&["undo", "box", "5"]);
    session.who.act(|| {
        assert_eq!(fs::read(mount.join("small")).unwrap(), b"5");
        fs::write(mount.join("small"), "after").unwrap();
    });
    session.run(&["undo", "box", "6"]);
    let container = fs::read_dir(session.path("store/containers")).unwrap().next().unwrap();
    let kept = room(&container.unwrap().path().join("snapshots"));
    assert!((4 << 20..6 << 20).contains(&kept), "{kept} bytes for 12 snapshots of 4 MiB");
    let sizes =
        session.run(&["snapshots", "--format", "{{.Name}} {{.Size}} {{.UniqueSize}}", "box"]);
    assert!(sizes.ends_with("2 4.19MB 1B\n1 4.19MB 1B\n"), "{sizes}");
    let said = session.run(&["ps", "-s", "--format", "{{.Size}}"]);
    assert!(
        said.starts_with("4.19MB (virtual ") && said.ends_with(", snapshots 4.2MB)\n"),
        "{said}"
    );
    let said = session.run(&["system", "df", "--format", "{{.Type}} {{.Size}}"]);
    // The upper and what the snapshots share, and for each its records and directories.
    let size = said.lines().find_map(|line| line.strip_prefix("Containers ")).unwrap();
    let megabytes: f64 = size.trim_end_matches("MB").parse().unwrap();
    assert!((8.39..9.2).contains(&megabytes), "{said}");
    // Only what a single snapshot has comes back with it.
    session.who.act(|| fs::write(mount.join("large"), large(2)).unwrap());
    session.run(&["snapshot", "box", "other"]);
    let sizes = session.run(&["snapshots", "-f", "name=other", "--format", "{{.UniqueSize}}"]);
    assert_eq!(sizes, "4.19MB\n");
    session.run(&["container", "snapshot", "rm", "box", "other"]);
    session.run(&["undo", "--no-keep", "box", "1"]);
    session.who.act(|| assert_eq!(fs::read(mount.join("large")).unwrap(), large(1)));
}

#[test]
fn going_back_mounts_again_with_the_same_options() {
    for who in [Who::Root, Who::User] {
        let session = with_container(who);
        session.unmount("mount");
        session.run(&["mount", "-o", "noexec,nodev", "-o", "nosuid", "box", "mount"]);
        let options = || {
            let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let mount = session.path("mount");
            let line = text.lines().find(|line| line.contains(mount.to_str().unwrap())).unwrap();
            line.split(' ').nth(5).unwrap().to_owned()
        };
        let before = options();
        assert!(before.contains("noexec"), "{before}");
        session.run(&["snapshot", "box"]);
        session.run(&["undo", "box"]);
        assert_eq!(options(), before);
        assert_eq!(mounts_below(&session.path("")).len(), 1);
        // And once more: the second mount has kept them, too.
        session.run(&["undo", "box"]);
        assert_eq!(options(), before);
    }
}

#[test]
fn a_mount_in_use_or_in_the_foreground_is_left_alone() {
    let session = with_container(Who::User);
    let mount = session.path("mount");
    session.run(&["snapshot", "box"]);
    session.who.act(|| fs::write(mount.join("new"), "stays").unwrap());
    let held = session.who.act(|| File::open(mount.join("new")).unwrap());
    let said = session.refused(&["undo", "box"]);
    assert!(said.contains("is in use; leave it") && said.contains("/mount"), "{said}");
    drop(held);
    session.who.act(|| assert_eq!(fs::read(mount.join("new")).unwrap(), b"stays"));
    assert_eq!(names(&session), ["1"]);
    session.unmount("mount");
    let mut server = spawn(&mut session.command(&["mount", "--foreground", "box", "mount"]));
    while session.run(&["ps", "-q"]).is_empty() {
        assert!(server.try_wait().unwrap().is_none(), "it ended before it served");
    }
    let said = session.refused(&["undo", "box"]);
    assert!(said.contains("by 'strata mount --foreground'") && said.contains("umount"), "{said}");
    session.unmount("mount");
    assert!(server.wait().unwrap().success());
    session.run(&["undo", "box"]);
    session.run(&["mount", "box", "mount"]);
    assert!(!mount.join("new").exists());
}

#[test]
fn names_that_are_taken_unknown_or_bad_are_told() {
    let session = with_container(Who::User);
    assert_eq!(
        session.refused(&["undo", "box"]),
        "Error: box has no snapshot to go back to; 'strata snapshot box' takes one\n"
    );
    session.run(&["snapshot", "box", "one"]);
    let longer = "x".repeat(129);
    for (arguments, said) in [
        (&["snapshot", "box", "one"][..], "box has a snapshot one already"),
        (&["snapshot", "box", ""], "Invalid snapshot name ()"),
        (&["snapshot", "box", ".."], "Invalid snapshot name (..)"),
        (&["snapshot", "box", "a/b"], "Invalid snapshot name (a/b)"),
        (&["snapshot", "box", &longer], "Invalid snapshot name (xxx"),
        (&["snapshot", "none"], "No such container: none"),
        (&["snapshots", "none"], "No such container: none"),
        (&["snapshots", "-f", "color=red"], "invalid filter 'color'"),
        (&["undo", "none"], "No such container: none"),
        (&["undo", "box", "two"], "box has no snapshot two; see 'strata snapshots box'"),
        (&["undo", "box", "../one"], "box has no snapshot ../one"),
        (&["container", "snapshot", "rm", "box", "two"], "box has no snapshot two"),
    ] {
        let output = session.try_run(arguments);
        assert_eq!(output.code, 1, "{arguments:?}");
        assert!(output.stderr.contains(said), "{arguments:?}: {}", output.stderr);
    }
    session.unmount("mount");
    session.run(&["mount", "base:1", "mount"]);
    let id = session.run(&["ps", "-q"]).trim().to_owned();
    let said = session.refused(&["snapshot", &id]);
    assert!(said.contains("has no writable layer to keep"), "{said}");
    // Of several names those that are there go.
    let output = session.try_run(&["container", "snapshot", "rm", "box", "one", "two"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, "one\n"));
    assert_eq!(names(&session), Vec::<String>::new());
    assert_eq!(leftovers(&session), 1, "the lease of the mount");
}

#[test]
fn snapshots_are_listed_as_they_are_asked_for() {
    let session = with_container(Who::User);
    session.run(&["container", "snapshot", "create", "-m", "a message", "box"]);
    session.run(&["container", "snapshot", "undo", "box"]);
    session.run(&["create", "--name", "other", "base:1"]);
    session.run(&["snapshot", "other", "mine"]);
    let said = session.run(&["container", "snapshot", "ls", "box"]);
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("CONTAINER   SNAPSHOT   CREATED "), "{said}");
    assert!(lines[1].starts_with("box         2 ") && lines[1].ends_with("before undo to 1"));
    assert!(lines[2].starts_with("box         1 ") && lines[2].ends_with("a message"), "{said}");
    let form = ["snapshots", "--format", "{{.Container}}/{{.Name}}"];
    assert_eq!(session.run(&form), "other/mine\nbox/2\nbox/1\n");
    assert_eq!(session.run(&["snapshots", "-q", "-f", "undo=true"]), "2\n");
    assert_eq!(session.run(&["snapshots", "-q", "-f", "undo=0", "-f", "name=^1$"]), "1\n");
    assert_eq!(session.run(&["snapshots", "-q"]), "mine\n2\n1\n");
    // A number is not given twice while a higher one is there.
    session.run(&["container", "snapshot", "rm", "box", "1"]);
    assert_eq!(session.run(&["snapshot", "box"]), "3\n");
}

#[test]
fn a_snapshot_is_looked_at_without_going_back() {
    for who in [Who::Root, Who::User] {
        let session = with_container(who);
        let mount = session.path("mount");
        who.act(|| change(&mount));
        session.run(&["snapshot", "box", "first"]);
        let changed = session.run(&["diff", "box"]);
        assert_eq!(session.run(&["diff", "box@first"]), changed);
        assert_eq!(session.run(&["diff", "box@first", "box"]), "");
        who.act(|| change_again(&mount));
        assert_eq!(session.run(&["diff", "box@first"]), changed);
        let said = session.run(&["diff", "--name-status", "box@first", "box"]);
        let expected = "A\t/deleted\nD\t/kept/a\nD\t/kept/b\nD\t/moved/a\nD\t/moved/b\nM\t/new/again\n\
                        M\t/new/file\nA\t/new/moved/a\nA\t/new/moved/b\nD\t/new/sparse\n";
        assert_eq!(said, expected);
        assert_eq!(session.run(&["cat", "box@first:/new/again"]), "new\n");
        assert_eq!(session.run(&["ls", "box@first:/moved"]), "a\nb\n");
        let all = session.run(&["export", "box@first"]);
        assert!(all.contains("content of two names"));
        session.run(&["cp", "box@first:/linked", "copy"]);
        let copy = fs::read_to_string(session.path("copy")).unwrap();
        assert_eq!(copy, "content of two names\n");
        session.run(&["cp", "box@first:/kept/a", "box:/"]);
        assert_eq!(who.act(|| fs::read_to_string(mount.join("a")).unwrap()), copy);
        for (arguments, said) in [
            (["cp", "copy", "box@first:/"], "box@first is a snapshot, which never changes"),
            (["diff", "box@none", "box"], "box has no snapshot none; see 'strata snapshots box'"),
            (["diff", "none@first", "box"], "No such object: none@first"),
        ] {
            let output = session.try_run(&arguments);
            assert_eq!(output.code, 1, "{arguments:?}");
            assert!(output.stderr.contains(said), "{arguments:?}: {}", output.stderr);
        }
    }
}

/// Fills the mount with so much that copying it takes a while.
fn fill(session: &Session) {
    let dir = session.path("mount/many");
    session.who.act(|| {
        fs::create_dir(&dir).unwrap();
        for number in 0..1500 {
            fs::write(dir.join(number.to_string()), number.to_string()).unwrap();
        }
    });
}

/// Runs a command until it makes something, and ends it with a signal. Returns its exit code.
fn end_at_work(session: &Session, arguments: &[&str], making: &str, signal: &str) -> Option<i32> {
    let mut command = session.command(arguments);
    let mut child = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let staging = session.path("store/staging");
    let is_making = || {
        let entries = fs::read_dir(&staging).unwrap().filter_map(Result::ok);
        entries.map(|entry| entry.path().join(making)).any(|path| path.exists())
    };
    while !is_making() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it worked");
        std::thread::yield_now();
    }
    succeed(Command::new("kill").args([signal, &child.id().to_string()]));
    child.wait().unwrap().code()
}

#[test]
fn an_interrupted_snapshot_leaves_nothing() {
    for who in [Who::Root, Who::User] {
        let session = with_container(who);
        fill(&session);
        let leases = leftovers(&session);
        let code = end_at_work(&session, &["snapshot", "box"], "snapshot-0", "-INT");
        assert_eq!(code, Some(130));
        assert_eq!((names(&session).len(), leftovers(&session)), (0, leases));
        assert_eq!(end_at_work(&session, &["snapshot", "box"], "snapshot-0", "-KILL"), None);
        assert!(names(&session).is_empty());
        // The next one cleans up after the one that was killed.
        session.run(&["snapshot", "box"]);
        assert_eq!(leftovers(&session), leases);
    }
}

#[test]
fn an_interrupted_undo_leaves_the_old_state_and_the_mount() {
    for who in [Who::Root, Who::User] {
        let session = with_container(who);
        session.run(&["snapshot", "box", "empty"]);
        fill(&session);
        session.run(&["snapshot", "box", "full"]);
        session.run(&["undo", "--no-keep", "box", "empty"]);
        let before = seen(&session);
        for (signal, code) in [("-INT", Some(130)), ("-KILL", None)] {
            let undo = ["undo", "--no-keep", "box", "full"];
            assert_eq!(end_at_work(&session, &undo, "upper/many", signal), code);
            // The mount comes back by itself, a moment after.
            while session.run(&["ps", "-q"]).is_empty() {
                std::thread::yield_now();
            }
            same(&before, &seen(&session), signal);
        }
        session.run(&["undo", "box", "full"]);
        assert_eq!(who.act(|| fs::read_dir(session.path("mount/many")).unwrap().count()), 1500);
        assert_eq!(leftovers(&session), 1, "the lease of the mount");
    }
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    let session = Session::new(Who::Root);
    let store = session.dir("store");
    succeed(Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "none"]).arg(&store));
    session.import("base:1");
    session.run(&["create", "--name", "box", "base:1"]);
    let mount = session.dir("mount");
    session.run(&["mount", "box", "mount"]);
    fs::write(mount.join("small"), "small").unwrap();
    session.run(&["snapshot", "box", "small"]);
    fs::write(mount.join("large"), vec![1; 9 << 20]).unwrap();
    let before = tree_of(&mount);
    for arguments in [&["snapshot", "box", "large"][..], &["undo", "box"]] {
        let said = session.refused(arguments);
        assert!(said.contains("No space left on device"), "{said}");
        assert_eq!(session.run(&["snapshots", "-q", "box"]), "small\n");
        same(&before, &tree_of(&mount), arguments[0]);
        assert_eq!(leftovers(&session), 1, "the lease of the mount");
    }
    session.run(&["undo", "--no-keep", "box"]);
    assert!(!mount.join("large").exists() && mount.join("small").exists());
    session.run(&["rm", "-f", "box"]);
}
