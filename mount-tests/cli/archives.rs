//! Images made of archives and folders.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::{Session, Who, script, spawn, succeed};

/// A folder with a few files, and a tar of it.
fn sources(session: &Session) -> Vec<u8> {
    let image = session.dir("image");
    script(
        "mkdir -p a/b && echo one > a/one && echo two > a/b/two && ln a/one a/hard && ln -s one a/link",
        &image,
    );
    succeed(
        Command::new("tar")
            .args(["-cf", "image.tar", "-C", "image", "."])
            .current_dir(session.path("")),
    );
    fs::read(session.path("image.tar")).unwrap()
}

fn inspect(session: &Session, image: &str) -> Value {
    let mut all: Value = serde_json::from_str(&session.run(&["inspect", image])).unwrap();
    all[0].take()
}

fn names(session: &Session, image: &str) -> Vec<String> {
    let mut export = session.command(&["export", image]);
    let mut export = spawn(export.stdout(Stdio::piped()));
    let tar = export.stdout.take().unwrap();
    let listed = succeed(Command::new("tar").arg("-t").stdin(tar));
    assert!(export.wait().unwrap().success());
    let mut names: Vec<_> = listed.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn a_tar_is_imported_however_it_is_compressed_and_wherever_it_comes_from() {
    let session = Session::new(Who::User);
    let tar = sources(&session);
    script(
        "gzip -k image.tar; zstd -q image.tar; bzip2 -k image.tar; xz -k image.tar",
        &session.path(""),
    );
    for source in ["image.tar", "image.tar.gz", "image.tar.zst", "image.tar.bz2", "image.tar.xz"] {
        session.run(&["import", source, "made:1"]);
        assert_eq!(
            names(&session, "made:1"),
            ["./", "a/", "a/b/", "a/b/two", "a/hard", "a/link", "a/one"],
            "{source}"
        );
        let layer = strata::digest::Digest::of(&tar).to_string();
        assert_eq!(inspect(&session, "made:1")["RootFS"]["Layers"][0], layer.as_str(), "{source}");
    }
    let mut import = session.command(&["import", "-", "stdin:1"]);
    let mut import = spawn(import.stdin(Stdio::piped()).stdout(Stdio::null()));
    import.stdin.take().unwrap().write_all(&tar).unwrap();
    assert!(import.wait().unwrap().success());
    assert_eq!(inspect(&session, "stdin:1")["RootFS"], inspect(&session, "made:1")["RootFS"]);
}

#[test]
fn what_import_is_told_is_in_the_image() {
    let session = Session::new(Who::User);
    sources(&session);
    session.run(&[
        "import",
        "--platform",
        "linux/arm/v6",
        "-m",
        "why",
        "-c",
        "CMD [\"/a\", \"b\"]",
        "-c",
        "ENV KEY=value OTHER=x",
        "-c",
        "LABEL by=me",
        "-c",
        "WORKDIR /a",
        "image",
        "made:1",
    ]);
    let image = inspect(&session, "made:1");
    assert_eq!(image["Architecture"], "arm");
    assert_eq!(image["Variant"], "v6");
    assert_eq!(image["Comment"], "why");
    assert_eq!(image["Config"]["Cmd"], serde_json::json!(["/a", "b"]));
    assert_eq!(image["Config"]["Env"], serde_json::json!(["KEY=value", "OTHER=x"]));
    assert_eq!(image["Config"]["Labels"]["by"], "me");
    assert_eq!(image["Config"]["WorkingDir"], "/a");
    let history = session.run(&["history", "made:1"]);
    assert!(history.contains("why"), "{history}");
}

#[test]
fn the_same_folder_gives_the_same_image_under_source_date_epoch() {
    let session = Session::new(Who::User);
    sources(&session);
    let import = || {
        let mut import = session.command(&["import", "image", "made:1"]);
        succeed(import.env("SOURCE_DATE_EPOCH", "1000000000"))
    };
    let first = import();
    script(
        "touch a/one && cp -a a/b/two a/b/three && rm a/b/three && touch a/b",
        &session.path("image"),
    );
    assert_eq!(import(), first);
}

#[test]
fn an_archive_that_is_none_or_ends_too_early_is_refused_and_leaves_nothing() {
    let session = Session::new(Who::User);
    let tar = sources(&session);
    script("gzip -k image.tar", &session.path(""));
    let gz = fs::read(session.path("image.tar.gz")).unwrap();
    let cases: [(&str, &[u8]); 4] = [
        ("text", b"this is no tar, however long it is".repeat(100).leak()),
        ("cut.tar", &tar[..1100]),
        ("cut.tar.gz", &gz[..gz.len() / 2]),
        ("damaged.tar", &damaged(&tar)),
    ];
    for (name, bytes) in cases {
        fs::write(session.path(name), bytes).unwrap();
        let said = session.refused(&["import", name, "made:1"]);
        assert!(said.starts_with("Error: ") && said.contains(name), "{name}: {said}");
        assert_eq!(session.run(&["images", "-aq"]), "", "{name}");
        assert_eq!(count(&session.path("store/layers")), 0, "{name}");
        assert_eq!(count(&session.path("store/staging")), 0, "{name}");
    }
    let said = session.refused(&["import", "absent.tar", "made:1"]);
    assert!(said.contains("absent.tar"), "{said}");
}

#[test]
fn an_image_that_is_made_gets_no_name_with_a_digest() {
    let session = Session::new(Who::User);
    sources(&session);
    session.run(&["import", "image", "made:1"]);
    session.run(&["create", "--name", "box", "made:1"]);
    let name = format!("made@sha256:{}", "0".repeat(64));
    for arguments in
        [["import", "image", &name], ["commit", "box", &name], ["tag", "made:1", &name]]
    {
        let said = session.refused(&arguments);
        assert_eq!(said, "Error: refusing to create a tag with a digest reference\n");
    }
    let said = session.refused(&["push", &name]);
    assert_eq!(said, "Error: cannot push a digest reference\n");
    let mut import = session.command(&["import", "image", "made:2"]);
    let output = crate::common::run(import.env("SOURCE_DATE_EPOCH", "99999999999999"));
    assert!(output.stderr.contains("SOURCE_DATE_EPOCH is \"99999999999999\""), "{}", output.stderr);
    assert_eq!(session.run(&["images", "-q"]).lines().count(), 1);
}

fn damaged(tar: &[u8]) -> Vec<u8> {
    let mut bytes = tar.to_vec();
    bytes[530] ^= 1;
    bytes
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_socket_is_left_out_with_a_warning() {
    let session = Session::new(Who::User);
    sources(&session);
    drop(std::os::unix::net::UnixListener::bind(session.path("image/a/socket")).unwrap());
    let output = session.try_run(&["import", "image", "made:1"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stderr.contains("a/socket is a socket"), "{}", output.stderr);
    assert!(!names(&session, "made:1").contains(&"a/socket".to_owned()));
}

#[test]
fn an_export_that_nobody_reads_to_its_end_is_no_error_to_print() {
    let session = Session::new(Who::User);
    sources(&session);
    let large = File::create(session.path("image/large")).unwrap();
    large.set_len(4 << 20).unwrap();
    session.run(&["import", "image", "made:1"]);
    let mut export = session.command(&["export", "made:1"]);
    let mut export = spawn(export.stdout(Stdio::piped()).stderr(Stdio::piped()));
    drop(export.stdout.take());
    let output = export.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
