//! Looking into images and containers without mounting them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::common::{Session, Who, succeed};

/// Returns a session with the image `base:1`, and the container `box` in which a file was changed.
fn with_trees(who: Who) -> Session {
    let session = Session::new(who);
    let image = session.dir("image");
    fs::create_dir_all(image.join("etc/deep/er")).unwrap();
    fs::create_dir_all(image.join("bin")).unwrap();
    fs::write(image.join("etc/conf"), "from the image\n").unwrap();
    fs::write(image.join("etc/.hidden"), "").unwrap();
    fs::write(image.join("etc/deep/er/file"), "x".repeat(5000)).unwrap();
    fs::write(image.join("bin/tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(image.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("/etc/deep/er/../../conf", image.join("bin/absolute")).unwrap();
    symlink("../../../etc", image.join("bin/up")).unwrap();
    symlink("loop", image.join("bin/loop")).unwrap();
    succeed(
        std::process::Command::new("touch")
            .args(["-h", "-d", "@1000000000"])
            .arg(image.join("bin/up")),
    );
    session.run(&["import", "image", "base:1"]);
    session.run(&["create", "--name", "box", "base:1"]);
    session.dir("mount");
    session.run(&["mount", "box", "mount"]);
    who.act(|| fs::write(session.path("mount/etc/conf"), "from the container\n").unwrap());
    session.unmount("mount");
    session
}

#[test]
fn a_directory_is_listed_with_all_its_names() {
    for who in [Who::Root, Who::User] {
        let session = with_trees(who);
        assert_eq!(session.run(&["ls", "base:1"]), "bin\netc\n");
        assert_eq!(session.run(&["ls", "base:1:/etc"]), ".hidden\nconf\ndeep\n");
        assert_eq!(session.run(&["ls", "base:1:/bin/up/deep"]), "er\n");
        assert_eq!(session.run(&["ls", "box:/etc/conf"]), "conf\n");
        let two = session.run(&["ls", "base:1:/", "box:/etc/deep"]);
        assert_eq!(two, "base:1:/:\nbin\netc\n\nbox:/etc/deep:\ner\n");
        let long = session.run(&["ls", "-l", "base:1:/bin"]);
        let lines: Vec<_> = long.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[2].starts_with("-rwsr-xr-x 1 0"), "{long}");
        assert!(lines[3].ends_with("2001-09-09 01:46 up -> ../../../etc"), "{long}");
    }
}

#[test]
fn files_are_printed_by_the_links_that_lead_to_them() {
    let session = with_trees(Who::User);
    assert_eq!(session.run(&["cat", "base:1:/etc/conf"]), "from the image\n");
    let both = session.run(&["cat", "box:/bin/absolute", "base:1:/bin/up/../etc/conf"]);
    assert_eq!(both, "from the container\nfrom the image\n");
    assert_eq!(session.run(&["cat", "base:1:/etc/deep/er/file"]).len(), 5000);
}

#[test]
fn what_is_not_there_is_said_and_the_rest_is_done() {
    let session = with_trees(Who::User);
    for (arguments, stdout, said) in [
        (&["ls", "nope:1"][..], "", "No such object: nope:1"),
        (
            &["cat", "base:1:/nope", "base:1:/etc/conf"],
            "from the image\n",
            "the file /nope in base:1",
        ),
        (&["cat", "base:1:/etc/conf/x"], "", "Could not find the file /etc/conf/x"),
        (&["cat", "base:1:/etc"], "", "base:1:/etc is a directory"),
        (&["cat", "base:1:/bin/loop"], "", "more than 40 symbolic links"),
        (&["find", "base:1", "-nane", "x"], "", "\"-nane\" is not a test"),
    ] {
        let output = session.try_run(arguments);
        assert_eq!((output.code, output.stdout.as_str()), (1, stdout), "{arguments:?}");
        assert!(output.stderr.contains(said), "{arguments:?}: {}", output.stderr);
    }
}

#[test]
fn files_are_found_by_what_they_are() {
    let session = with_trees(Who::Root);
    let found = |tests: &[&str]| session.run(&[&["find", "base:1"], tests].concat());
    assert_eq!(found(&["-maxdepth", "1"]), "/\n/bin\n/etc\n");
    assert_eq!(found(&["-name", "*o*", "-type", "f"]), "/bin/tool\n/etc/conf\n");
    assert_eq!(found(&["-perm", "/6000"]), "/bin/tool\n");
    assert_eq!(found(&["-size", "+4k", "-print0"]), "/etc/deep/er/file\0");
    assert_eq!(found(&["-empty"]), "/etc/.hidden\n");
    assert_eq!(session.run(&["find", "box:/etc/deep", "!", "-type", "d"]), "/etc/deep/er/file\n");
    let long = found(&["-name", "tool", "-ls"]);
    assert!(long.starts_with("-rwsr-xr-x 1 0 0 10 ") && long.ends_with(" /bin/tool\n"), "{long}");
}

#[test]
fn a_tree_is_drawn() {
    let session = with_trees(Who::Root);
    let drawn = session.run(&["tree", "base:1:/etc"]);
    let expected = "/etc\n├── .hidden\n├── conf\n└── deep\n    └── er\n        └── file\n\n\
                    2 directories, 3 files\n";
    assert_eq!(drawn, expected);
    let drawn = session.run(&["tree", "-d", "-L", "1", "base:1"]);
    assert_eq!(drawn, "/\n├── bin\n└── etc\n\n2 directories\n");
}
