//! Archives of images that other programs have made, and what becomes of their names.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use strata::digest::Digest;

use crate::common::{
    Crafted, Packing, Podman, Session, Tree, Who, differences, noise, run, script, small, spawn,
    succeed, tree_of,
};

/// Three layers, the first of which comes again as the last: files of all sizes, links, a directory
/// that is replaced, a whiteout.
const LAYERS: &str = "mkdir -p one/etc one/opt one/gone && echo base > one/etc/name
    head -c 9000 /dev/urandom > one/opt/data && ln one/opt/data one/opt/again && ln -s data one/opt/link
    echo bye > one/gone/file && chmod 4750 one/opt/data && setfattr -n user.note -v x one/etc/name
    mkdir -p two/etc && echo changed > two/etc/name && touch two/.wh.gone && echo two > two/etc/two
    for l in one two; do tar --format=pax --xattrs --sort=name --owner=7:7 -cf $l.tar -C $l .; done
    umoci init --layout layout && umoci new --image layout:1
    for l in one two one; do umoci raw add-layer --image layout:1 $l.tar; done
    umoci config --image layout:1 --config.cmd /opt/data --config.env KEY=value
    umoci gc --layout layout";

/// The same image in every form that other programs give it.
struct Forms {
    session: Session,
    archives: Vec<PathBuf>,
}

impl Forms {
    fn make() -> Self {
        let session = Session::new(Who::Root);
        let folder = session.path("");
        script(LAYERS, &folder);
        script(
            "skopeo='skopeo --insecure-policy copy -q'
             $skopeo oci:layout:1 docker-archive:skopeo-docker.tar:demo/base:1
             $skopeo oci:layout:1 oci-archive:skopeo-oci.tar:demo/base:1
             $skopeo --dest-compress --dest-compress-format zstd docker-archive:skopeo-docker.tar oci:zstd:demo/base:1
             tar -cf dotted.tar -C layout .
             gzip -k dotted.tar && zstd -q dotted.tar && xz -k skopeo-docker.tar && bzip2 -k skopeo-oci.tar",
            &folder,
        );
        fs::write(folder.join("docker-old.tar"), docker_old(&folder.join("skopeo-docker.tar")))
            .unwrap();
        let podman = Podman::new();
        podman.run(&["load", "-q", "-i", session.path("skopeo-docker.tar").to_str().unwrap()]);
        for format in ["docker-archive", "oci-archive"] {
            let out = session.path(&format!("podman-{format}.tar"));
            podman.run(&[
                "save",
                "-q",
                "--format",
                format,
                "-o",
                out.to_str().unwrap(),
                "demo/base:1",
            ]);
        }
        let made = [
            "layout",
            "zstd",
            "dotted.tar",
            "dotted.tar.gz",
            "dotted.tar.zst",
            "skopeo-docker.tar",
            "skopeo-docker.tar.xz",
            "skopeo-oci.tar",
            "skopeo-oci.tar.bz2",
            "docker-old.tar",
            "podman-docker-archive.tar",
            "podman-oci-archive.tar",
        ];
        let archives = made.map(|name| session.path(name)).to_vec();
        Self { session, archives }
    }
}

impl Forms {
    /// Returns the digest of the configuration that skopeo finds in an archive.
    fn id_in(&self, archive: &str) -> String {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--raw", "--config", archive]);
        skopeo.current_dir(self.session.path("")).stdout(Stdio::piped());
        let config = crate::common::spawn(&mut skopeo).wait_with_output().unwrap();
        Digest::of(&config.stdout).to_string()
    }
}

/// Makes an archive as docker did up to 24 of one of skopeo's: layers in folders, equal ones as links
/// to each other, some before what they lead to, the list at the end.
fn docker_old(skopeo: &Path) -> Vec<u8> {
    let mut archive = tar::Archive::new(File::open(skopeo).unwrap());
    let mut files = std::collections::BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(name, bytes);
    }
    let mut list: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let config = list[0]["Config"].as_str().unwrap().to_owned();
    let layers = list[0]["Layers"].as_array().unwrap().clone();
    let ids: Vec<_> =
        (0..layers.len()).map(|at| Digest::of(&[u8::try_from(at).unwrap()]).hex()).collect();
    assert_eq!(layers[0], layers[2], "the image has one layer twice");
    let mut made = Made::new();
    made.link(&format!("{}/layer.tar", ids[2]), &format!("../{}/layer.tar", ids[0]));
    for (id, layer) in ids.iter().zip(&layers).take(2) {
        made.file(&format!("{id}/VERSION"), b"1.0");
        made.file(&format!("{id}/json"), json!({"id": id}).to_string().as_bytes());
        made.file(&format!("{id}/layer.tar"), &files[layer.as_str().unwrap()]);
    }
    made.file(&config, &files[&config]);
    list[0]["Layers"] = ids.iter().map(|id| format!("{id}/layer.tar")).collect();
    made.file("repositories", br#"{"demo/base":{"1":"x"}}"#);
    made.file("manifest.json", list.to_string().as_bytes());
    made.finish()
}

/// An archive that is made by hand.
struct Made(tar::Builder<Vec<u8>>);

impl Made {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, name, content).unwrap();
    }

    fn link(&mut self, name: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        self.0.append_link(&mut header, name, target).unwrap();
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Loads from standard input.
fn load_stream(session: &Session, archive: &Path) -> String {
    let mut load = session.command(&["load"]);
    succeed(load.stdin(File::open(archive).unwrap()))
}

/// Returns the layers of an image, and its tree through a mount.
fn facts(session: &Session, id: &str) -> (Value, Tree) {
    let inspected: Value = serde_json::from_str(&session.run(&["inspect", id])).unwrap();
    session.dir("mount");
    session.run(&["mount", id, "mount"]);
    let tree = session.who.act(|| tree_of(&session.path("mount")));
    session.unmount("mount");
    (inspected[0]["RootFS"]["Layers"].clone(), tree)
}

#[test]
fn an_image_is_the_same_whatever_the_archive_and_whether_it_can_be_read_twice() {
    let forms = Forms::make();
    let mut expected = None;
    for archive in &forms.archives {
        let name = archive.file_name().unwrap().to_str().unwrap();
        let mut ways = vec!["file"];
        if archive.is_file() {
            ways.push("stream");
        }
        for way in ways {
            let session = Session::new(Who::Root);
            let said = match way {
                "file" => session.run(&["load", "-i", archive.to_str().unwrap()]),
                _ => load_stream(&session, archive),
            };
            let id = session.run(&["images", "-q", "--no-trunc"]);
            let nameless = name == "layout" || name.starts_with("dotted");
            let expected_text = if nameless {
                format!("Loaded image ID: {id}")
            } else {
                "Loaded image: demo/base:1\n".to_owned()
            };
            assert_eq!(said, expected_text, "{name} as {way}");
            // Where docker's configuration was turned into OCI's it is another one.
            let same_as = match name {
                "zstd" => "oci:zstd",
                "podman-oci-archive.tar" => "oci-archive:podman-oci-archive.tar",
                _ => "oci:layout:1",
            };
            assert_eq!(id.trim(), forms.id_in(same_as), "{name} as {way}");
            let (layers, tree) = facts(&session, id.trim());
            let (layers_wanted, tree_wanted) =
                expected.get_or_insert_with(|| (layers.clone(), tree.clone()));
            assert_eq!(layers, *layers_wanted, "{name} as {way}");
            assert_eq!(differences(tree_wanted, &tree), Vec::<String>::new(), "{name} as {way}");
            assert_eq!(fs::read_dir(session.path("store/staging")).unwrap().count(), 0);
        }
    }
    let (layers, tree) = expected.unwrap();
    assert_eq!(layers.as_array().unwrap().len(), 3);
    assert!(tree["/etc/name"].contains("5 bytes") && !tree.contains_key("/.wh.gone"), "{tree:?}");
}

/// Makes an OCI layout with an index of images for two platforms, and a folder of it.
fn two_platforms(session: &Session) -> PathBuf {
    let folder = session.dir("two");
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let image = |architecture: &str| {
        let layer = Crafted::new(Packing::Gzip, &[(architecture, b"content\n")]);
        let config = json!({
            "os": "linux", "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        });
        let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let blob = put(&layer.media_type, &layer.blob);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [blob],
        });
        let mut entry = put(media_type, manifest.to_string().as_bytes());
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({
        "schemaVersion": 2, "mediaType": media_type, "manifests": [image("arm64"), image("amd64")],
    });
    let mut entry = put(media_type, index.to_string().as_bytes());
    entry["annotations"] = json!({"io.containerd.image.name": "docker.io/demo/two:1"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    succeed(
        Command::new("tar")
            .args(["-cf", "two.tar", "-C", "two", "."])
            .current_dir(session.path("")),
    );
    folder
}

#[test]
fn of_several_platforms_one_is_loaded() {
    let sources = Session::new(Who::Root);
    let folder = two_platforms(&sources);
    let tar = sources.path("two.tar");
    for platform in ["amd64", "arm64"] {
        for archive in [&folder, &tar] {
            let session = Session::new(Who::User);
            let archive = archive.to_str().unwrap();
            session.run(&["load", "--platform", platform, "-i", archive]);
            let (_, tree) = facts(&session, "demo/two:1");
            assert!(tree.contains_key(&format!("/{platform}")), "{tree:?}");
            // The layer of the other one was not stored.
            assert_eq!(fs::read_dir(session.path("store/layers")).unwrap().count(), 2);
        }
    }
    let session = Session::new(Who::User);
    let said = session.refused(&["load", "--platform", "linux/s390x", "-i", tar.to_str().unwrap()]);
    assert!(
        said.contains("has no image for linux/s390x; it has linux/arm64, linux/amd64"),
        "{said}"
    );
    let mut load = session.command(&["load", "-q", "--platform", "linux/arm64"]);
    assert_eq!(succeed(load.stdin(File::open(&tar).unwrap())), "Loaded image: demo/two:1\n");
    assert_eq!(fs::read_dir(session.path("store/layers")).unwrap().count(), 2);
}

/// Makes an archive as docker does of images with one layer each, and these names.
fn docker_archive(images: &[(&Crafted, &[&str])]) -> Vec<u8> {
    let mut made = Made::new();
    let mut list = Vec::new();
    for (layer, names) in images {
        let config = json!({
            "os": "linux", "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        });
        let config = config.to_string();
        let file = format!("{}.json", Digest::of(config.as_bytes()).hex());
        let folder = layer.diff_id.replace("sha256:", "");
        made.file(&format!("{folder}/layer.tar"), &layer.blob);
        made.file(&file, config.as_bytes());
        list.push(json!({
            "Config": file, "RepoTags": names, "Layers": [format!("{folder}/layer.tar")],
        }));
    }
    made.file("manifest.json", Value::from(list).to_string().as_bytes());
    made.finish()
}

#[test]
fn a_name_goes_to_the_image_that_is_loaded_and_what_had_it_is_told() {
    let session = Session::new(Who::User);
    let layers = ["a", "b"].map(small);
    let load = |archive: &[u8], quiet: &[&str]| {
        fs::write(session.path("x.tar"), archive).unwrap();
        session.run(&[&["load", "-i", "x.tar"], quiet].concat())
    };
    let both = docker_archive(&[(&layers[0], &["a:1", "a:2"]), (&layers[1], &[])]);
    let said = load(&both, &[]);
    let (lines, id) = said.rsplit_once("Loaded image ID: ").unwrap();
    assert_eq!(lines, "Loaded image: a:1\nLoaded image: a:2\n");
    let images = session.run(&["images", "--no-trunc"]);
    let first = images.lines().find(|line| line.starts_with("a ")).unwrap();
    let first = first.split_whitespace().nth(2).unwrap();
    // The same again changes nothing.
    assert_eq!(load(&both, &[]), said);
    assert_eq!(session.run(&["images", "--no-trunc"]), images);

    let moved = docker_archive(&[(&layers[1], &["a:1"])]);
    assert_eq!(
        load(&moved, &[]),
        format!(
            "The image a:1 already exists, the old one with ID {first} keeps its other names\n\
             Loaded image: a:1\n"
        )
    );
    let moved = docker_archive(&[(&layers[1], &["a:2"])]);
    assert_eq!(
        load(&moved, &[]),
        format!(
            "The image a:2 already exists, renaming the old one with ID {first} to empty string\n\
             Loaded image: a:2\n"
        )
    );
    assert!(
        !session.run(&["images", "--no-trunc"]).contains(&format!("<none>       {}", id.trim()))
    );
    // Without bars it says the same.
    assert!(load(&both, &["-q"]).starts_with("The image a:1 already exists, "));
    assert_eq!(load(&both, &["-q"]), said);
}

#[test]
fn what_a_registry_has_of_an_image_stays_known() {
    let registry = crate::common::Registry::start();
    registry.put_image("demo:1", "linux/amd64", &[Crafted::new(Packing::Gzip, &[("f", b"x")])]);
    let session = Session::new(Who::User);
    let image = registry.image("demo:1");
    session.run(&["pull", "-q", &image]);
    let before = session.run(&["images", "--digests"]);
    session.run(&["save", "-o", "saved.tar", &image]);
    session.run(&["load", "-i", "saved.tar"]);
    assert_eq!(session.run(&["images", "--digests"]), before);
    let uploads = registry.requests().len();
    session.run(&["push", "-q", &image]);
    assert_eq!(registry.uploads_since(uploads), Vec::<String>::new());
}

#[test]
fn a_layer_that_is_there_is_not_stored_again_and_a_damaged_one_is_mended() {
    let session = Session::new(Who::User);
    let layer = Crafted::new(Packing::Plain, &[("noise", &noise(50_000)), ("small", b"x")]);
    fs::write(session.path("x.tar"), docker_archive(&[(&layer, &["a:1"])])).unwrap();
    session.run(&["load", "-i", "x.tar"]);
    let index = session.path(&format!("store/layers/{}.idx", layer.diff_id.replace("sha256:", "")));
    let modified = || fs::metadata(&index).unwrap().modified().unwrap();
    let before = modified();
    session.run(&["load", "-i", "x.tar"]);
    load_stream(&session, &session.path("x.tar"));
    assert_eq!(modified(), before);
    let mut bytes = fs::read(&index).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&index).unwrap();
    fs::write(&index, &bytes).unwrap();
    session.run(&["load", "-i", "x.tar"]);
    let (_, tree) = facts(&session, "a:1");
    assert_eq!(tree.len(), 3);
}

#[test]
fn a_load_that_is_killed_leaves_no_half_image() {
    let session = Session::new(Who::User);
    let layers = [1_u8, 2].map(|byte| {
        let content = [noise(2_000_000), vec![byte]].concat();
        Crafted::new(Packing::Plain, &[("noise", &content)])
    });
    let archive = docker_archive(&[(&layers[0], &["a:1"]), (&layers[1], &["b:1"])]);
    for part in [archive.len() / 4, archive.len() * 3 / 4, archive.len() - 2000] {
        let mut load = session.command(&["load"]);
        let mut load = spawn(load.stdin(Stdio::piped()).stdout(Stdio::null()));
        let mut stdin = load.stdin.take().unwrap();
        // All of it has been read when the rest is written but what a pipe and its readers hold.
        stdin.write_all(&archive[..part]).unwrap();
        load.kill().unwrap();
        load.wait().unwrap();
        assert_eq!(session.run(&["images", "-q"]), "");
        assert_eq!(fs::read_dir(session.path("store/layers")).unwrap().count(), 0);
    }
    fs::write(session.path("x.tar"), &archive).unwrap();
    assert_eq!(session.run(&["load", "-i", "x.tar"]), "Loaded image: a:1\nLoaded image: b:1\n");
    assert_eq!(fs::read_dir(session.path("store/staging")).unwrap().count(), 0);
    assert_eq!(facts(&session, "b:1").1.len(), 2);
}

#[test]
fn a_terminal_is_no_archive() {
    let session = Session::new(Who::Root);
    let load = format!("{} load", session.command::<&str>(&[]).get_program().to_str().unwrap());
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &load, "/dev/null"]).env("STRATA_ROOT", session.path("store"));
    let output = run(terminal.stdin(Stdio::null()));
    assert_eq!(output.code, 1);
    assert!(
        output.stdout.contains("Error: requested load from stdin, but stdin is empty"),
        "{output:?}"
    );
}
