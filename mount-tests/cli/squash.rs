//! Layers made into one: the tree stays what it is.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{Registry, Session, Tree, Who, debian, differences, script, succeed, tree_of};

/// Changes that a layer above others has to tell exactly: what goes, what changes its kind, names of
/// one file that part, join and multiply, attributes alone, times alone.
const CHANGES: [&str; 2] = [
    "rm -r dir/gone && rm file-gone && rm -r dir-to-file && echo now > dir-to-file
     rm file-to-dir && mkdir file-to-dir && echo in > file-to-dir/in
     ln kept kept-too && cp -p --remove-destination pair-1 x && mv x pair-1
     rm trio-1 && chmod 600 mode && touch -d @1234567890 time && touch -d @1234567891 dir
     setfattr -n user.note -v here attr && rm link && ln -s elsewhere link
     rm -r remade && mkdir remade && echo other > remade/other",
    "echo in > dir/gone && rm dir-to-file && mkdir dir-to-file && rm kept && ln kept-too kept
     ln -f kept-too pair-2 && head -c 100000 /dev/zero > large && rm -r remade/other
     : > empty && rm empty && mkfifo fifo",
];

/// Returns a session with `base:1`, and two containers' changes on top of it, `top:1`.
fn with_layers(who: Who) -> Session {
    let session = Session::new(who);
    let base = "mkdir -p dir/gone dir-to-file remade && echo a > dir/gone/a && echo b > dir-to-file/b
        for name in file-gone file-to-dir kept pair-1 trio-1 mode time attr; do echo $name > $name; done
        ln pair-1 pair-2 && ln trio-1 trio-2 && ln trio-1 trio-3 && ln -s there link
        echo old > remade/old && head -c 100000 /dev/urandom > large";
    script(base, &session.dir("image"));
    session.run(&["import", "-c", "ENV A=1", "image", "step:0"]);
    for (number, change) in CHANGES.iter().enumerate() {
        let (from, to) = (format!("step:{number}"), format!("step:{}", number + 1));
        let mount = session.dir("work");
        session.run(&["mount", "--rw", "--name", "work", &from, "work"]);
        who.act(|| script(change, &mount));
        session.run(&["commit", "-m", &format!("step {number}"), "work", &to]);
        session.unmount("work");
        session.run(&["rm", "work"]);
    }
    session.run(&["tag", "step:2", "top:1"]);
    session
}

/// Returns what a mounted image shows.
fn shown(session: &Session, image: &str) -> Tree {
    let mount = session.dir("shown");
    session.run(&["mount", image, "shown"]);
    let tree = session.who.act(|| tree_of(&mount));
    session.unmount("shown");
    tree
}

fn inspected(session: &Session, image: &str) -> Value {
    let text = session.run(&["inspect", "--type", "image", image]);
    serde_json::from_str::<Value>(&text).unwrap()[0].take()
}

#[test]
fn a_squashed_image_shows_what_it_showed() {
    for who in [Who::Root, Who::User] {
        let session = with_layers(who);
        let expected = shown(&session, "top:1");
        assert!(
            expected["/kept"].contains("with /kept /kept-too /pair-2"),
            "{}",
            expected["/kept"]
        );
        let old = inspected(&session, "top:1");
        for (from, layers) in [(None, 1), (Some("0"), 1), (Some("1"), 2), (Some("2"), 3)] {
            let from = from.map_or(vec![], |from| vec!["--from", from]);
            session.run(&[&["squash"], &from[..], &["top:1", "small:1"]].concat());
            let found = shown(&session, "small:1");
            assert_eq!(differences(&expected, &found), Vec::<String>::new(), "{from:?} {who:?}");
            let new = inspected(&session, "small:1");
            assert_eq!(new["RootFS"]["Layers"].as_array().unwrap().len(), layers, "{from:?}");
            for kept in 0..layers - 1 {
                assert_eq!(new["RootFS"]["Layers"][kept], old["RootFS"]["Layers"][kept]);
            }
            assert_eq!(new["Config"], old["Config"]);
        }
    }
}

#[test]
fn the_history_keeps_its_rows_and_sizes_belong_to_their_layers() {
    let session = with_layers(Who::User);
    session.run(&["squash", "--from", "1", "top:1", "small:1"]);
    let history = session.run(&["history", "--human=false", "small:1"]);
    let rows: Vec<_> = history.lines().skip(1).collect();
    assert_eq!(rows.len(), 4, "{history}");
    assert!(rows[0].contains("squash of layers 2 to 3"), "{history}");
    assert!(rows[1].contains(" 0 ") && rows[1].ends_with("step 1"), "{history}");
    assert!(rows[2].contains(" 0 ") && rows[2].ends_with("step 0"), "{history}");
    assert!(rows[3].contains(" 100"), "the base is as large as it was: {history}");
}

#[test]
fn a_layer_is_named_by_number_or_by_the_beginning_of_its_diff_id() {
    let session = with_layers(Who::User);
    let old = inspected(&session, "top:1");
    let second = old["RootFS"]["Layers"][1].as_str().unwrap();
    let id = session.run(&["squash", "--from", second, "top:1", "one:1"]);
    let new = inspected(&session, id.trim());
    assert_eq!(new["RootFS"]["Layers"][1].as_str(), Some(second));
    for (layer, said) in [
        ("3", "layer 3 is the top of top:1"),
        ("4", "top:1 has no layer 4: it has 3"),
        ("sha256:xyz", "top:1 has no layer sha256:xyz"),
    ] {
        let text = session.refused(&["squash", "--from", layer, "top:1", "two:1"]);
        assert!(text.contains(said), "{text}");
    }
    // Digits are a number, also where a layer's digest begins with them.
    for layer in 4..100 {
        let layer = layer.to_string();
        let text = session.refused(&["squash", "--from", &layer, "top:1", "two:1"]);
        assert!(text.contains(&format!("no layer {layer}: it has 3")), "{text}");
    }
    assert!(session.refused(&["squash", "none:1", "two:1"]).contains("No such image: none:1"));
}

/// Unpacks a tagged image of a registry with umoci and describes the tree.
fn unpacked_by_umoci(registry: &Registry, name: &str, folder: &Path) -> Tree {
    let layout = folder.join("oci");
    let from = format!("docker://{}", registry.image(name));
    let to = format!("oci:{}:latest", layout.display());
    succeed(Command::new("skopeo").args(["copy", "-q", "--src-tls-verify=false", &from, &to]));
    let image = format!("{}:latest", layout.display());
    let bundle = folder.join("bundle");
    succeed(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
    tree_of(&bundle.join("rootfs"))
}

#[test]
fn other_programs_see_a_squashed_debian_as_they_saw_its_layers() {
    let registry = Registry::start();
    let session = Session::new(Who::Root);
    registry.fill(&format!("oci:{}:latest", debian().display()), "debian:1", &[]);
    let image = registry.image("debian:1");
    session.run(&["pull", "-q", &image]);
    let expected = shown(&session, &image);
    for (name, from) in [("debian:all", "0"), ("debian:some", "1")] {
        let new = registry.image(name);
        session.run(&["squash", "--from", from, &image, &new]);
        let found = shown(&session, &new);
        assert_eq!(differences(&expected, &found), Vec::<String>::new(), "{name}");
        if from == "0" {
            continue;
        }
        session.run(&["push", "-q", &new]);
        let folder = tempfile::tempdir().unwrap();
        let found = unpacked_by_umoci(&registry, name, folder.path());
        assert_eq!(differences(&expected, &found), Vec::<String>::new(), "{name} by umoci");
    }
}
