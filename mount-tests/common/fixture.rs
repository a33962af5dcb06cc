//! An image as people have them: Debian, and on top of it layers with everything that layers can do.
//!
//! It is made by other projects' programs only (mmdebstrap, umoci, GNU tar), once, and kept in
//! `target/fixtures`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::succeed;

/// Changes to the unpacked Debian, each of which umoci packs as a layer.
const CHANGES: [&str; 3] = [
    // Files replaced, deleted and made; set-uid, capabilities, attributes, links, devices.
    "echo strata > etc/hostname
     rm etc/issue.net
     chmod 600 etc/passwd
     chown 1234:5678 etc/group
     printf '#!/bin/sh\\n' > usr/local/bin/tool && chmod 4755 usr/local/bin/tool
     cp bin/cat usr/local/bin/ping && setcap cap_net_raw+ep usr/local/bin/ping
     setfattr -n user.note -v 'a value' etc/hostname
     mkdir -m 2775 srv/shared && chgrp 50 srv/shared && mkdir -m 1777 srv/sticky
     ln etc/hostname srv/hostname && ln srv/hostname srv/shared/hostname
     ln -s ../nowhere srv/dangling
     mkfifo srv/fifo && mknod srv/disk b 8 1 && mknod srv/chars c 10 200 && chmod 640 srv/disk
     touch srv/empty && head -c 300000 /dev/urandom > srv/random",
    // Directories deleted and made again, kinds exchanged, links broken, odd names.
    "rm -r usr/share/doc/apt && mkdir usr/share/doc/apt && echo new > usr/share/doc/apt/only
     rm -r usr/share/lintian
     rm -r etc/apt/apt.conf.d && echo a file now > etc/apt/apt.conf.d
     rm srv/fifo && mkdir srv/fifo && touch srv/fifo/inside
     rm srv/hostname && echo apart > srv/hostname
     touch \"srv/$(printf 'n%.0s' $(seq 255))\"
     touch \"$(printf 'srv/not\\377utf-8')\" && mkdir \"$(printf 'srv/d\\351j\\340')\"
     touch 'srv/a name with spaces' \"$(printf 'srv/and\\na newline')\" 'srv/-rf' 'srv/back\\slash'
     ln -s \"$(printf 't%.0s' $(seq 300))\" srv/far
     truncate -s 5M srv/sparse && echo end >> srv/sparse",
    // What was changed below is changed again, and comes back.
    "echo back > etc/issue.net
     mkdir -p usr/share/lintian/overrides && echo back > usr/share/lintian/overrides/apt
     rm -r srv/shared && ln -s sticky srv/shared
     chmod 755 usr/local/bin/tool
     setfattr -n user.note -v 'another' etc/hostname
     rm srv/random && mv srv/sparse srv/random
     mkdir -p srv/deep/a/b/c/d/e && touch srv/deep/a/b/c/d/e/f",
];

/// A last layer by GNU tar with PAX headers: times to the nanosecond, an opaque directory by its
/// marker, whiteouts, a sparse file, a hard link to a file of a layer below, a longer path than any
/// header takes.
const PAX_LAYER: &str = "mkdir -p etc/apt srv/fifo srv/deep var/cache
    touch -d '2001-02-03 04:05:06.789012345' srv/nanoseconds
    touch -d '1969-12-31 23:59:58' srv/before
    touch srv/fifo/.wh..wh..opq && echo on top > srv/fifo/top
    touch srv/.wh.dangling var/cache/.wh.debconf
    truncate -s 3M srv/holes && echo middle >> srv/holes && truncate -s 6M srv/holes
    d=srv/deep; for i in $(seq 12); do d=$d/a-directory-with-a-long-name; mkdir $d; done; echo deep > $d/file
    echo twice > srv/twice && ln srv/twice srv/deep/twice
    tar --format=pax --sparse --xattrs --sort=name -cf ../layer.tar .";

/// Returns the folder of an OCI layout that holds the image, tagged `latest`.
pub(crate) fn debian() -> &'static Path {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT.get_or_init(|| kept("debian-oci", make))
}

/// Returns the folder of an OCI layout that holds Debian as it is, in one layer, tagged `latest`.
pub(crate) fn plain_debian() -> &'static Path {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT.get_or_init(|| kept("plain-debian-oci", make_plain))
}

/// Returns a fixture, which is made where it is missing.
fn kept(name: &str, make: fn(&Path)) -> PathBuf {
    let kept = fixtures().join(name);
    if !kept.exists() {
        make(&kept);
    }
    kept
}

/// Returns the folder of what tests are made of.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fixtures")
}

fn umoci(arguments: &[&str]) {
    succeed(Command::new("umoci").args(arguments));
}

/// Makes a layout with Debian in one layer, and returns umoci's name of the image.
fn begin(layout: &Path) -> String {
    let image = format!("{}:latest", layout.display());
    umoci(&["init", "--layout", layout.to_str().unwrap()]);
    umoci(&["new", "--image", &image]);
    let debian = fixtures().join("debian.tar");
    umoci(&["raw", "add-layer", "--image", &image, debian.to_str().unwrap()]);
    image
}

fn make_plain(kept: &Path) {
    let work = tempfile::tempdir_in(fixtures()).unwrap();
    let layout = work.path().join("oci");
    let image = begin(&layout);
    umoci(&["config", "--image", &image, "--config.cmd", "bash"]);
    umoci(&["gc", "--layout", layout.to_str().unwrap()]);
    fs::rename(&layout, kept).unwrap();
}

fn make(kept: &Path) {
    let work = tempfile::tempdir_in(fixtures()).unwrap();
    let layout = work.path().join("oci");
    let image = begin(&layout);
    let bundle = work.path().join("bundle");
    umoci(&["unpack", "--image", &image, bundle.to_str().unwrap()]);
    for change in CHANGES {
        script(change, &bundle.join("rootfs"));
        umoci(&["repack", "--refresh-bundle", "--image", &image, bundle.to_str().unwrap()]);
    }
    fs::create_dir(work.path().join("pax")).unwrap();
    script(PAX_LAYER, &work.path().join("pax"));
    let layer = work.path().join("layer.tar");
    umoci(&["raw", "add-layer", "--image", &image, layer.to_str().unwrap()]);
    umoci(&[
        "config",
        "--image",
        &image,
        "--config.cmd",
        "/bin/bash",
        "--config.env",
        "LANG=C.UTF-8",
    ]);
    umoci(&["gc", "--layout", layout.to_str().unwrap()]);
    fs::rename(&layout, kept).unwrap();
}

/// Runs a script in a folder, as whoever calls.
#[track_caller]
pub(crate) fn script(text: &str, dir: &Path) {
    succeed(Command::new("bash").args(["-euc", text]).current_dir(dir).env("HOME", dir));
}
