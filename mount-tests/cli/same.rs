//! What strata shows, and what it makes, is what other programs see of the same image.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use strata::digest::HashingReader;

use crate::common::{Registry, Session, Tree, Who, debian, differences, script, succeed, tree_of};

/// Changes a mounted Debian in every way that a layer can keep.
const EDIT: &str = "echo edited > etc/hostname && rm -r usr/share/doc/bash && rm srv/back*
    mkdir -p opt/app/bin && printf '#!/bin/sh\\n' > opt/app/bin/run && chmod 6755 opt/app/bin/run
    rm -r srv/deep && mkdir srv/deep && touch -d '2010-11-12 13:14:15.000000016' srv/deep/again
    mv usr/share/common-licenses usr/share/licenses && mv etc/apt/sources.list etc/apt/moved.list
    chmod 600 etc/shadow && chown 33:44 etc/debian_version && touch -d '2000-01-01' etc/profile
    ln usr/bin/cat usr/bin/feline && ln -s /etc/hostname opt/link && mkfifo opt/fifo
    setfattr -n user.colour -v blue opt/app && setfattr -x user.note etc/hostname
    [ $(id -u) != 0 ] || setcap cap_net_bind_service+ep usr/local/bin/ping
    touch \"$(printf 'opt/n\\377n')\" && echo more >> usr/share/perl5/Debconf/Db.pm && rmdir home
    head -c 5000000 /dev/zero | tr '\\0' x > opt/large && truncate -s 9M opt/large";

/// Unpacks an OCI layout with umoci and describes the tree.
fn unpacked(layout: &Path, bundle: &Path) -> Tree {
    let image = format!("{}:latest", layout.display());
    succeed(Command::new("umoci").args(["unpack", "--image", &image]).arg(bundle));
    tree_of(&bundle.join("rootfs"))
}

/// Returns what umoci unpacks of the Debian image.
fn expected() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        unpacked(debian(), &folder.path().join("bundle"))
    })
}

/// Pulls the Debian image from a registry that has just got it.
fn pull_debian(session: &Session, registry: &Registry) -> String {
    registry.fill(&format!("oci:{}:latest", debian().display()), "debian:1", &[]);
    let image = registry.image("debian:1");
    session.run(&["pull", "-q", &image]);
    image
}

#[test]
fn a_mounted_image_equals_what_umoci_unpacks() {
    let registry = Registry::start();
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        let image = pull_debian(&session, &registry);
        let mount = session.dir("mount");
        session.run(&["mount", &image, "mount"]);
        let shown = who.act(|| tree_of(&mount));
        assert_eq!(differences(expected(), &shown), Vec::<String>::new(), "as {who:?}");
        has_what_it_is_for(&shown);
    }
}

/// A comparison says nothing about what the image does not have.
fn has_what_it_is_for(tree: &Tree) {
    assert!(tree.len() > 5_000);
    for (name, part) in [
        ("/srv/disk", "device 801"),
        ("/srv/nanoseconds", ".789012345"),
        ("/srv/before", " -2."),
        ("/srv/deep/twice", "with /srv/deep/twice /srv/twice"),
        ("/usr/local/bin/ping", "security.capability="),
        ("/usr/bin/passwd", "104755 "),
        ("/etc/hostname", "user.note=another"),
        ("/etc/group", "1234:5678"),
        ("/srv/holes", "6291456 bytes"),
        ("/srv/fifo/top", ""),
        ("/srv/not\\xffutf-8", ""),
        ("/srv/and\\na newline", ""),
    ] {
        let line = tree.get(name).unwrap_or_else(|| panic!("{name} is not there"));
        assert!(line.contains(part), "{name}: {line}");
    }
    assert!(tree.keys().any(|name| name.ends_with(&"n".repeat(255))));
    for gone in ["/srv/fifo/inside", "/srv/dangling", "/usr/share/doc/apt/copyright"] {
        assert_eq!(tree.get(gone), None, "{gone}");
    }
}

#[test]
fn a_committed_image_equals_what_its_container_showed() {
    for who in [Who::Root, Who::User] {
        let registry = Registry::start();
        let session = Session::new(who);
        let image = pull_debian(&session, &registry);
        let mount = session.dir("mount");
        session.run(&["mount", "--rw", "--name", "edit", &image, "mount"]);
        let shown = who.act(|| {
            script(EDIT, &mount);
            tree_of(&mount)
        });
        assert!(differences(expected(), &shown).len() > 30);
        let edited = registry.image("debian:2");
        commit_twice(&session, "edit", &edited);
        session.run(&["push", "-q", &edited]);
        let layout = session.path("fetched");
        registry.fetch("debian:2", &layout);
        let seen = unpacked(&layout, &session.path("bundle"));
        assert_eq!(differences(&shown, &seen), Vec::<String>::new(), "as {who:?}");
        diff_ids_are_recomputed(&layout);

        session.unmount("mount");
        session.run(&["mount", &edited, "mount"]);
        let again = who.act(|| tree_of(&mount));
        assert_eq!(differences(&shown, &again), Vec::<String>::new(), "as {who:?}");
    }
}

/// Commits the same changes twice, which gives the same image.
fn commit_twice(session: &Session, container: &str, image: &str) {
    let ids: Vec<_> = (0..2)
        .map(|_| {
            let mut commit = session.command(&["commit", "-m", "edited", container, image]);
            // Later than every time in the image: it changes none of them.
            succeed(commit.env("SOURCE_DATE_EPOCH", "4000000000"))
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
}

/// Every layer of a layout hashes to the diffID that its configuration gives.
fn diff_ids_are_recomputed(layout: &Path) {
    let manifest = blob(layout, &json(&layout.join("index.json"))["manifests"][0]["digest"]);
    let config = json(&blob(layout, &json(&manifest)["config"]["digest"]));
    let layers = json(&manifest)["layers"].as_array().unwrap().clone();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(layers.len(), diff_ids.len());
    assert!(layers.len() > 4);
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let tar = MultiGzDecoder::new(File::open(blob(layout, &layer["digest"])).unwrap());
        let mut hashed = HashingReader::new(tar);
        std::io::copy(&mut hashed, &mut std::io::sink()).unwrap();
        assert_eq!(hashed.finish().0.to_string(), *diff_id.as_str().unwrap());
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Path, digest: &Value) -> std::path::PathBuf {
    layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))
}

#[test]
fn layers_come_back_bit_for_bit_when_the_registry_they_came_from_is_gone() {
    let (first, second) = (Registry::start(), Registry::start());
    let session = Session::new(Who::User);
    let image = pull_debian(&session, &first);
    drop(first);
    let elsewhere = second.image("moved:1");
    session.run(&["tag", &image, &elsewhere]);
    session.run(&["push", "-q", &elsewhere]);
    let layout = session.path("fetched");
    second.fetch("moved:1", &layout);
    diff_ids_are_recomputed(&layout);
}

#[test]
fn an_exported_tree_is_that_of_the_mount_and_comes_back_as_an_image() {
    let registry = Registry::start();
    let session = Session::new(Who::Root);
    let image = pull_debian(&session, &registry);
    session.run(&["create", "--name", "box", &image]);
    session.run(&["export", "-o", "tree.tar", "box"]);

    let extracted = session.dir("extracted");
    let options = ["-xpf", "../tree.tar", "--xattrs", "--xattrs-include=*", "--numeric-owner"];
    succeed(Command::new("tar").args(options).current_dir(&extracted));
    assert_eq!(differences(expected(), &tree_of(&extracted)), Vec::<String>::new());

    let listed =
        succeed(Command::new("tar").args(["-tf", "tree.tar"]).current_dir(session.path("")));
    assert_eq!(listed.lines().count(), expected().len());

    for source in ["tree.tar", "extracted"] {
        session.run(&["import", source, "flat:1"]);
        let mount = session.dir("mount");
        session.run(&["mount", "flat:1", "mount"]);
        assert_eq!(differences(expected(), &tree_of(&mount)), Vec::<String>::new(), "{source}");
        session.unmount("mount");
    }
    let inspected: Value = serde_json::from_str(&session.run(&["inspect", "flat:1"])).unwrap();
    assert_eq!(inspected[0]["RootFS"]["Layers"].as_array().unwrap().len(), 1);
}
