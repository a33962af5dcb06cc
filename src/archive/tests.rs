//! Tests of the room as a whole: archives made by hand, in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;

use serde_json::{Value, json};

use crate::archive::*;
use crate::digest::{DiffId, Digest};
use crate::image::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Platform, Reference};
use crate::layer::{Kind, TarMeta, TarWriter};

/// An archive in memory.
#[derive(Default)]
struct Memory(RefCell<BTreeMap<String, Vec<u8>>>);

impl Source for Memory {
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().get(name).cloned())
    }

    fn has(&self, name: &str) -> Result<bool> {
        Ok(self.0.borrow().contains_key(name))
    }
}

impl Memory {
    fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) -> &Self {
        self.0.borrow_mut().insert(name.to_owned(), bytes.into());
        self
    }

    /// Adds a blob and returns its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        self.put(&format!("blobs/sha256/{}", digest.hex()), bytes);
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    /// Adds an image of one layer and returns the descriptor of its manifest.
    fn image(&self, architecture: &str) -> Value {
        let layer = self.blob(OCI_LAYER, architecture.as_bytes());
        let config = self.blob(OCI_CONFIG, &config(architecture));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer],
        });
        self.blob(OCI_MANIFEST, manifest.to_string().as_bytes())
    }

    fn index(&self, entries: &[Value]) -> &Self {
        let index = json!({"schemaVersion": 2, "manifests": entries});
        self.put("index.json", index.to_string())
    }

    /// Adds docker's list with one image, in docker's old form.
    fn docker(&self, architecture: &str, names: Value) -> &Self {
        let file = format!("{}.json", id(architecture).hex());
        self.put(&file, config(architecture)).put("layer.tar", "");
        let list = json!([{"Config": file, "RepoTags": names, "Layers": ["layer.tar"]}]);
        self.put("manifest.json", list.to_string())
    }

    fn images(&self, platform: Option<&str>) -> Result<Archived> {
        images(self, platform.map(|text| text.parse().unwrap()).as_ref())
    }

    /// Returns each image's architecture and names.
    fn found(&self, platform: Option<&str>) -> Vec<(String, Vec<String>)> {
        let found = self.images(platform).unwrap().images;
        let names = |image: &ArchivedImage| image.names.iter().map(Reference::familiar).collect();
        found.iter().map(|image| (image.config.architecture.clone(), names(image))).collect()
    }

    fn refused(&self, platform: Option<&str>) -> String {
        let error = self.images(platform).map(|found| found.images).unwrap_err();
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    }
}

/// The configuration of an image whose layer is the name of its architecture.
fn config(architecture: &str) -> Vec<u8> {
    let layer = Digest::of(architecture.as_bytes()).to_string();
    let config = json!({
        "architecture": architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    });
    config.to_string().into_bytes()
}

fn id(architecture: &str) -> Digest {
    Digest::of(&config(architecture))
}

fn named(mut entry: Value, key: &str, name: &str) -> Value {
    entry["annotations"][key] = name.into();
    entry
}

fn on(mut entry: Value, architecture: &str) -> Value {
    entry["platform"] = json!({"os": "linux", "architecture": architecture});
    entry
}

fn one(architecture: &str, names: &[&str]) -> Vec<(String, Vec<String>)> {
    vec![(architecture.to_owned(), names.iter().map(|name| (*name).to_owned()).collect())]
}

const FULL: &str = "io.containerd.image.name";
const SHORT: &str = "org.opencontainers.image.ref.name";

#[test]
fn dockers_list_names_images() {
    let archive = Memory::default();
    archive.docker("amd64", json!(["demo/base:1", "r.example/x", "demo/base:1", "<none>:<none>"]));
    assert_eq!(archive.found(None), one("amd64", &["demo/base:1", "r.example/x:latest"]));
    let found = archive.images(None).unwrap().images;
    assert_eq!(found[0].id, id("amd64"));
    assert!(found[0].manifest.is_none());
    assert_eq!(found[0].layers[0].file, "layer.tar");
    archive.docker("amd64", Value::Null);
    assert_eq!(archive.found(None), one("amd64", &[]));
}

#[test]
fn a_name_that_is_none_is_lost_with_a_warning() {
    let archive = Memory::default();
    let digest = format!("a@{}", id("x"));
    archive.docker("amd64", json!(["UPPER:1", "a:1", digest]));
    assert_eq!(archive.found(None), one("amd64", &["a:1"]));
    let warnings = archive.images(None).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("an image loses the name \"UPPER:1\": "), "{warnings:?}");
}

#[test]
fn an_index_names_images_by_either_annotation_but_not_by_a_tag_alone() {
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let table: [(Pairs<'_>, &[&str]); 6] = [
        (&[(FULL, "docker.io/demo/base:1"), (SHORT, "1")], &["demo/base:1"]),
        (&[(SHORT, "localhost/demo:2")], &["localhost/demo:2"]),
        (&[(SHORT, "demo:2")], &["demo:2"]),
        (&[(SHORT, "latest")], &[]),
        (&[(FULL, "base")], &["base:latest"]),
        (&[], &[]),
    ];
    for (annotations, names) in table {
        let archive = Memory::default();
        let entry = annotations
            .iter()
            .fold(archive.image("amd64"), |entry, (key, name)| named(entry, key, name));
        archive.index(&[entry]);
        assert_eq!(archive.found(None), one("amd64", names), "{annotations:?}");
    }
}

#[test]
fn several_platforms_under_one_name_are_a_choice() {
    let host = Platform::host().architecture;
    let other = if host == "arm64" { "amd64" } else { "arm64" };
    let archive = Memory::default();
    let [here, there] = [host.as_str(), other].map(|name| on(archive.image(name), name));
    let entries = [there.clone(), here.clone()];
    let inner = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries.clone()});
    let inner = archive.blob(OCI_INDEX, inner.to_string().as_bytes());
    let both = entries.clone().map(|entry| named(entry, FULL, "demo:1"));
    for (index, names) in [
        (entries.to_vec(), &[][..]),
        (both.to_vec(), &["demo:1"]),
        (vec![named(inner, FULL, "demo:1")], &["demo:1"]),
    ] {
        archive.index(&index);
        assert_eq!(archive.found(None), one(&host, names));
        assert_eq!(archive.found(Some(other)), one(other, names));
        let said = archive.refused(Some("linux/riscv64"));
        assert!(said.contains("has no image for linux/riscv64; it has linux/"), "{said}");
    }
    // Under two names they are two images, and one alone is no choice.
    archive.index(&[named(here, FULL, "a:1"), named(there.clone(), FULL, "b:1")]);
    assert_eq!(archive.found(None).len(), 2);
    archive.index(&[there]);
    assert_eq!(archive.found(None), one(other, &[]));
    let said = archive.refused(Some(&host));
    assert!(said.contains(&format!("is for linux/{other}, wanted linux/{host}")), "{said}");
}

#[test]
fn what_is_no_image_is_passed_over() {
    let archive = Memory::default();
    let mut attestation = archive.image("unknown");
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let chart = archive.blob("application/vnd.cncf.helm.config.v1+json", b"{}");
    let chart =
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": chart, "layers": []});
    let chart = archive.blob(OCI_MANIFEST, chart.to_string().as_bytes());
    archive.index(&[attestation, chart, archive.image("amd64")]);
    assert_eq!(archive.found(None), one("amd64", &[]));
    let warnings = archive.images(None).unwrap().warnings;
    assert!(warnings[0].contains("helm"), "{warnings:?}");
}

#[test]
fn both_lists_count() {
    let archive = Memory::default();
    let image = named(archive.image("amd64"), FULL, "docker.io/library/a:1");
    archive.index(&[image]).docker("amd64", json!(["a:1", "b:1"]));
    assert_eq!(archive.found(None), one("amd64", &["a:1", "b:1"]));
    assert!(archive.images(None).unwrap().images[0].manifest.is_some());
    // An image without a name is in docker's list only.
    archive.docker("arm64", Value::Null);
    assert_eq!(archive.found(None), [one("amd64", &["a:1"]), one("arm64", &[])].concat());
}

#[test]
fn an_image_for_another_platform_is_not_taken_from_dockers_list() {
    let archive = Memory::default();
    let entries = ["amd64", "arm64"].map(|name| on(archive.image(name), name));
    archive.index(&entries).docker("amd64", json!(["a:1"]));
    assert_eq!(archive.found(Some("arm64")), one("arm64", &[]));
}

#[test]
fn a_manifest_without_its_layers_is_made_good_by_dockers_list() {
    let archive = Memory::default();
    let config = archive.blob(OCI_CONFIG, &config("amd64"));
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
    let manifest = archive.blob(OCI_MANIFEST, manifest.to_string().as_bytes());
    archive.index(&[named(manifest, FULL, "a:1")]);
    assert!(archive.refused(None).ends_with("image config names 1 layers: the manifest has 0"));
    archive.docker("amd64", json!(["a:1"]));
    assert_eq!(archive.found(None), one("amd64", &["a:1"]));
    assert!(archive.images(None).unwrap().images[0].manifest.is_none());
}

#[test]
fn what_is_wrong_is_named() {
    let hex = id("amd64").hex();
    let docker = |config: &str, layers: Value| {
        json!([{"Config": config, "RepoTags": ["a:1"], "Layers": layers}]).to_string()
    };
    let file = format!("{hex}.json");
    let table: [(&str, &str, &str); 10] = [
        ("manifest.json", &docker("x.json", json!([])), "manifest.json names \"x.json\", which is"),
        ("manifest.json", &docker(&file, json!(["gone"])), "manifest.json names \"gone\", which"),
        ("manifest.json", &docker(&file, json!([])), "names 1 layers: the manifest has 0"),
        ("manifest.json", &docker(&file, json!(["../x"])), "\"../x\": it leads out of the archive"),
        ("manifest.json", &docker("/etc/passwd", json!([])), "\"/etc/passwd\": it is absolute"),
        ("manifest.json", "{}", "manifest.json cannot be read"),
        ("manifest.json", "[]", "manifest.json names no image"),
        ("manifest.json", "null", "manifest.json names no image"),
        ("index.json", "{\"schemaVersion\":2,\"manifests\":[]}", "index.json names no image"),
        ("repositories", "{}", "docker before 1.10 wrote it"),
    ];
    for (name, text, expected) in table {
        let archive = Memory::default();
        archive.put(&file, config("amd64")).put(name, text);
        let said = archive.refused(None);
        assert!(said.contains(expected), "{name} {text}: {said}");
    }
    assert!(Memory::default().refused(None).contains("neither manifest.json nor index.json"));
    let many = vec![json!({"Config": file, "RepoTags": null, "Layers": []}); 1001];
    let archive = Memory::default();
    archive.put(&file, config("amd64")).put("manifest.json", Value::from(many).to_string());
    assert!(archive.refused(None).contains("more than 1000 images"));
}

#[test]
fn documents_that_are_not_what_their_names_say_are_refused() {
    let archive = Memory::default();
    archive.docker("amd64", Value::Null).put(&format!("{}.json", id("amd64").hex()), "{}");
    assert!(archive.refused(None).contains(&format!("hashes to {}", Digest::of(b"{}"))));
    let archive = Memory::default();
    let mut entry = archive.image("amd64");
    archive.index(std::slice::from_ref(&entry));
    archive.put(&format!("blobs/sha256/{}", id("amd64").hex()), config("arm64"));
    assert!(archive.refused(None).contains("the archive is damaged"));
    archive.image("amd64");
    entry["size"] = 1.into();
    archive.index(std::slice::from_ref(&entry));
    assert!(archive.refused(None).contains("bytes, expected 1; the archive is damaged"));
    let layer = Digest::of(b"amd64").hex();
    archive.index(&[archive.image("amd64")]);
    archive.0.borrow_mut().remove(&format!("blobs/sha256/{layer}"));
    assert!(archive.refused(None).ends_with("which is not in the archive"));
}

/// A tar of files, and of links where the content begins with `->`.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (name, content) in files {
        let size = content.len() as u64;
        let mut meta = TarMeta { size, ..TarMeta::new(name.as_bytes(), Kind::Regular, 0o644) };
        if let Some(target) = content.strip_prefix("->") {
            meta = TarMeta::new(name.as_bytes(), Kind::Symlink, 0o777);
            meta.target = target.as_bytes().to_vec();
            writer.entry(&meta).unwrap();
        } else {
            writer.file(&meta, &mut content.as_bytes()).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn scan_texts(tar: &[u8]) -> Result<Contents<String>> {
    scan(tar, &mut |_, _, content| {
        let mut text = String::new();
        content.read_to_string(&mut text)?;
        Ok(text)
    })
}

#[test]
fn links_are_followed_whatever_their_order_and_circles_are_told() {
    let files = [
        ("b/layer.tar", "->../a/layer.tar"),
        ("./a/layer.tar", "text"),
        ("x", "->y"),
        ("y", "->x"),
    ];
    let contents = scan_texts(&tar(&files)).unwrap();
    assert_eq!(contents.find("b/layer.tar").unwrap().unwrap(), "text");
    assert!(contents.find("b").unwrap().is_none());
    assert!(matches!(contents.find("x"), Err(Error::Link { .. })));
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &tar(&files), 0).unwrap();
    let contents = scan_seekable(&file).unwrap();
    assert_eq!(contents.find("b/layer.tar").unwrap().unwrap().size, 4);
}

#[test]
fn names_and_links_that_lead_out_are_refused() {
    for (files, expected) in [
        ([("../x", "text")], "a file is called \"../x\": it leads out of the archive"),
        ([("a/../../x", "text")], "it leads out of the archive"),
        ([("x", "->/etc/passwd")], "\"x\" is a link to \"/etc/passwd\": it leads out"),
        ([("x", "->../y")], "\"x\" is a link to \"../y\": it leads out"),
    ] {
        let said = scan_texts(&tar(&files)).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn that_a_tar_was_cut_off_is_told_before_what_came_of_it() {
    let bytes = tar(&[("a", &"text".repeat(1000)), ("b", "text")]);
    for end in [1000, 3000] {
        let cut = &bytes[..end];
        let error = scan::<(), Error>(cut, &mut |_, _, _| Err(Error::Empty)).unwrap_err();
        assert!(error.to_string().contains("it ends inside an entry"), "{error}");
    }
    let whole = scan::<(), Error>(&bytes[..], &mut |_, _, _| Err(Error::Empty));
    assert!(matches!(whole, Err(Error::Empty)));
}

fn saved(names: &[&str]) -> (SavedImage, Vec<u8>) {
    let layer = tar(&[("file", "text")]);
    let diff_id = DiffId(Digest::of(&layer));
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id.to_string()]},
    });
    let config = config.to_string().into_bytes();
    let descriptor = |media_type: &str, bytes: &[u8]| {
        crate::image::Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
    };
    let manifest = crate::image::Manifest::new(
        OCI_MANIFEST,
        descriptor(OCI_CONFIG, &config),
        vec![descriptor(OCI_LAYER, &layer)],
    );
    let image = SavedImage {
        names: names.iter().map(|name| name.parse().unwrap()).collect(),
        manifest_bytes: manifest.to_bytes(),
        manifest_type: OCI_MANIFEST.to_owned(),
        config_bytes: config,
        platform: "linux/amd64".parse().unwrap(),
        layers: vec![(diff_id, layer.len() as u64)],
    };
    (image, layer)
}

#[test]
fn what_is_written_is_read_again_and_written_the_same() {
    let (first, layer) = saved(&["demo/base:1", "r.example/other:2"]);
    let (second, _) = saved(&[]);
    let mut open = |_| Ok::<Box<dyn Read>, _>(Box::new(std::io::Cursor::new(layer.clone())));
    let bytes = write(std::slice::from_ref(&first), Vec::new(), &mut open).unwrap();
    assert!(bytes == write(std::slice::from_ref(&first), Vec::new(), &mut open).unwrap());
    let archive = Memory::default();
    scan::<(), Error>(&bytes[..], &mut |name, _, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        archive.put(name, bytes);
        Ok(())
    })
    .unwrap();
    assert_eq!(archive.found(None), one("amd64", &["demo/base:1", "r.example/other:2"]));
    let found = &archive.images(None).unwrap().images[0];
    assert_eq!(found.manifest.as_ref().unwrap().1, first.manifest_bytes);
    let repositories = archive.document("repositories").unwrap().unwrap();
    let repositories: Value = serde_json::from_slice(&repositories).unwrap();
    assert_eq!(repositories["demo/base"]["1"], first.layers[0].0.0.hex());
    // Without names there is no file of them, as with docker.
    let nameless = write(&[second], Vec::new(), &mut open).unwrap();
    let contents = scan_texts(&nameless).unwrap();
    assert!(contents.find("repositories").unwrap().is_none());
    assert!(contents.find("manifest.json").unwrap().unwrap().contains("\"RepoTags\":null"));
}

#[test]
fn a_damaged_layer_is_not_written() {
    let (image, mut layer) = saved(&[]);
    layer[600] ^= 1;
    let mut open = |_| Ok::<Box<dyn Read>, _>(Box::new(std::io::Cursor::new(layer.clone())));
    let error = write(std::slice::from_ref(&image), Vec::new(), &mut open).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    layer.truncate(700);
    let mut open = |_| Ok::<Box<dyn Read>, _>(Box::new(std::io::Cursor::new(layer.clone())));
    let error = write(&[image], Vec::new(), &mut open).unwrap_err();
    assert!(error.to_string().contains("became shorter"), "{error}");
}
