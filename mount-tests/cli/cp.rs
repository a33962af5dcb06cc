//! Copying between the host, images and containers, mounted and not.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{Output, Session, Who, run, spawn, succeed};

/// How a container is when it is copied to or from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Is {
    Mounted,
    Free,
}

const WAYS: [(Who, Is); 4] = [
    (Who::Root, Is::Free),
    (Who::Root, Is::Mounted),
    (Who::User, Is::Free),
    (Who::User, Is::Mounted),
];

/// Returns a session with the image `base:1`, the container `box` of it, and things to copy in the
/// folder: `file`, and `tree` with a file of everything that can be copied by anybody.
fn with_box(who: Who, is: Is) -> Session {
    let session = Session::new(who);
    let image = session.dir("image");
    fs::create_dir_all(image.join("etc/deep")).unwrap();
    fs::write(image.join("etc/conf"), "from the image\n").unwrap();
    fs::write(image.join("etc/deep/inner"), "inner\n").unwrap();
    symlink("deep", image.join("etc/link")).unwrap();
    symlink("/etc/conf", image.join("absolute")).unwrap();
    symlink("nowhere", image.join("dangling")).unwrap();
    session.run(&["import", "image", "base:1"]);
    session.run(&["create", "--name", "box", "base:1"]);
    session.dir("mount");
    session.dir("work");
    who.act(|| make_things(&session));
    if is == Is::Mounted {
        session.run(&["mount", "box", "mount"]);
    }
    session
}

fn make_things(session: &Session) {
    let work = |name: &str| session.path("work").join(name);
    fs::write(work("file"), "from the host\n").unwrap();
    fs::set_permissions(work("file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir_all(work("tree/sub/closed")).unwrap();
    fs::write(work("tree/a"), "a\n").unwrap();
    fs::hard_link(work("tree/a"), work("tree/sub/again")).unwrap();
    symlink("../../nowhere", work("tree/sub/link")).unwrap();
    fs::write(work("tree/sub/closed/in"), "in\n").unwrap();
    fs::set_permissions(work("tree/sub/closed"), fs::Permissions::from_mode(0o555)).unwrap();
    xattr::set(work("tree/a"), "user.kept", b"value").unwrap();
    succeed(Command::new("mkfifo").arg(work("tree/fifo")));
    let sparse = fs::File::create(work("tree/sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    (&sparse).write_all(b"begin").unwrap();
    for name in ["tree/a", "tree/sub", "tree", "file"] {
        succeed(Command::new("touch").args(["-h", "-d", "@1000000000.5"]).arg(work(name)));
    }
}

/// Copies, with the folder `work` as the place to start from.
#[track_caller]
fn cp(session: &Session, arguments: &[&str]) {
    let output = try_cp(session, arguments);
    assert_eq!(output.code, 0, "cp {arguments:?}: {}", output.stderr);
    assert_eq!(output.stderr, "", "cp {arguments:?}");
}

fn try_cp(session: &Session, arguments: &[&str]) -> Output {
    let mut command = session.command(&[&["cp"], arguments].concat());
    run(command.current_dir(session.path("work")))
}

/// Copies and returns why that was refused.
#[track_caller]
fn refused(session: &Session, arguments: &[&str]) -> String {
    let output = try_cp(session, arguments);
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "cp {arguments:?}");
    output.stderr
}

/// Runs a copy with a tar on its standard input.
fn cp_with(session: &Session, tar: &[u8], arguments: &[&str]) -> Output {
    let mut command = session.command(&[&["cp"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(&mut command);
    let mut stdin = child.stdin.take().unwrap();
    // What is refused is not read to its end.
    drop(stdin.write_all(tar));
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Output {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Returns paths, kinds, owners, sizes and times as `find -ls` prints them.
fn listed(session: &Session, tree: &str) -> String {
    session.run(&["find", tree, "-ls"])
}

fn work(session: &Session, name: &str) -> PathBuf {
    session.path("work").join(name)
}

#[test]
fn a_file_goes_where_docker_puts_it() {
    for (who, is) in WAYS {
        let session = with_box(who, is);
        for (to, at) in [
            ("box:/new", "/new"),
            ("box:relative", "/relative"),
            ("box:/etc", "/etc/file"),
            ("box:/etc/deep/", "/etc/deep/file"),
            ("box:/etc/conf", "/etc/conf"),
            ("box:/etc/link/other", "/etc/deep/other"),
            ("box:/etc/link", "/etc/deep/file"),
            ("box:/dangling", "/nowhere"),
        ] {
            cp(&session, &["file", to]);
            assert_eq!(session.run(&["cat", &format!("box:{at}")]), "from the host\n", "{to}");
            let line = listed(&session, &format!("box:{at}"));
            assert!(line.starts_with("-rw-r----- 1 0 0 14 2001-09-09 01:46 "), "{to}: {line}");
        }
        let links = session.run(&["find", "box", "-type", "l"]);
        assert_eq!(links, "/absolute\n/dangling\n/etc/link\n", "{who:?} {is:?}");
        cp(&session, &["file", "box:/absolute"]);
        assert_eq!(session.run(&["cat", "base:1:/etc/conf"]), "from the image\n");
    }
}

#[test]
fn a_directory_goes_where_docker_puts_it() {
    for (who, is) in WAYS {
        let session = with_box(who, is);
        let names = |tree: &str| session.run(&["find", tree, "-name", "closed"]);
        cp(&session, &["tree", "box:/new"]);
        assert_eq!(names("box:/new"), "/new/sub/closed\n");
        cp(&session, &["tree/", "box:/new"]);
        assert_eq!(names("box:/new/tree"), "/new/tree/sub/closed\n");
        cp(&session, &["tree/.", "box:/etc"]);
        assert_eq!(names("box:/etc"), "/etc/sub/closed\n");
        cp(&session, &["tree/.", "box:/made/"]);
        assert_eq!(names("box:/made"), "/made/sub/closed\n");
        let said = refused(&session, &["tree", "box:/etc/conf"]);
        assert!(said.starts_with("Error: cannot copy directory"), "{said}");
        let said = session.run(&["ls", "box:/etc"]);
        assert_eq!(said, "a\nconf\ndeep\nfifo\nlink\nsparse\nsub\n", "{who:?} {is:?}");
    }
}

/// Compares two trees of the host by all but owners.
#[track_caller]
fn assert_same(first: &Path, second: &Path) {
    let names = |root: &Path| {
        let mut found = Vec::new();
        let mut pending = vec![root.to_owned()];
        while let Some(path) = pending.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let below = path.strip_prefix(root).unwrap().to_owned();
            let content = match &metadata {
                m if m.is_file() => fs::read(&path).unwrap(),
                m if m.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().into(),
                _ => Vec::new(),
            };
            let attributes: Vec<_> = xattr::list(&path)
                .unwrap()
                .map(|name| (name.clone(), xattr::get(&path, &name).unwrap()))
                .collect();
            let links = if metadata.is_dir() { 0 } else { metadata.nlink() };
            let time = (!metadata.is_symlink()).then(|| (metadata.mtime(), metadata.mtime_nsec()));
            found.push((below, metadata.mode(), links, time, content, attributes));
            if metadata.is_dir() {
                pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        found.sort();
        found
    };
    assert_eq!(names(first), names(second));
}

#[test]
fn everything_about_a_tree_comes_back_as_it_went() {
    for (who, is) in WAYS {
        let session = with_box(who, is);
        cp(&session, &["tree", "box:/"]);
        cp(&session, &["box:/tree", "back"]);
        cp(&session, &["box:/tree", "box:/again"]);
        cp(&session, &["box:again/.", "third"]);
        let id = who.id();
        who.act(|| {
            assert_same(&work(&session, "tree"), &work(&session, "back"));
            assert_same(&work(&session, "tree"), &work(&session, "third"));
            let metadata = fs::metadata(work(&session, "back/sparse")).unwrap();
            assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
            assert_eq!((metadata.uid(), metadata.gid()), (id, id));
        });
        let line = listed(&session, "box:/tree/sub/again");
        assert!(line.starts_with("-rw-r--r-- 2 0 0 2 "), "{line}");
    }
}

#[test]
fn an_image_is_copied_from_and_never_to() {
    let session = with_box(Who::User, Is::Free);
    cp(&session, &["base:1:/etc", "out"]);
    assert_eq!(fs::read_to_string(work(&session, "out/deep/inner")).unwrap(), "inner\n");
    cp(&session, &["base:1:/etc/deep/inner", "box:/etc/conf"]);
    assert_eq!(session.run(&["cat", "box:/etc/conf"]), "inner\n");
    cp(&session, &["base:1:/", "whole"]);
    assert!(work(&session, "whole/etc/conf").exists());
    let said = refused(&session, &["file", "base:1:/etc"]);
    assert!(said.contains("base:1 is an image") && said.contains("strata create"), "{said}");
}

#[test]
fn owners_are_kept_only_when_asked_for() {
    for is in [Is::Free, Is::Mounted] {
        let session = with_box(Who::Root, is);
        let file = work(&session, "file");
        chown(&file, Some(1234), Some(5678)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o6755)).unwrap();
        cp(&session, &["file", "box:/plain"]);
        cp(&session, &["-a", "file", "box:/kept"]);
        // What is not whose it was is not set-uid any more.
        assert!(listed(&session, "box:/plain").starts_with("-rwxr-xr-x 1 0 0 "));
        assert!(listed(&session, "box:/kept").starts_with("-rwsr-sr-x 1 1234 5678 "));
        cp(&session, &["box:/kept", "plain"]);
        cp(&session, &["--archive", "box:/kept", "kept"]);
        let owner = |name: &str| {
            let metadata = fs::metadata(work(&session, name)).unwrap();
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
        };
        assert_eq!(owner("plain"), (0, 0, 0o755));
        assert_eq!(owner("kept"), (1234, 5678, 0o6755));
        cp(&session, &["-a", "box:/kept", "box:/twice"]);
        assert!(listed(&session, "box:/twice").starts_with("-rwsr-sr-x 1 1234 5678 "));
    }
    let session = with_box(Who::User, Is::Free);
    let tar = tar_of(&[("given", "x", "1000:1000")]);
    assert_eq!(cp_with(&session, &tar, &["-a", "-", "box:/"]).stderr, "");
    let line = listed(&session, "box:/given");
    assert!(line.contains(" 1000 1000 "), "{line}");
    cp(&session, &["-a", "box:/given", "given"]);
    assert_eq!(fs::metadata(work(&session, "given")).unwrap().uid(), Who::User.id());
}

/// Returns a tar of files: name, content (or `-> target` of a symbolic link), owner.
fn tar_of(files: &[(&str, &str, &str)]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = Vec::new();
    for (at, (name, content, owner)) in files.iter().enumerate() {
        let source = folder.path().join(format!("{at}"));
        match content.strip_prefix("-> ") {
            Some(target) => symlink(target, &source).unwrap(),
            None => fs::write(&source, content).unwrap(),
        }
        let (uid, gid) = owner.split_once(':').unwrap();
        let mut command = Command::new("tar");
        command
            .args(["-cP", "-b1", &format!("--owner=x:{uid}"), &format!("--group=x:{gid}")])
            .arg(format!("--transform=flags=r;s,.*,{name},"))
            .arg("-C")
            .arg(folder.path())
            .arg(format!("{at}"))
            .stdout(Stdio::piped());
        let output = spawn(&mut command).wait_with_output().unwrap();
        // The two blocks of zeros come once, at the end.
        tar.extend_from_slice(&output.stdout[..output.stdout.len() - 1024]);
    }
    tar.extend_from_slice(&[0; 1024]);
    tar
}

#[test]
fn a_tar_goes_out_and_in_again() {
    for (who, is) in WAYS {
        let session = with_box(who, is);
        let out = |path: &str| {
            let file = work(&session, "out.tar");
            let mut command = session.command(&["cp", path, "-"]);
            command.stdout(fs::File::create(&file).unwrap());
            assert_eq!(run_redirected(command), "");
            let names = succeed(Command::new("tar").arg("-tf").arg(&file));
            (fs::read(file).unwrap(), names)
        };
        let (tar, names) = out("box:/etc");
        assert_eq!(names, "etc/\netc/conf\netc/deep/\netc/deep/inner\netc/link\n");
        assert_eq!(out("box:/etc/link").1, "link\n");
        assert_eq!(out("box:/etc/link/").1, "link/\nlink/inner\n");
        assert_eq!(out("box:/etc/deep/.").1, "./\n./inner\n");
        assert_eq!(out("base:1:/etc/conf").1, "conf\n");
        let put = cp_with(&session, &tar, &["-", "box:/etc/deep"]);
        assert_eq!((put.code, put.stderr.as_str()), (0, ""), "{who:?} {is:?}");
        assert_eq!(session.run(&["cat", "box:/etc/deep/etc/link/inner"]), "inner\n");
        let put = cp_with(&session, &tar, &["-", "box:/etc/conf"]);
        assert_eq!(put.stderr, "Error: destination \"box:/etc/conf\" must be a directory\n");
        let put = cp_with(&session, b"no tar at all, but long enough", &["-", "box:/"]);
        assert_eq!(put.code, 1);
    }
}

fn run_redirected(mut command: Command) -> String {
    let child = spawn(command.stderr(Stdio::piped()));
    String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap()
}

#[test]
fn nothing_leads_out_of_the_destination() {
    for (who, is) in WAYS {
        let session = with_box(who, is);
        let outside = session.dir("outside");
        let there = outside.to_str().unwrap();
        // A link of an archive, and then a file through it.
        let tar = tar_of(&[("out", &format!("-> {there}"), "0:0"), ("out/file", "x", "0:0")]);
        let put = cp_with(&session, &tar, &["-", "box:/etc"]);
        assert_eq!(put.code, 1);
        assert!(put.stderr.contains("no symbolic link is followed there"), "{}", put.stderr);
        for name in ["../../up", "a/../../up"] {
            let put = cp_with(&session, &tar_of(&[(name, "x", "0:0")]), &["-", "box:/etc"]);
            assert!(put.stderr.contains("leads out"), "{name}: {}", put.stderr);
        }
        let put = cp_with(&session, &tar_of(&[("/rooted", "x", "0:0")]), &["-", "box:/etc"]);
        assert_eq!((put.code, put.stderr.as_str()), (0, ""));
        assert_eq!(session.run(&["cat", "box:/etc/rooted"]), "x");
        // A link of the host or of the image where a directory of the source would go.
        who.act(|| {
            fs::create_dir(work(&session, "etc")).unwrap();
            symlink(there, work(&session, "etc/deep")).unwrap();
        });
        let said = refused(&session, &["box:/etc/.", "etc"]);
        assert!(said.starts_with("Error: cannot overwrite non-directory "), "{said}");
        let said = refused(&session, &["tree", "box:/absolute"]);
        assert!(said.starts_with("Error: cannot copy directory"), "{said}");
        // A file replaces a link and does not go through it.
        who.act(|| symlink(outside.join("conf"), work(&session, "etc/file")).unwrap());
        cp(&session, &["file", "box:/etc/file"]);
        who.act(|| fs::remove_file(work(&session, "etc/deep")).unwrap());
        cp(&session, &["box:/etc/.", "etc"]);
        assert!(fs::symlink_metadata(work(&session, "etc/file")).unwrap().is_file());
        // Links of the image lead to the image's own root.
        who.act(|| symlink("/", work(&session, "to-root")).unwrap());
        cp(&session, &["to-root", "box:/"]);
        cp(&session, &["file", "box:/to-root/through"]);
        assert_eq!(session.run(&["cat", "box:/through"]), "from the host\n");
        assert!(!Path::new("/through").exists());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}

#[test]
fn a_directory_and_a_file_do_not_replace_each_other() {
    for (who, is) in WAYS {
        let session = with_box(who, is);
        who.act(|| {
            fs::create_dir_all(work(&session, "one/conf")).unwrap();
            fs::create_dir(work(&session, "two")).unwrap();
            fs::write(work(&session, "two/deep"), "").unwrap();
        });
        let said = refused(&session, &["one/.", "box:/etc"]);
        let expected = "Error: cannot overwrite non-directory \"box:/etc/conf\" with directory\n";
        assert_eq!(said, expected);
        let said = refused(&session, &["two/.", "box:/etc"]);
        let expected = "Error: cannot overwrite directory \"box:/etc/deep\" with non-directory\n";
        assert_eq!(said, expected);
        let left = session.run(&["find", "box", "-name", ".strata*"]);
        assert_eq!(left, "", "{who:?} {is:?}");
    }
}

#[test]
fn a_link_is_copied_itself_unless_it_is_to_be_followed() {
    let session = with_box(Who::User, Is::Free);
    cp(&session, &["box:/etc/link", "link"]);
    assert!(work(&session, "link").is_symlink());
    cp(&session, &["-L", "box:/etc/link", "followed"]);
    assert!(work(&session, "followed/inner").is_file());
    cp(&session, &["--follow-link", "box:/absolute", "."]);
    assert_eq!(fs::read_to_string(work(&session, "absolute")).unwrap(), "from the image\n");
    Who::User.act(|| symlink("file", work(&session, "to-file")).unwrap());
    cp(&session, &["-L", "to-file", "box:/etc/"]);
    assert_eq!(session.run(&["cat", "box:/etc/to-file"]), "from the host\n");
}

#[test]
fn what_cannot_be_copied_is_said_and_the_rest_is() {
    for (who, is) in WAYS {
        let session = with_box(who, is);
        who.act(|| {
            drop(std::os::unix::net::UnixListener::bind(work(&session, "tree/socket")).unwrap());
        });
        let output = try_cp(&session, &["tree", "box:/new"]);
        assert_eq!(output.code, 0);
        let said = "WARNING: box:/new/socket is a socket, which cannot be copied: left out\n";
        assert_eq!(output.stderr, said, "{who:?} {is:?}");
        assert_eq!(session.run(&["ls", "box:/new"]), "a\nfifo\nsparse\nsub\n");
    }
}

#[test]
fn devices_are_copied_where_they_can_be_made() {
    for (who, is) in WAYS {
        let session = with_box(who, is);
        let output = try_cp(&session, &["/dev/null", "box:/null"]);
        assert_eq!(output.code, 0);
        let line = "crw-rw-rw- 1 0 0 1, 3 ";
        if (who, is) == (Who::User, Is::Mounted) {
            let said = "WARNING: box:/null is a device, which only root can make: left out\n";
            assert_eq!(output.stderr, said);
        } else {
            assert_eq!(output.stderr, "", "{who:?} {is:?}");
            assert!(listed(&session, "box:/null").starts_with(line), "{who:?} {is:?}");
        }
        // It says that it is empty.
        cp(&session, &["/proc/version", "box:/etc/conf"]);
        let version = fs::read_to_string("/proc/version").unwrap();
        assert_eq!(session.run(&["cat", "box:/etc/conf"]), version);
    }
}

#[test]
fn errors_are_dockers() {
    for is in [Is::Free, Is::Mounted] {
        let session = with_box(Who::User, is);
        let at = |name: &str| work(&session, name).display().to_string();
        for (arguments, said) in [
            (["box:/nope", "."], "Could not find the file /nope in container box".to_owned()),
            (["box:nope/x", "."], "Could not find the file /nope/x in container box".to_owned()),
            (["file", "box:/nope/x"], "Could not find the file /nope in container box".to_owned()),
            (["file", "box:/nope/"], "no such directory: box:/nope/".to_owned()),
            (["box:/etc/conf", "nope/"], format!("no such directory: {}/", at("nope"))),
            (
                ["box:/etc/conf", "nope/x"],
                format!("invalid output path: directory {:?} does not exist", at("nope")),
            ),
            (["box:/etc", "file"], format!("cannot copy directory: {} is not", at("file"))),
            (["nope", "box:/"], format!("lstat {}: no such file or directory", at("nope"))),
            (["file/", "box:/"], format!("{}/ is not a directory", at("file"))),
            (["box:/etc/conf/", "."], "box:/etc/conf/ is not a directory".to_owned()),
            (["other:/x", "."], "No such container: other".to_owned()),
            (["file", "other:/x"], "No such container: other".to_owned()),
            (["file", "other"], "must specify at least one container source".to_owned()),
            (["-", "other"], "must specify at least one container source".to_owned()),
            (["", "box:/"], "source can not be empty".to_owned()),
            (["file", ""], "destination can not be empty".to_owned()),
            (["box:/etc", "box:/etc/deep"], "cannot copy a directory, ".to_owned()),
            (["box:/", "box:/etc"], "cannot copy a directory, ".to_owned()),
        ] {
            let found = refused(&session, &arguments);
            assert!(found.starts_with(&format!("Error: {said}")), "{arguments:?}: {found}");
        }
        Who::User.act(|| {
            let closed = work(&session, "tree/sub/again");
            fs::set_permissions(closed, fs::Permissions::from_mode(0o000)).unwrap();
        });
        let said = refused(&session, &["tree/sub", "box:/"]);
        let expected = format!("Error: read {}: permission denied", at("tree/sub/again"));
        assert!(said.starts_with(&expected), "{said}");
        let output = try_cp(&session, &["file"]);
        assert_eq!(output.code, 1);
        assert!(output.stderr.starts_with("strata: 'strata cp' requires 2 arguments\n"));
    }
}

#[test]
fn what_was_copied_is_told_on_standard_error() {
    let session = with_box(Who::User, Is::Free);
    let output = try_cp(&session, &["-q=false", "file", "box:/etc/x"]);
    let said = "Successfully copied 2.05kB to box:/etc/x\n";
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", said));
    let output = try_cp(&session, &["--quiet=false", "box:/etc/x", "x"]);
    let said = format!("Successfully copied 2.05kB to {}\n", work(&session, "x").display());
    assert_eq!(output.stderr, said);
    let output = try_cp(&session, &["-q", "file", "box:/etc/x"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    session.run(&["container", "cp", "box:/etc/x", "work/y"]);
}

#[test]
fn a_mount_that_cannot_be_written_through_is_not_written_beside() {
    let session = with_box(Who::Root, Is::Free);
    session.run(&["mount", "-o", "ro", "box", "mount"]);
    let said = refused(&session, &["file", "box:/"]);
    assert!(said.starts_with("Error: container rootfs is marked read-only"), "{said}");
    session.unmount("mount");
    session.run(&["mount", "box", "mount"]);
    let held = fs::File::open(session.path("mount/etc/conf")).unwrap();
    session.run(&["umount", "--lazy", "mount"]);
    let said = refused(&session, &["file", "box:/"]);
    assert!(said.contains("cannot be reached from here"), "{said}");
    assert_eq!(fs::read_dir(session.path("mount")).unwrap().count(), 0);
    drop(held);
}

#[test]
fn a_mount_does_not_go_into_itself() {
    let session = with_box(Who::Root, Is::Mounted);
    for (from, to) in [("../mount", "box:/etc/new"), ("../mount/etc", "box:/etc/new")] {
        let said = refused(&session, &[from, to]);
        assert!(said.starts_with("Error: cannot copy a directory, "), "{from}: {said}");
    }
    let said = refused(&session, &["box:/", "../mount/etc/new"]);
    assert!(said.starts_with("Error: cannot copy a directory, "), "{said}");
    let output = try_cp(&session, &["..", "box:/etc/new"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stderr.contains("mount is where the copy goes: left out"), "{}", output.stderr);
    assert!(output.stderr.contains("store is the store of strata: left out"), "{}", output.stderr);
}
