//! Two trees compared: containers, images, layers.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::{Session, Who, script, spawn};

/// Returns a session with `base:1` and `new:1`, which is one layer more, and the container `work` with
/// the changes of that layer.
fn with_trees(who: Who) -> Session {
    let session = Session::new(who);
    let base = "mkdir -p etc/conf.d kept/deep && seq 20 > etc/numbers && echo motd > etc/motd
                echo a > etc/conf.d/a && echo b > etc/conf.d/b && echo deep > kept/deep/file
                ln -s motd etc/link && printf 'x\\0y' > binary && echo file > becomes-link
                head -c 9000 /dev/zero > large && echo same > same";
    script(base, &session.dir("image"));
    session.run(&["import", "image", "base:1"]);
    session.run(&["create", "--name", "work", "base:1"]);
    let mount = session.dir("mount");
    session.run(&["mount", "work", "mount"]);
    let change = "sed -i s/^10$/ten/ etc/numbers && rm -r etc/conf.d && printf 'x\\0z' > binary
                  mkdir -p opt/new && echo new > opt/new/file && chmod 600 etc/motd
                  rm becomes-link && ln -s etc becomes-link && ln -sf nowhere etc/link
                  printf 'no newline' > 'a \"name' && touch -d @5 same && echo >> large";
    who.act(|| script(change, &mount));
    session.unmount("mount");
    session.run(&["commit", "work", "new:1"]);
    session
}

const LIST: &str = "A /a \"name\nC /becomes-link\nC /binary\nC /etc\nD /etc/conf.d\nC /etc/link\n\
                    C /etc/motd\nC /etc/numbers\nC /large\nA /opt\nA /opt/new\nA /opt/new/file\n\
                    C /same\n";

const STATUS: &str = "A\t/a \"name\nT\t/becomes-link\nM\t/binary\nD\t/etc/conf.d/a\n\
                      D\t/etc/conf.d/b\nM\t/etc/link\nM\t/etc/motd\nM\t/etc/numbers\nM\t/large\n\
                      A\t/opt/new/file\nM\t/same\n";

#[test]
fn a_container_an_image_and_a_layer_tell_the_same_changes() {
    for who in [Who::Root, Who::User] {
        let session = with_trees(who);
        assert_eq!(session.run(&["diff", "work"]), LIST, "{who:?}");
        for trees in [
            &["base:1", "new:1"][..],
            &["base:1", "work"],
            &["new:1@1", "new:1@2"],
            &["base:1", "new:1@2"],
            &["new:1@2"],
        ] {
            let said = session.run(&[&["diff"], trees].concat());
            assert_eq!(said, LIST, "{trees:?} {who:?}");
            let said = session.run(&[&["diff", "--name-status"], trees].concat());
            assert_eq!(said, STATUS, "{trees:?} {who:?}");
        }
        assert_eq!(session.run(&["diff", "--name-status", "work"]), STATUS, "{who:?}");
        for trees in [["new:1", "work"], ["base:1", "base:1"], ["new:1@1", "base:1"]] {
            assert_eq!(session.run(&[&["diff"], &trees[..]].concat()), "", "{trees:?} {who:?}");
        }
        let back = session.run(&["diff", "--name-status", "work", "base:1"]);
        assert!(
            back.contains("D\t/opt/new/file\n") && back.contains("A\t/etc/conf.d/b\n"),
            "{back}"
        );
        let all = session.run(&["diff", "base:1@0", "base:1"]);
        assert_eq!(all.lines().count(), session.run(&["find", "base:1"]).lines().count() - 1);
    }
}

#[test]
fn sizes_are_summed() {
    let session = with_trees(Who::User);
    let said = session.run(&["diff", "--stat", "base:1", "new:1"]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "A      +10B /a \"name");
    assert_eq!(lines[1], "T       -2B /becomes-link");
    assert_eq!(lines[2], "M        0B /binary");
    assert_eq!(lines.last(), Some(&"11 files changed, +19B, -6B"), "{said}");
}

#[test]
fn a_patch_makes_the_second_tree_of_the_first() {
    let session = with_trees(Who::User);
    let patch = session.run(&["diff", "-p", "base:1", "new:1"]);
    for part in [
        "diff --git a/etc/numbers b/etc/numbers\n--- a/etc/numbers\n+++ b/etc/numbers\n\
         @@ -7,7 +7,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n",
        "Modes of a/etc/motd and b/etc/motd differ: 100644, 100600\ndiff ",
        "Binary files a/binary and b/binary differ\n",
        "deleted file mode 100644\n--- a/becomes-link\n+++ /dev/null\n@@ -1 +0,0 @@\n-file\n",
        "new file mode 120000\n--- /dev/null\n+++ b/becomes-link\n@@ -0,0 +1 @@\n+etc\n\
         \\ No newline at end of file\n",
        "new file mode 100644\n--- /dev/null\n+++ \"b/a \\\"name\"\n",
    ] {
        assert!(patch.contains(part), "{part}\nin\n{patch}");
    }
    assert!(!patch.contains("same"), "a time alone is no patch: {patch}");
    fs::write(session.path("new.patch"), patch).unwrap();
    session.run(&["export", "-o", "base.tar", "base:1"]);
    let check = "mkdir tree && tar -xf base.tar -C tree && cd tree && git init -q . && \
                 git apply ../new.patch && cat etc/numbers opt/new/file 'a \"name' && \
                 readlink becomes-link etc/link && test ! -e etc/conf.d";
    let mut shell = Command::new("bash");
    shell.args(["-euc", check]).current_dir(session.path("")).stdout(Stdio::piped());
    let output = spawn(&mut shell).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("9\nten\n11\n") && said.ends_with("new\nno newlineetc\nnowhere\n"),
        "{said}"
    );
}

#[test]
fn trees_that_are_not_there_are_named() {
    let session = with_trees(Who::User);
    for (arguments, said) in [
        (&["diff", "base:1"][..], "No such container: base:1"),
        (&["diff", "base:1", "none:1"], "No such object: none:1"),
        (&["diff", "base:1@2", "new:1"], "base:1 has no layer 2: it has 1"),
        (&["diff", "none:1@1"], "No such object: none:1"),
        (&["diff", "--stat", "base:1"], "No such container: base:1"),
    ] {
        assert!(session.refused(arguments).contains(said), "{arguments:?}");
    }
    assert_eq!(session.run(&["cat", "new:1@1:/etc/motd"]), "motd\n");
    assert_eq!(session.run(&["ls", "new:1@1:/etc/conf.d"]), "a\nb\n");
}

#[test]
fn regression_a_layer_is_held_against_layers_and_not_against_a_snapshot_of_that_name() {
    let session = Session::new(Who::User);
    fs::write(session.dir("root").join("first"), "").unwrap();
    session.run(&["import", "root", "app"]);
    fs::rename(session.path("root/first"), session.path("root/second")).unwrap();
    session.run(&["append", "app", "root", "-t", "app"]);
    session.run(&["create", "--name", "app", "app"]);
    // It is called 1.
    session.run(&["snapshot", "app"]);
    assert_eq!(session.run(&["diff", "app@2"]), "A /second\n");
    assert_eq!(session.run(&["diff", "app@1"]), "", "this one is the snapshot");
}
