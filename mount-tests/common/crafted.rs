//! Images made by hand, byte for byte as a test wants them, and put into a registry.

use std::io::Write;

use serde_json::{Value, json};
use strata::digest::Digest;

use crate::common::Registry;
use crate::common::http::send;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// How a layer is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A layer, as its blob and as its tar.
#[derive(Clone, Debug)]
pub(crate) struct Crafted {
    pub(crate) blob: Vec<u8>,
    pub(crate) media_type: String,
    pub(crate) diff_id: String,
}

impl Crafted {
    /// Makes a layer of files with these names and contents.
    pub(crate) fn new(packing: Packing, files: &[(&str, &[u8])]) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, *content).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        let (blob, suffix) = match packing {
            Packing::Plain => (tar.clone(), ""),
            Packing::Gzip => (gzip(&tar), "+gzip"),
            Packing::Zstd => (zstd::encode_all(tar.as_slice(), 0).unwrap(), "+zstd"),
        };
        let media_type = format!("{OCI_LAYER}{suffix}");
        Self { blob, media_type, diff_id: Digest::of(&tar).to_string() }
    }

    /// Returns the digest of the blob.
    pub(crate) fn digest(&self) -> String {
        Digest::of(&self.blob).to_string()
    }

    /// Returns the first digits of the blob's digest, as progress shows them.
    pub(crate) fn short(&self) -> String {
        Digest::of(&self.blob).short()
    }

    /// Returns the first digits of the tar's digest.
    pub(crate) fn short_diff_id(&self) -> &str {
        &self.diff_id["sha256:".len()..][..12]
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Returns a layer of one small file.
pub(crate) fn small(name: &str) -> Crafted {
    Crafted::new(Packing::Gzip, &[(name, b"content\n")])
}

/// Returns bytes that no compression makes fewer, always the same.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(next).take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes
}

/// What something in a registry is called by what names it.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor(pub(crate) Value);

impl Descriptor {
    fn new(media_type: &str, bytes: &[u8]) -> Self {
        let digest = Digest::of(bytes).to_string();
        Self(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    /// Returns the digest.
    pub(crate) fn digest(&self) -> String {
        self.0["digest"].as_str().expect("a digest").to_owned()
    }

    /// Adds the platform `os/architecture[/variant]`, as an index says it.
    pub(crate) fn on(mut self, platform: &str) -> Self {
        self.0["platform"] = platform_of(platform);
        self
    }
}

fn platform_of(text: &str) -> Value {
    let mut platform = json!({});
    for (name, word) in ["os", "architecture", "variant"].iter().zip(text.split('/')) {
        platform[*name] = word.into();
    }
    platform
}

impl Registry {
    /// Puts a blob into a repository.
    pub(crate) fn put_blob(&self, repository: &str, media_type: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::new(media_type, bytes);
        let start = format!("POST /v2/{repository}/blobs/uploads/");
        let (head, _) = send(self.host(), &start, "", b"");
        let location = head.header("location").split_once(self.host()).expect("an address").1;
        let target = format!("PUT {location}&digest={}", descriptor.digest());
        send(self.host(), &target, "application/octet-stream", bytes);
        descriptor
    }

    /// Puts a manifest or an index into a repository, under a tag or its digest.
    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, manifest: &Value) -> Descriptor {
        let bytes = manifest.to_string().into_bytes();
        let media_type = manifest["mediaType"].as_str().expect("a media type");
        let descriptor = Descriptor::new(media_type, &bytes);
        let name = if tag.is_empty() { descriptor.digest() } else { tag.to_owned() };
        send(self.host(), &format!("PUT /v2/{repository}/manifests/{name}"), media_type, &bytes);
        descriptor
    }

    /// Puts an image of these layers under `repository:tag`; without tag under its digest.
    pub(crate) fn put_image(&self, name: &str, platform: &str, layers: &[Crafted]) -> Descriptor {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let mut config = platform_of(platform);
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        self.put_config(name, &config, layers)
    }

    /// Puts an image with this configuration, whatever it says.
    pub(crate) fn put_config(&self, name: &str, config: &Value, layers: &[Crafted]) -> Descriptor {
        let (repository, tag) = name.split_once(':').unwrap_or((name, ""));
        let put = |layer: &Crafted| self.put_blob(repository, &layer.media_type, &layer.blob).0;
        let layers: Vec<_> = layers.iter().map(put).collect();
        let config = self.put_blob(repository, OCI_CONFIG, config.to_string().as_bytes()).0;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
        });
        self.put_manifest(repository, tag, &manifest)
    }

    /// Puts an index of these manifests under `repository:tag`.
    pub(crate) fn put_index(&self, name: &str, manifests: &[Descriptor]) -> Descriptor {
        let (repository, tag) = name.split_once(':').expect("a tag");
        let manifests: Vec<_> = manifests.iter().map(|entry| &entry.0).collect();
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        self.put_manifest(repository, tag, &index)
    }
}
