//! Archives that are damaged, or made to do harm: refused with a word about what is wrong, and without
//! a trace in the store.

use std::fs::{self, File};
use std::io::{BufWriter, Write};

use serde_json::{Value, json};
use strata::digest::Digest;

use crate::common::{Crafted, Packing, Session, Who, noise, run, script};

/// The files of an archive of docker's with one image of one layer.
struct Archive {
    files: Vec<(String, Vec<u8>)>,
    links: Vec<(String, String)>,
}

impl Archive {
    fn of(layer: &Crafted) -> Self {
        let config = json!({
            "os": "linux", "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        });
        let config = config.to_string().into_bytes();
        let name = format!("{}.json", Digest::of(&config).hex());
        let list = json!([{"Config": name, "RepoTags": ["a:1"], "Layers": ["l/layer.tar"]}]);
        let files = vec![
            ("l/layer.tar".to_owned(), layer.blob.clone()),
            (name, config),
            ("manifest.json".to_owned(), list.to_string().into_bytes()),
        ];
        Self { files, links: Vec::new() }
    }

    fn with(mut self, name: &str, content: &[u8]) -> Self {
        self.files.retain(|(other, _)| other != name);
        self.files.push((name.to_owned(), content.to_vec()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.files.retain(|(other, _)| other != name);
        self
    }

    fn link(mut self, name: &str, target: &str) -> Self {
        self.links.push((name.to_owned(), target.to_owned()));
        self.without(name)
    }

    fn tar(&self) -> Vec<u8> {
        self.write(Vec::new())
    }

    fn write<W: Write>(&self, out: W) -> W {
        let mut tar = tar::Builder::new(out);
        for (name, content) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            // The crate refuses such names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, content.as_slice()).unwrap();
        }
        for (name, target) in &self.links {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, name, target).unwrap();
        }
        tar.into_inner().unwrap()
    }
}

fn layer() -> Crafted {
    Crafted::new(Packing::Plain, &[("noise", &noise(100_000)), ("small", b"content\n")])
}

/// Loads in both ways; each must be refused with this text and leave nothing.
fn is_refused(archive: &[u8], expected: &str) {
    let session = Session::new(Who::User);
    fs::write(session.path("x.tar"), archive).unwrap();
    file_is_refused(&session, expected);
}

/// Does the same with `x.tar` of a session.
fn file_is_refused(session: &Session, expected: &str) {
    for stream in [false, true] {
        let mut load = if stream {
            let mut load = session.command(&["load"]);
            load.stdin(File::open(session.path("x.tar")).unwrap());
            load
        } else {
            session.command(&["load", "-i", "x.tar"])
        };
        let output = run(&mut load);
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{}", output.stderr);
        assert!(output.stderr.starts_with("Error: "), "{}", output.stderr);
        assert!(output.stderr.contains(expected), "{expected:?}: {}", output.stderr);
        assert_eq!(session.run(&["images", "-aq"]), "");
        for dir in ["layers", "blobs/sha256", "chains", "staging", "leases"] {
            let left = fs::read_dir(session.path("store").join(dir)).unwrap().count();
            assert_eq!(left, 0, "{dir}: {expected}");
        }
    }
}

#[test]
fn an_archive_that_was_cut_off_is_refused_wherever_it_was() {
    let tar = Archive::of(&layer()).tar();
    for end in [100, 512, 700, 60_000, 104_000] {
        is_refused(&tar[..end], "invalid archive ");
    }
    is_refused(&tar[..60_000], "not a valid tar archive: it ends inside an entry at byte ");
    is_refused(b"", "it is empty, expected an archive of images");
    is_refused(&[0; 1024], "it is empty, expected an archive of images");
    is_refused(&b"this is no tar, however long it is ".repeat(100), "not a valid tar archive");
}

#[test]
fn a_compressed_archive_that_was_cut_off_is_refused() {
    let session = Session::new(Who::User);
    fs::write(session.path("x.tar"), Archive::of(&layer()).tar()).unwrap();
    script("gzip -k x.tar; zstd -q x.tar", &session.path(""));
    for name in ["x.tar.gz", "x.tar.zst"] {
        let bytes = fs::read(session.path(name)).unwrap();
        is_refused(&bytes[..bytes.len() / 2], "invalid archive ");
    }
}

#[test]
fn an_archive_of_something_else_is_told_what_to_do() {
    is_refused(&layer().blob, "it has neither manifest.json nor index.json");
    is_refused(&layer().blob, "'strata import'");
    let old = Archive::of(&layer()).without("manifest.json").with("repositories", b"{}").tar();
    is_refused(&old, "docker before 1.10 wrote it");
}

#[test]
fn what_is_missing_is_named() {
    let archive = || Archive::of(&layer());
    is_refused(
        &archive().without("l/layer.tar").tar(),
        "manifest.json names \"l/layer.tar\", which",
    );
    let config = archive().files[1].0.clone();
    is_refused(
        &archive().without(&config).tar(),
        &format!("manifest.json names {config:?}, which"),
    );
    is_refused(&archive().with("manifest.json", b"[]").tar(), "manifest.json names no image");
    is_refused(&archive().with("manifest.json", b"{").tar(), "manifest.json cannot be read");
    let dangling = archive().link("l/layer.tar", "../gone/layer.tar");
    is_refused(&dangling.tar(), "manifest.json names \"l/layer.tar\", which is not in the archive");
}

#[test]
fn what_does_not_hash_to_its_name_is_refused() {
    let archive = || Archive::of(&layer());
    let other = Crafted::new(Packing::Plain, &[("other", b"x")]);
    is_refused(
        &archive().with("l/layer.tar", &other.blob).tar(),
        &format!("layer l/layer.tar unpacks to {}, the image says ", other.diff_id),
    );
    let mut damaged = layer().blob;
    damaged[5000] ^= 1;
    is_refused(&archive().with("l/layer.tar", &damaged).tar(), "the archive is damaged");
    damaged[10] ^= 1;
    is_refused(&archive().with("l/layer.tar", &damaged).tar(), "layer l/layer.tar is no tar");
    is_refused(&archive().with("l/layer.tar", b"").tar(), "layer l/layer.tar is no tar");
    let cut = &layer().blob[..50_000];
    is_refused(&archive().with("l/layer.tar", cut).tar(), "layer l/layer.tar: not a valid tar");
    let config = archive().files[1].0.clone();
    is_refused(&archive().with(&config, b"{}").tar(), "hashes to sha256:44136fa355b3");
}

#[test]
fn what_would_lead_out_of_the_archive_is_refused() {
    let archive = || Archive::of(&layer());
    is_refused(
        &archive().with("../evil", b"x").tar(),
        "a file is called \"../evil\": it leads out",
    );
    is_refused(&archive().with("/etc/evil", b"x").tar(), "\"/etc/evil\": it is absolute");
    let links = [
        ("/etc/passwd", "is a link to \"/etc/passwd\": it leads out of the archive"),
        ("../../x", "is a link to \"../../x\": it leads out of the archive"),
        ("layer.tar", "the links go in a circle"),
    ];
    for (target, expected) in links {
        is_refused(&archive().link("l/layer.tar", target).tar(), expected);
    }
    let list = json!([{"Config": "../../etc/passwd", "RepoTags": [], "Layers": []}]);
    is_refused(
        &archive().with("manifest.json", list.to_string().as_bytes()).tar(),
        "\"../../etc/passwd\": it leads out of the archive",
    );
}

#[test]
fn counts_and_sizes_that_no_image_has_are_refused() {
    let archive = || Archive::of(&layer());
    let many: Value = vec![json!({"Config": "c", "RepoTags": null, "Layers": []}); 1001].into();
    is_refused(
        &archive().with("manifest.json", many.to_string().as_bytes()).tar(),
        "it has more than 1000 images, which no images have",
    );
    let mut large = vec![b' '; 9 << 20];
    large[0] = b'[';
    is_refused(&archive().with("manifest.json", &large).tar(), "manifest.json has 9437184 bytes");
    let mut files = archive();
    files.files.extend((0..100_001).map(|number| (format!("f{number}"), Vec::new())));
    let session = Session::new(Who::User);
    // Not in memory: what a program takes at most counts what its parent had when it began.
    files.write(BufWriter::new(File::create(session.path("x.tar")).unwrap())).flush().unwrap();
    file_is_refused(&session, "it has more than 100000 files, which no images have");
}

#[test]
fn a_layout_whose_blobs_lie_is_refused_in_every_form() {
    let sources = Session::new(Who::User);
    script(
        "mkdir root && head -c 20000 /dev/urandom > root/file && tar -cf layer.tar -C root .
         umoci init --layout layout && umoci new --image layout:1
         umoci raw add-layer --image layout:1 layer.tar && umoci gc --layout layout",
        &sources.path(""),
    );
    let blobs = sources.path("layout/blobs/sha256");
    let largest = fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path());
    let largest = largest.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let bytes = fs::read(&largest).unwrap();
    let mut damaged = bytes.clone();
    // The time in the header of gzip: what it unpacks to stays the same.
    damaged[4] ^= 1;
    let longer = [&bytes[..], b"\0"].concat();
    let name = format!("blobs/sha256/{}", largest.file_name().unwrap().to_str().unwrap());
    for (content, expected) in [(damaged, format!("{name} hashes to sha256:")), (longer, name)] {
        fs::write(&largest, content).unwrap();
        let session = Session::new(Who::Root);
        let layout = sources.path("layout");
        let said = session.refused(&["load", "-i", layout.to_str().unwrap()]);
        assert!(said.contains(&expected), "{said}");
        assert_eq!(session.run(&["images", "-aq"]), "");
        script("tar -cf layout.tar -C layout .", &sources.path(""));
        is_refused(&fs::read(sources.path("layout.tar")).unwrap(), &expected);
    }
}
