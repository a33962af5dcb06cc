//! What is saved, other programs load, and it comes back as it was.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use strata::digest::HashingReader;

use crate::common::{
    Podman, Session, Who, debian, differences, run, script, spawn, succeed, tree_of,
};

/// Makes `demo/base:1`, and `demo/base:2` on top of it, which has no files that podman cannot unpack.
fn make_images(session: &Session) {
    let image = session.dir("image");
    session.who.act(|| {
        script(
            "mkdir -p etc opt gone && echo base > etc/name && head -c 19000 /dev/urandom > opt/data
             ln opt/data opt/again && ln -s data opt/link && echo bye > gone/file
             chmod 4750 opt/data && setfattr -n user.note -v x etc/name",
            &image,
        );
    });
    session.run(&["import", "-c", "CMD [\"/opt/data\"]", "image", "demo/base:1"]);
    let mount = session.dir("mount");
    session.run(&["mount", "--rw", "--name", "box", "demo/base:1", "mount"]);
    session.who.act(|| script("rm -r gone && echo changed > etc/name && mkdir opt/new", &mount));
    session.unmount("mount");
    session.run(&["commit", "-m", "changed", "box", "demo/base:2"]);
}

fn layers(session: &Session, image: &str) -> Value {
    let inspected: Value = serde_json::from_str(&session.run(&["inspect", image])).unwrap();
    inspected[0]["RootFS"]["Layers"].clone()
}

fn ids(session: &Session) -> Vec<String> {
    let rows = session.run(&["images", "--no-trunc"]);
    let mut rows: Vec<_> =
        rows.lines().skip(1).map(|row| row[..row.len().min(110)].to_owned()).collect();
    rows.sort();
    rows.iter().map(|row| row.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect()
}

/// Unpacks an archive into a folder with GNU tar.
fn unpacked(session: &Session, archive: &str, folder: &str) {
    session.dir(folder);
    succeed(Command::new("tar").args(["-xf", archive, "-C", folder]).current_dir(session.path("")));
}

#[test]
fn skopeo_podman_and_umoci_load_what_is_saved() {
    let session = Session::new(Who::Root);
    make_images(&session);
    session.run(&["save", "-o", "both.tar", "demo/base"]);
    session.run(&["save", "-o", "one.tar", "demo/base:2"]);
    let folder = session.path("");
    let expected = layers(&session, "demo/base:2");
    assert_eq!(expected.as_array().unwrap().len(), 2);
    for (source, target) in [
        ("docker-archive:both.tar:demo/base:2", "first"),
        ("oci-archive:both.tar:2", "second"),
        ("docker-archive:one.tar", "third"),
        ("oci-archive:one.tar", "fourth"),
    ] {
        let skopeo = format!(
            "skopeo --insecure-policy copy -q {source} oci:{target}:x
             skopeo inspect --config oci:{target}:x > {target}.json"
        );
        script(&skopeo, &folder);
        let config: Value =
            serde_json::from_slice(&fs::read(session.path(&format!("{target}.json"))).unwrap())
                .unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], expected, "{source}");
        assert_eq!(config["config"]["Cmd"], serde_json::json!(["/opt/data"]), "{source}");
    }

    let podman = Podman::new();
    for archive in ["one.tar", "both.tar"] {
        podman.run(&["load", "-q", "-i", session.path(archive).to_str().unwrap()]);
        let found = podman.run(&[
            "inspect",
            "--type",
            "image",
            "--format",
            "{{json .RootFS.Layers}}",
            "demo/base:2",
        ]);
        assert_eq!(serde_json::from_str::<Value>(&found).unwrap(), expected, "{archive}");
    }
    podman.run(&["inspect", "--type", "image", "demo/base:1"]);

    unpacked(&session, "both.tar", "layout");
    script("umoci unpack --image layout:2 bundle", &folder);
    session.run(&["mount", "demo/base:2", "mount"]);
    let (seen, wanted) = (tree_of(&session.path("bundle/rootfs")), tree_of(&session.path("mount")));
    assert_eq!(differences(&wanted, &seen), Vec::<String>::new());
}

#[test]
fn what_is_saved_and_loaded_is_the_same_image() {
    let session = Session::new(Who::User);
    make_images(&session);
    session.run(&["tag", "demo/base:1", "other.example/base:1"]);
    session.run(&["save", "-o", "saved.tar", "demo/base", "other.example/base:1"]);
    for way in ["file", "stream"] {
        let other = Session::new(Who::Root);
        let archive = session.path("saved.tar");
        let said = match way {
            "file" => other.run(&["load", "-i", archive.to_str().unwrap()]),
            _ => succeed(other.command(&["load"]).stdin(File::open(&archive).unwrap())),
        };
        assert_eq!(
            said,
            "Loaded image: demo/base:1\nLoaded image: other.example/base:1\nLoaded image: demo/base:2\n"
        );
        assert_eq!(ids(&other), ids(&session), "{way}");
        let manifests = |session: &Session| {
            let mut names: Vec<_> = fs::read_dir(session.path("store/blobs/sha256"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        assert_eq!(manifests(&other), manifests(&session), "{way}");
        other.run(&["save", "-o", "again.tar", "demo/base", "other.example/base:1"]);
        assert!(fs::read(other.path("again.tar")).unwrap() == fs::read(&archive).unwrap(), "{way}");
    }
}

#[test]
fn layers_are_saved_bit_for_bit_and_the_same_image_gives_the_same_bytes() {
    let session = Session::new(Who::Root);
    let sources = session.dir("sources");
    succeed(Command::new("skopeo").args(["--insecure-policy", "copy", "-q"]).args([
        format!("oci:{}:latest", debian().display()),
        format!("docker-archive:{}:debian:1", sources.join("debian.tar").display()),
    ]));
    session.run(&["load", "-i", "sources/debian.tar"]);
    session.run(&["save", "-o", "first.tar", "debian:1"]);
    let mut save = session.command(&["save", "debian:1"]);
    let mut save = spawn(save.stdout(File::create(session.path("second.tar")).unwrap()));
    assert!(save.wait().unwrap().success());
    succeed(Command::new("cmp").args(["first.tar", "second.tar"]).current_dir(session.path("")));
    unpacked(&session, "first.tar", "saved");
    unpacked(&session, "sources/debian.tar", "skopeo");
    for layer in layers(&session, "debian:1").as_array().unwrap() {
        let hex = layer.as_str().unwrap().replace("sha256:", "");
        let [saved, before] = [format!("saved/blobs/sha256/{hex}"), format!("skopeo/{hex}.tar")];
        succeed(Command::new("cmp").args([saved, before]).current_dir(session.path("")));
    }
    blobs_are_what_they_are_called(&session.path("saved/blobs/sha256"));
}

fn blobs_are_what_they_are_called(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut blob = HashingReader::new(File::open(&path).unwrap());
        std::io::copy(&mut blob, &mut std::io::sink()).unwrap();
        assert_eq!(blob.finish().0.hex(), path.file_name().unwrap().to_str().unwrap());
    }
}

#[test]
fn images_are_saved_by_the_names_that_were_asked_for() {
    let session = Session::new(Who::User);
    make_images(&session);
    let id = session.run(&["images", "-q", "demo/base:1"]);
    let names = |arguments: &[&str]| -> String {
        session.run(&[&["save", "-o", "x.tar"], arguments].concat());
        let mut tar = Command::new("tar");
        tar.args(["-xOf", "x.tar", "manifest.json"]).current_dir(session.path(""));
        let list: Value = serde_json::from_str(&crate::common::run(&mut tar).stdout).unwrap();
        let names = list.as_array().unwrap().iter().map(|image| image["RepoTags"].to_string());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&["demo/base"]), r#"["demo/base:1"] ["demo/base:2"]"#);
    assert_eq!(names(&["demo/base:2", "demo/base:1"]), r#"["demo/base:2"] ["demo/base:1"]"#);
    assert_eq!(names(&[id.trim()]), "null");
    assert_eq!(names(&[id.trim(), "demo/base:1", "demo/base:1"]), r#"["demo/base:1"]"#);
    session.run(&["load", "-q", "-i", "x.tar"]);
    assert_eq!(session.run(&["images", "-q"]).lines().count(), 2);
}

#[test]
fn what_cannot_be_saved_leaves_what_was_there() {
    let session = Session::new(Who::User);
    make_images(&session);
    fs::write(session.path("x.tar"), "before").unwrap();
    let said = session.refused(&["save", "-o", "x.tar", "demo/base:1", "gone:1"]);
    assert_eq!(said, "Error: No such image: gone:1\n");
    let output = session.try_run(&["save", "demo/base:1", "gone:1"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    let said =
        session.refused(&["save", "--platform", "linux/s390x", "-o", "x.tar", "demo/base:1"]);
    assert!(said.contains("wanted linux/s390x, actual: linux/"), "{said}");
    // An object that is damaged is found while it is written.
    let objects = session.path("store/objects");
    script(
        "for f in */*; do chmod 644 $f; printf x | dd of=$f conv=notrunc status=none; done",
        &objects,
    );
    let said = session.refused(&["save", "-o", "x.tar", "demo/base:2"]);
    assert!(said.contains("pull its image again to repair it"), "{said}");
    assert_eq!(fs::read_to_string(session.path("x.tar")).unwrap(), "before");
    assert!(!session.path("x.tar.partial").exists());
}

#[test]
fn a_terminal_gets_no_archive_and_a_closed_pipe_is_no_error() {
    let session = Session::new(Who::Root);
    make_images(&session);
    let save = format!(
        "{} save demo/base:1",
        session.command::<&str>(&[]).get_program().to_str().unwrap()
    );
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &save, "/dev/null"]).env("STRATA_ROOT", session.path("store"));
    let output = run(terminal.stdin(Stdio::null()));
    assert_eq!(output.code, 1);
    let text = "Error: cowardly refusing to save to a terminal. Use the -o flag or redirect";
    assert_eq!(output.stdout.trim(), text);

    let mut save = session.command(&["save", "demo/base"]);
    let mut save = spawn(save.stdout(Stdio::piped()).stderr(Stdio::piped()));
    drop(save.stdout.take());
    let output = save.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
