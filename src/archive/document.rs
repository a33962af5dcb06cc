//! The documents of an archive: what docker's say, and what OCI's are called.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::archive::error::{Error, Result};
use crate::digest::Digest;

/// Docker's list of images.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Docker's names of images, which nobody reads any more but docker before 1.10.
pub(crate) const REPOSITORIES: &str = "repositories";
/// OCI's list of images.
pub(crate) const INDEX: &str = "index.json";
/// What makes a directory an OCI layout.
pub(crate) const LAYOUT: &str = "oci-layout";
/// What this file says.
pub(crate) const LAYOUT_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// Where OCI has the blobs.
pub(crate) const BLOBS: &str = "blobs/sha256";

/// The annotation with which containerd and docker name an image in full.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// OCI's annotation for a name: of an image, or a tag alone.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An entry of docker's list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    /// The file with the configuration.
    pub(crate) config: String,
    /// Its names.
    pub(crate) repo_tags: Option<Vec<String>>,
    /// The files with its layers, bottom first.
    pub(crate) layers: Option<Vec<String>>,
}

/// Docker's names: repository, tag, layer.
pub(crate) type Repositories = BTreeMap<String, BTreeMap<String, String>>;

/// Reads docker's list.
pub(crate) fn parse_manifest(bytes: &[u8]) -> Result<Vec<DockerImage>> {
    let parsed = serde_json::from_slice::<Option<Vec<DockerImage>>>(bytes);
    let parsed = parsed.map_err(|source| Error::Json { file: MANIFEST.to_owned(), source })?;
    Ok(parsed.unwrap_or_default())
}

/// Returns the file that a layout has a blob in.
pub(crate) fn blob_file(digest: Digest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}

/// Returns the digest that a file has in its name, as `<hex>`, `<hex>.json` or `<hex>.tar`.
pub fn digest_in(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next().unwrap_or_default();
    let stem = last.strip_suffix(".json").or_else(|| last.strip_suffix(".tar")).unwrap_or(last);
    Digest::from_hex(stem).ok()
}
