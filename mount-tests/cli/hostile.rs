//! Images that are made to do harm: refused early, with little memory, and without a trace. What a
//! parser makes of each is tested in its room; here is what a person meets.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use strata::digest::Digest;

use crate::common::{
    Crafted, Fault, Faults, Output, Packing, Registry, Session, Who, measured, noise, script,
    succeed,
};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Most memory that a command takes, whatever it is given.
const MOST_BYTES: u64 = 200_000_000;
/// Most that one takes which has to look at the beginning only.
const LITTLE: u64 = 80_000_000;

/// A tar by hand, which need not be one.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn header(mut self, name: &str, kind: tar::EntryType, size: u64) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        let mut tar = self.header(name, tar::EntryType::Regular, content.len() as u64);
        tar.0.extend_from_slice(content);
        tar.0.resize(tar.0.len().next_multiple_of(512), 0);
        tar
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Compresses what a reader gives into a file of a session.
fn compress(session: &Session, name: &str, mut from: impl Read) {
    let file = File::create(session.path(name)).unwrap();
    let copied = if name.ends_with(".zst") {
        let mut out = zstd::Encoder::new(file, 1).unwrap();
        io::copy(&mut from, &mut out).and_then(|_| out.finish())
    } else {
        let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        io::copy(&mut from, &mut out).and_then(|_| out.finish())
    };
    copied.unwrap();
}

/// Returns what is in the folders of the store where things are made and kept.
fn left(session: &Session) -> Vec<String> {
    let mut found = Vec::new();
    let folders =
        ["blobs/sha256", "layers", "chains", "refs", "refs/_untagged", "staging", "leases"];
    for folder in folders {
        for entry in fs::read_dir(session.path("store").join(folder)).unwrap() {
            found.push(format!("{folder}/{}", entry.unwrap().file_name().display()));
        }
    }
    // It is there from the beginning.
    found.retain(|path| path != "refs/_untagged");
    found
}

/// Runs a command that must be refused, and returns what it said and the memory it took.
#[track_caller]
fn refused(session: &Session, command: &mut Command) -> (String, u64) {
    let (output, peak) = measured(command);
    assert_eq!(output.code, 1, "{command:?}: {}{}", output.stdout, output.stderr);
    assert_eq!(left(session), Vec::<String>::new(), "{}", output.stderr);
    assert!(peak < MOST_BYTES, "{command:?} took {peak} bytes");
    (output.stderr, peak)
}

#[test]
fn terabytes_in_a_small_file_are_refused_at_once() {
    let session = Session::new(Who::Root);
    let head = Tar::default().header("bomb", tar::EntryType::Regular, 8 << 40).0;
    for name in ["bomb.tar.gz", "bomb.tar.zst"] {
        compress(&session, name, head.chain(io::repeat(0).take(64 << 20)));
        let (said, peak) = refused(&session, &mut session.command(&["import", name]));
        let expected = format!(
            "Error: {name}: it has 8796093022720 bytes uncompressed or more, 137438953472 are allowed; \
             allow more with --max-layer-size or STRATA_MAX_LAYER_SIZE\n"
        );
        assert_eq!(said, expected);
        assert!(peak < LITTLE, "{peak}");
    }
}

#[test]
fn a_limit_is_where_it_was_set() {
    let session = Session::new(Who::Root);
    // Behind the end of an archive there may be anything: it is part of the layer.
    let tar = Tar::default().file("file", b"content\n").end();
    compress(&session, "long.tar.gz", tar.chain(io::repeat(0).take(150 << 20)));
    let import = ["import", "long.tar.gz", "long:1"];
    let (said, peak) =
        refused(&session, session.command(&import).args(["--max-layer-size", "100MiB"]));
    assert!(said.contains("bytes uncompressed or more, 104857600 are allowed"), "{said}");
    assert!(peak < LITTLE, "{peak}");
    refused(&session, session.command(&import).env("STRATA_MAX_LAYER_SIZE", "1MB"));
    let (output, _) = measured(session.command(&import).env("STRATA_MAX_LAYER_SIZE", "0"));
    assert_eq!(output.code, 0, "{}", output.stderr);
    let (said, _) = measured(session.command(&import).args(["--max-layer-size", "lots"]));
    assert!(said.stderr.contains("\"lots\" is no size"), "{}", said.stderr);
}

#[test]
fn more_files_than_are_allowed_are_refused() {
    let session = Session::new(Who::Root);
    let mut tar = Tar::default();
    for number in 0..200_000 {
        tar = tar.file(&number.to_string(), b"");
    }
    compress(&session, "many.tar.zst", tar.end().as_slice());
    let limit = ["--max-entries", "100000"];
    let words = ["import", "many.tar.zst", "many:1"];
    let (said, peak) = refused(&session, session.command(&words).args(limit));
    let expected = "many.tar.zst: it has 100001 files and directories or more, 100000 are allowed; \
                    allow more with --max-entries or STRATA_MAX_ENTRIES\n";
    assert!(said.ends_with(expected), "{said}");
    assert!(peak < LITTLE, "{peak}");
    session.run(&["import", "many.tar.zst", "many:1"]);
    // Each layer has as many as it may, and both together have more.
    let said = session.refused(&["append", "--max-entries", "300000", "many:1", "many.tar.zst"]);
    assert!(said.contains("the new image: it has 300001 files and directories or more"), "{said}");
}

#[test]
fn a_window_that_takes_much_memory_is_refused_and_the_largest_is_bearable() {
    let session = Session::new(Who::Root);
    let content = noise(150 << 20);
    let tar = Tar::default().file("noise", &content).end();
    for (log, is_taken) in [(27, true), (28, false)] {
        let file = File::create(session.path("x.tar.zst")).unwrap();
        let mut out = zstd::Encoder::new(file, 1).unwrap();
        out.window_log(log).unwrap();
        out.write_all(&tar).unwrap();
        out.finish().unwrap();
        let (output, peak) = measured(&mut session.command(&["import", "x.tar.zst", "x:1"]));
        assert_eq!(output.code == 0, is_taken, "{}", output.stderr);
        assert!(peak < MOST_BYTES, "{peak}");
        let told =
            "it is compressed with zstd in a way that takes more than 128 MiB of memory to undo";
        assert_eq!(output.stderr.contains(told), !is_taken, "{}", output.stderr);
    }
}

#[test]
fn a_layer_that_does_not_fit_on_the_disk_leaves_it_room() {
    let session = Session::new(Who::Root);
    let disk = session.dir("disk");
    succeed(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "none"]).arg(&disk));
    let free = || nix::sys::statvfs::statvfs(&disk).unwrap();
    for content in [noise(100 << 20), vec![0; 100 << 20]] {
        compress(&session, "x.tar.zst", Tar::default().file("x", &content).end().as_slice());
        let mut command = session.command(&["import", "x.tar.zst"]);
        let output = measured(command.env("STRATA_ROOT", disk.join("store"))).0;
        let expected =
            format!("no room: 104857600 more bytes would be written below {}", disk.display());
        assert!(output.code == 1 && output.stderr.contains(&expected), "{}", output.stderr);
        assert!(free().blocks_available() > free().blocks() / 2);
    }
    // Small ones, one after the other.
    let mut tar = Tar::default();
    for number in 0..4000_u32 {
        tar = tar.file(&number.to_string(), &number.to_le_bytes().repeat(8000));
    }
    compress(&session, "x.tar.zst", tar.end().as_slice());
    let mut command = session.command(&["import", "x.tar.zst"]);
    let output = measured(command.env("STRATA_ROOT", disk.join("store"))).0;
    assert!(output.code == 1 && output.stderr.contains("no room: "), "{}", output.stderr);
    assert!(free().blocks_available() > free().blocks() / 2);
}

/// An archive of docker's with an image of these layers, each a file of it by name.
fn archive(config: &[u8], layers: &[&str], files: &[(&str, &[u8])]) -> Vec<u8> {
    let name = format!("{}.json", Digest::of(config).hex());
    let list = json!([{"Config": name, "RepoTags": ["a:1"], "Layers": layers}]).to_string();
    let mut tar = Tar::default().file(&name, config).file("manifest.json", list.as_bytes());
    for (name, content) in files {
        tar = tar.file(name, content);
    }
    tar.end()
}

fn config(diff_ids: &[&str]) -> Value {
    json!({
        "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

/// Loads an archive from a pipe.
fn load(session: &Session, archive: &[u8]) -> (Output, u64) {
    fs::write(session.path("x.tar"), archive).unwrap();
    let mut command = session.command(&["load"]);
    measured(command.stdin(File::open(session.path("x.tar")).unwrap()))
}

#[test]
fn ten_thousand_layers_are_an_image_like_any_other() {
    const LAYERS: usize = 10_000;
    let registry = Registry::start();
    let layer = Crafted::new(Packing::Gzip, &[("file", b"content\n")]);
    let config = config(&[layer.diff_id.as_str(); LAYERS]);
    let put = |media_type: &str, bytes: &[u8]| registry.put_blob("many", media_type, bytes).0;
    let one = put(&layer.media_type, &layer.blob);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": vec![one; LAYERS],
        "config": put(OCI_CONFIG, config.to_string().as_bytes()),
    });
    registry.put_manifest("many", "1", &manifest);
    let session = Session::new(Who::User);
    let name = registry.image("many:1");
    let (output, peak) = measured(&mut session.command(&["pull", "-q", &name]));
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(peak < MOST_BYTES, "{peak}");
    session.dir("mount");
    session.run(&["mount", &name, "mount"]);
    assert_eq!(
        fs::read_dir(session.path("mount")).unwrap_err().kind(),
        io::ErrorKind::PermissionDenied
    );
    session.unmount("mount");
    assert_eq!(session.run(&["cat", &format!("{name}:/file")]), "content\n");
    let other = Session::new(Who::User);
    let tar = gunzipped(&layer.blob);
    let config = config.to_string();
    let archive = archive(config.as_bytes(), &["l.tar"; LAYERS], &[("l.tar", &tar)]);
    let (output, peak) = load(&other, &archive);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, "Loaded image: a:1\n"),
        "{}",
        output.stderr
    );
    assert!(peak < MOST_BYTES, "{peak}");
    assert_eq!(other.run(&["cat", "a:1:/file"]), "content\n");
}

fn gunzipped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

#[test]
fn documents_that_would_fill_the_memory_are_refused() {
    let layer = Crafted::new(Packing::Plain, &[("file", b"content\n")]);
    let mut config = config(&[&layer.diff_id]);
    config["x"] = Value::Array(vec![json!(0); 2_000_000]);
    let config = config.to_string();
    let registry = Registry::start();
    let value: Value = serde_json::from_str(&config).unwrap();
    registry.put_config("bomb:1", &value, std::slice::from_ref(&layer));
    let session = Session::new(Who::User);
    let (said, peak) =
        refused(&session, &mut session.command(&["pull", &registry.image("bomb:1")]));
    let expected = "image config has more than 250000 values, which no image has";
    assert!(said.contains(expected) && peak < LITTLE, "{peak} {said}");
    let (output, peak) =
        load(&session, &archive(config.as_bytes(), &["l.tar"], &[("l.tar", &layer.blob)]));
    assert!(output.code == 1 && output.stderr.contains(expected), "{}", output.stderr);
    assert!(peak < LITTLE, "{peak}");
    // Many that are large, none too large; nested ones.
    let mut tar = Tar::default();
    let filler = [b"{\"x\":\"", b"y".repeat(4 << 20).as_slice(), b"\"}"].concat();
    for number in 0..40 {
        tar = tar.file(&number.to_string(), &filler);
    }
    let (output, peak) = load(&session, &tar.end());
    assert!(output.stderr.contains("its documents take more than"), "{}", output.stderr);
    assert!(peak < LITTLE, "{peak}");
    let (output, _) =
        load(&session, &Tar::default().file("index.json", &b"[".repeat(1 << 20)).end());
    assert!(output.code == 1 && output.stderr.starts_with("Error: "), "{}", output.stderr);
}

#[test]
fn a_blob_that_goes_on_behind_its_length_is_given_up_there() {
    let registry = Registry::start();
    let layer = Crafted::new(Packing::Gzip, &[("file", b"content\n")]);
    registry.put_image("demo:1", "linux/amd64", std::slice::from_ref(&layer));
    let endless = [layer.blob.as_slice(), &[0; 8 << 20]].concat();
    let digest = layer.digest();
    let proxy = Faults::before(registry.host(), move |request| {
        match request.is_blob() && request.line.ends_with(&digest) {
            true => Fault::Answer(200, Vec::new(), endless.clone()),
            false => Fault::None,
        }
    });
    let session = Session::new(Who::User);
    let (said, peak) = refused(&session, &mut session.command(&["pull", &proxy.image("demo:1")]));
    let expected = format!("bytes or more: expected {}", layer.blob.len());
    assert!(said.contains(&expected) && peak < LITTLE, "{peak} {said}");
}

#[test]
fn a_blob_that_is_said_to_be_larger_than_is_allowed_is_not_asked_for() {
    let registry = Registry::start();
    let layer = Crafted::new(Packing::Gzip, &[("file", b"content\n")]);
    let manifest = registry.put_image("demo:1", "linux/amd64", std::slice::from_ref(&layer));
    let bytes = fs::read(registry.blob(&manifest.digest())).unwrap();
    let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
    manifest["layers"][0]["size"] = json!(1_u64 << 40);
    let text = manifest.to_string();
    let proxy = Faults::before(registry.host(), move |request| {
        if request.is_manifest() { Fault::answer(200, &text) } else { Fault::None }
    });
    let session = Session::new(Who::User);
    let (said, _) = refused(&session, &mut session.command(&["pull", &proxy.image("demo:1")]));
    let expected = format!("{}: it has 1099511627776 bytes compressed or more", layer.digest());
    assert!(said.contains(&expected), "{said}");
    let asked = proxy.requests(|request| request.line.ends_with(&layer.digest()));
    assert_eq!(asked.len(), 0);
}

#[test]
fn a_registry_that_falls_silent_is_given_up_after_the_time_that_was_set() {
    let registry = Registry::start();
    registry.put_image(
        "demo:1",
        "linux/amd64",
        &[Crafted::new(Packing::Gzip, &[("f", &noise(9000))])],
    );
    let proxy = Faults::before(registry.host(), |request| {
        if request.is_blob() { Fault::Stall(0) } else { Fault::None }
    });
    let session = Session::new(Who::User);
    let mut command = session.command(&["pull", &proxy.image("demo:1")]);
    let (said, _) = refused(&session, command.env("STRATA_REGISTRY_TIMEOUT", "1"));
    assert!(said.contains("net/http: timeout awaiting response"), "{said}");
}

#[test]
fn input_without_an_end_is_given_up() {
    let session = Session::new(Who::Root);
    // A gzip stream whose members all begin another file, as long as somebody reads.
    let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    member.write_all(&Tar::default().file("same", &[7; 1 << 20]).0).unwrap();
    let member = member.finish().unwrap();
    let (mut reader, mut writer) = io::pipe().unwrap();
    let feeder = std::thread::spawn(move || while writer.write_all(&member).is_ok() {});
    let mut command = session.command(&["import", "--max-layer-size", "64MiB", "-"]);
    command.stdin(Stdio::from(reader.try_clone().unwrap()));
    let (said, peak) = refused(&session, &mut command);
    assert!(said.contains("67108864 are allowed") && peak < LITTLE, "{peak} {said}");
    drop(command);
    // What is still in the pipe is nobody's: the feeder ends when its last reader is gone.
    drop(io::copy(&mut (&mut reader).take(1), &mut io::sink()));
    drop(reader);
    feeder.join().unwrap();
}

#[test]
fn nothing_of_a_layer_leads_out_of_a_mount_or_a_copy() {
    let session = Session::new(Who::Root);
    fs::write(session.path("outside"), "untouched\n").unwrap();
    script(
        "mkdir root && ln -s / root/slash && ln -s ../../../../../.. root/up
         tar -cf x.tar -C root . && mkdir more && echo in > more/outside
         tar -rf x.tar --transform 's,^more,slash/etc,' more/outside
         tar -rf x.tar -P --transform 's,^more,../../../up,' more/outside",
        &session.path(""),
    );
    session.run(&["import", "x.tar", "x:1"]);
    assert_eq!(session.run(&["cat", "x:1:/etc/outside"]), "in\n");
    assert_eq!(session.run(&["cat", "x:1:/outside"]), "in\n");
    session.run(&["create", "--name", "box", "x:1"]);
    session.dir("copy");
    session.run(&["cp", "box:/.", "copy"]);
    assert_eq!(fs::read_to_string(session.path("copy/etc/outside")).unwrap(), "in\n");
    assert_eq!(fs::read_link(session.path("copy/up")).unwrap().to_str(), Some("../../../../../.."));
    assert_eq!(fs::read_to_string(session.path("outside")).unwrap(), "untouched\n");
    assert!(!std::path::Path::new("/etc/outside").exists());
    // Into a copy that has a link in the place of a directory.
    fs::remove_dir_all(session.path("copy/etc")).unwrap();
    std::os::unix::fs::symlink(session.path(""), session.path("copy/etc")).unwrap();
    let output = session.try_run(&["cp", "box:/.", "copy"]);
    assert_eq!(fs::read_to_string(session.path("outside")).unwrap(), "untouched\n", "{output:?}");
}

#[test]
fn a_layout_whose_files_are_links_that_lead_out_is_refused() {
    let layer = Crafted::new(Packing::Plain, &[("file", b"content\n")]);
    let config = config(&[&layer.diff_id]).to_string();
    let list = json!([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": ["l.tar"]}]);
    let session = Session::new(Who::User);
    let layout = session.dir("layout");
    fs::write(layout.join("manifest.json"), list.to_string()).unwrap();
    fs::write(layout.join("config.json"), config).unwrap();
    fs::write(layout.join("inside.tar"), &layer.blob).unwrap();
    fs::write(session.path("outside.tar"), &layer.blob).unwrap();
    let link = |target: &str| {
        drop(fs::remove_file(layout.join("l.tar")));
        std::os::unix::fs::symlink(target, layout.join("l.tar")).unwrap();
    };
    let outside = session.path("outside.tar");
    for target in ["../outside.tar", outside.to_str().unwrap(), "/proc/self/environ"] {
        link(target);
        let said = session.refused(&["load", "-i", "layout"]);
        assert!(said.contains("\"l.tar\" is a link to") && said.contains("leads out"), "{said}");
        assert_eq!(left(&session), Vec::<String>::new());
    }
    link("inside.tar");
    assert_eq!(session.run(&["load", "-i", "layout"]), "Loaded image: a:1\n");
}
