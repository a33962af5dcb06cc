//! Layers put on images without a container.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Session, Who, script, spawn, succeed};

/// Returns a session with the image `base:1`, whose `/bin` is a symbolic link and whose `/tmp` is for
/// everybody.
fn with_base(who: Who) -> Session {
    let session = Session::new(who);
    let image = session.dir("image");
    fs::create_dir_all(image.join("usr/bin")).unwrap();
    fs::write(image.join("usr/bin/old"), "old\n").unwrap();
    fs::create_dir(image.join("tmp")).unwrap();
    fs::set_permissions(image.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
    symlink("usr/bin", image.join("bin")).unwrap();
    fs::write(image.join("gone"), "").unwrap();
    session.run(&["import", "-c", "CMD [\"old\"]", "image", "base:1"]);
    session
}

/// Makes a folder of files for `/bin`, `/tmp` and `/new`.
fn files(session: &Session) {
    let files = session.dir("files");
    for dir in ["bin", "tmp", "new"] {
        fs::create_dir(files.join(dir)).unwrap();
    }
    fs::write(files.join("bin/tool"), "tool\n").unwrap();
    fs::hard_link(files.join("bin/tool"), files.join("bin/same")).unwrap();
    fs::write(files.join("tmp/x"), "x\n").unwrap();
    fs::set_permissions(files.join("new"), Permissions::from_mode(0o745)).unwrap();
}

#[test]
fn a_directory_is_put_on_what_the_image_has() {
    for who in [Who::Root, Who::User] {
        let session = with_base(who);
        files(&session);
        let id = session.run(&["append", "base:1", "files", "-t", "new:1", "-m", "tools"]);
        assert_eq!(session.run(&["images", "-q", "--no-trunc", "new"]), id);
        assert_eq!(session.run(&["find", "new:1", "-perm", "-1777", "-type", "d"]), "/tmp\n");
        assert_eq!(session.run(&["find", "new:1", "-perm", "745"]), "/new\n");
        assert_eq!(session.run(&["find", "new:1", "-type", "l"]), "/bin\n");
        assert_eq!(session.run(&["ls", "new:1:/usr/bin"]), "old\nsame\ntool\n");
        let long = session.run(&["ls", "-l", "new:1:/bin/"]);
        assert_eq!(long.lines().filter(|line| line.contains("-- 2 ")).count(), 2, "{long}");
        let history = session.run(&["history", "new:1"]);
        assert!(history.lines().nth(1).unwrap().contains("append files"), "{history}");
        assert!(history.lines().nth(1).unwrap().ends_with("tools"), "{history}");
        let config = session.run(&["inspect", "new:1"]);
        assert!(config.contains("\"old\""), "the configuration stays: {config}");
    }
}

#[test]
fn a_directory_goes_where_it_is_told_to() {
    let session = with_base(Who::User);
    files(&session);
    session.run(&["append", "base:1", "files", "--to", "/opt/../bin/app/", "-t", "new:1"]);
    let tree = session.run(&["find", "new:1:/usr/bin/app", "-type", "f"]);
    assert_eq!(tree, "/usr/bin/app/bin/same\n/usr/bin/app/bin/tool\n/usr/bin/app/tmp/x\n");
}

/// Makes a tar with a file, a link to it, and the marker that `/gone` is gone.
fn tar(session: &Session) {
    let script_text = "echo in > file && ln file twin && : > .wh.gone && mkdir sub && \
                       truncate -s 1M sub/sparse && echo end >> sub/sparse && \
                       tar --format=pax --sparse --sort=name -cf ../layer.tar . && \
                       gzip -k ../layer.tar && zstd -q ../layer.tar";
    script(script_text, &session.dir("content"));
}

#[test]
fn a_tar_is_the_layer_bit_for_bit_however_it_is_packed() {
    let session = with_base(Who::Root);
    tar(&session);
    let digest = succeed(Command::new("sha256sum").arg(session.path("layer.tar")));
    let digest = digest.split(' ').next().unwrap();
    for packed in ["layer.tar", "layer.tar.gz", "layer.tar.zst"] {
        session.run(&["append", "base:1", packed, "-t", "new:1"]);
        let said = session.run(&["inspect", "new:1"]);
        assert!(said.contains(digest), "{packed}: {said}");
        let names = session.run(&["ls", "new:1"]);
        assert_eq!(names, "bin\nfile\nsub\ntmp\ntwin\nusr\n", "{packed}");
    }
}

#[test]
fn a_tar_goes_below_a_directory_with_its_links_and_markers() {
    let session = with_base(Who::Root);
    tar(&session);
    let from = fs::File::open(session.path("layer.tar.gz")).unwrap();
    let mut command = session.command(&["append", "base:1", "-", "--to", "usr", "-t", "new:1"]);
    let mut child = spawn(command.stdin(from).stdout(Stdio::null()));
    assert!(child.wait().unwrap().success());
    assert_eq!(session.run(&["ls", "new:1:/usr"]), "bin\nfile\nsub\ntwin\n");
    assert_eq!(session.run(&["cat", "new:1:/usr/twin"]), "in\n");
    let links = session.run(&["ls", "-l", "new:1:/usr/file"]);
    assert!(links.starts_with("-rw-r--r-- 2 "), "{links}");
    assert_eq!(session.run(&["cat", "new:1:/usr/sub/sparse"]).len(), (1 << 20) + 4);
    session.run(&["append", "base:1", "layer.tar", "--to", "/", "-t", "new:2"]);
    assert_eq!(session.run(&["ls", "new:2"]), "bin\nfile\nsub\ntmp\ntwin\nusr\n");
}

#[test]
fn what_cannot_be_appended_is_said_and_nothing_is_made() {
    let session = with_base(Who::User);
    let refused = |name: &str| Path::new(&session.dir("bad")).join(name);
    fs::write(refused("usr"), "").unwrap();
    fs::write(session.path("no.tar"), "not a tar, but long enough".repeat(99)).unwrap();
    for (arguments, said) in [
        (["append", "base:1", "bad"], "the image has a directory in its place"),
        (["append", "base:1", "absent"], "absent"),
        (["append", "base:1", "no.tar"], "no.tar"),
        (["append", "none:1", "bad"], "No such image: none:1"),
    ] {
        let text = session.refused(&arguments);
        assert!(text.starts_with("Error: ") && text.contains(said), "{arguments:?}: {text}");
    }
    assert_eq!(session.run(&["images", "-q"]).lines().count(), 1);
}
