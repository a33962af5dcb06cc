//! `Manifest` and `Index`: which blobs make an image, which manifests make a choice of images.
//!
//! Both forms of both documents: docker's schema 2 and OCI's. Bytes from a registry are hostile:
//! they are limited in size, and a document that two readers could take for two different things is
//! refused (CVE-2021-41190). It must not know where the bytes come from.
//!
//! Invariant: writing gives the fields in the order that the specifications print, then the unknown
//! ones by name. A document that was read is not promised its own bytes back; whoever needs the
//! digest keeps the bytes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::digest::Digest;
use crate::image::Error;
use crate::image::Result;
use crate::image::json::Other;
use crate::image::json::check_values;
use crate::image::json::null_as_default;
use crate::image::media_type;
use crate::image::platform::Platform;

/// The largest manifest or index that is read: the limit that registries and containerd have.
pub const MANIFEST_LIMIT_BYTES: u64 = 4 << 20;

const SCHEMA_VERSION: i64 = 2;

/// What names a blob: its type, its size, its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// What the blob is.
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    /// The sha256 of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// Where else the blob can be had: only "foreign" layers use it.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free text by key.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// What the image runs on; only in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Fields that this struct does not name.
    #[serde(flatten)]
    pub other: Other,
}

impl Descriptor {
    /// Returns the descriptor of a blob with nothing but the required fields.
    pub fn new(media_type: &str, digest: Digest, size_bytes: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size: size_bytes,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            other: BTreeMap::new(),
        }
    }
}

/// One image: a config and layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: i64,
    /// What this document is. OCI leaves it optional.
    #[serde(rename = "mediaType", default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// Free text by key.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Fields that this struct does not name.
    #[serde(flatten)]
    pub other: Other,
}

impl Manifest {
    /// Returns the manifest of type `media_type` with this config and these layers, bottom first.
    pub fn new(media_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            media_type: Some(media_type.to_owned()),
            config,
            layers,
            annotations: BTreeMap::new(),
            other: BTreeMap::new(),
        }
    }

    /// Checks that this is a container image, not a chart, a plugin or another artifact.
    ///
    /// # Errors
    /// [`Error::NotAnImage`] for the config, [`Error::LayerType`] for a layer.
    pub fn check_is_image(&self) -> Result<()> {
        if !media_type::is_config(&self.config.media_type) {
            let media_type = self.config.media_type.clone();
            return Err(Error::NotAnImage { media_type });
        }
        let check = |layer: &Descriptor| media_type::layer_compression(&layer.media_type).map(drop);
        self.layers.iter().try_for_each(check)
    }

    /// Returns the JSON of the manifest: the bytes to push and to take the digest of.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and maps with string keys are JSON")
    }
}

/// A choice of images, one for each platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Always 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: i64,
    /// What this document is. OCI leaves it optional.
    #[serde(rename = "mediaType", default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests to choose from.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// Free text by key.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Fields that this struct does not name.
    #[serde(flatten)]
    pub other: Other,
}

impl Index {
    /// Returns the OCI index of these manifests.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests,
            annotations: BTreeMap::new(),
            other: BTreeMap::new(),
        }
    }

    /// Returns the JSON of the index: the bytes to push and to take the digest of.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and maps with string keys are JSON")
    }
}

/// What a tag can point to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a pull has one or two of these")]
pub enum Parsed {
    /// One image.
    Manifest(Manifest),
    /// A choice of images.
    Index(Index),
}

impl Parsed {
    /// Returns what `bytes` are: as their `mediaType` says, else `content_type`, else their shape.
    ///
    /// # Errors
    /// The bytes are too large, not JSON, ambiguous, of schema 1, or neither of both documents.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self> {
        check_size("manifest", bytes, MANIFEST_LIMIT_BYTES)?;
        let shape: Shape = read("manifest", bytes)?;
        shape.check()?;
        match shape.kind(content_type)? {
            Kind::Manifest => read("manifest", bytes).map(Self::Manifest),
            Kind::Index => read("image index", bytes).map(Self::Index),
        }
    }
}

/// Refuses a document that is too large to be kept in memory.
pub(super) fn check_size(document: &'static str, bytes: &[u8], limit_bytes: u64) -> Result<()> {
    let found_bytes = bytes.len() as u64;
    if found_bytes > limit_bytes {
        return Err(Error::TooLarge { document, found_bytes, limit_bytes });
    }
    Ok(())
}

/// Reads a document, and names it where it cannot be read.
pub(super) fn read<'de, T: Deserialize<'de>>(
    document: &'static str,
    bytes: &'de [u8],
) -> Result<T> {
    check_values(document, bytes)?;
    serde_json::from_slice(bytes).map_err(|source| Error::Json { document, source })
}

enum Kind {
    Manifest,
    Index,
}

/// The fields that tell which document this is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<i64>,
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

impl Shape {
    fn check(&self) -> Result<()> {
        let of_manifest = [("layers", &self.layers), ("config", &self.config)];
        let found = of_manifest.into_iter().find(|(_, field)| field.is_some());
        if let (Some((first, _)), Some(_)) = (found, &self.manifests) {
            return Err(Error::Ambiguous { first, second: "manifests" });
        }
        let is_schema1 = self.media_type.as_deref().is_some_and(media_type::is_schema1)
            || self.fs_layers.is_some();
        match self.schema_version {
            _ if is_schema1 => Err(Error::Schema1),
            Some(1) => Err(Error::Schema1),
            None | Some(SCHEMA_VERSION) => Ok(()),
            Some(found) => Err(Error::SchemaVersion { found }),
        }
    }

    /// Returns the kind, from the first source that knows it. A kind without its main field is
    /// none of both.
    fn kind(&self, content_type: Option<&str>) -> Result<Kind> {
        let not_one =
            || Error::NotAManifest { media_type: self.media_type.clone().unwrap_or_default() };
        let known = |media_type: &str| {
            let is_index = media_type::is_index(media_type).then_some(Kind::Index);
            is_index.or(media_type::is_manifest(media_type).then_some(Kind::Manifest))
        };
        let kind = match self.media_type.as_deref().filter(|text| !text.is_empty()) {
            Some(media_type) => Some(known(media_type).ok_or_else(not_one)?),
            None => content_type.map(without_parameters).and_then(known),
        };
        match (kind, &self.config, &self.manifests) {
            (Some(Kind::Manifest) | None, Some(_), None) => Ok(Kind::Manifest),
            (Some(Kind::Index) | None, None, Some(_)) => Ok(Kind::Index),
            // Go writes an index without manifests as `null`, or not at all. One with layers is none.
            (Some(Kind::Index), None, None) if self.layers.is_none() => Ok(Kind::Index),
            _ => Err(not_one()),
        }
    }
}

/// Returns a content type without `; charset=utf-8` and the like.
fn without_parameters(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use serde_json::json;

    fn blob(media_type: &str, content: &str) -> Value {
        let digest = Digest::of(content.as_bytes()).to_string();
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    }

    fn manifest() -> Value {
        json!({
            "schemaVersion": 2,
            "config": blob(media_type::OCI_CONFIG, "c"),
            "layers": [blob(media_type::OCI_LAYER_GZIP, "l")],
        })
    }

    fn with(mut value: Value, key: &str, field: Value) -> Value {
        value[key] = field;
        value
    }

    fn parse(value: &Value, content_type: Option<&str>) -> Result<Parsed> {
        Parsed::parse(value.to_string().as_bytes(), content_type)
    }

    #[test]
    fn the_kind_comes_from_the_field_then_the_content_type_then_the_shape() {
        let index = json!({"schemaVersion": 2, "manifests": [blob(media_type::OCI_MANIFEST, "m")]});
        let docker =
            |media_type: &str, value: &Value| with(value.clone(), "mediaType", json!(media_type));
        let list = docker(media_type::DOCKER_MANIFEST_LIST, &index);
        let schema2 = docker(media_type::DOCKER_MANIFEST, &manifest());
        let empty_list =
            json!({"mediaType": media_type::OCI_INDEX, "schemaVersion": 2, "manifests": null});
        let table = [
            (manifest(), None, true),
            (manifest(), Some("text/plain"), true),
            (manifest(), Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"), true),
            (index.clone(), None, false),
            (index, Some(media_type::OCI_INDEX), false),
            (schema2, None, true),
            (list, Some("application/json"), false),
            (empty_list, None, false),
        ];
        for (value, content_type, is_manifest) in table {
            let parsed =
                parse(&value, content_type).unwrap_or_else(|error| panic!("{value}: {error}"));
            assert_eq!(matches!(parsed, Parsed::Manifest(_)), is_manifest, "{value}");
        }
    }

    #[test]
    fn hostile_and_foreign_documents_are_refused() {
        let entries = json!([blob(media_type::OCI_MANIFEST, "m")]);
        let schema1 = json!({"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": []});
        let table = [
            (with(manifest(), "manifests", entries.clone()), None, "ambiguous"),
            (json!({"schemaVersion": 2, "layers": [], "manifests": entries}), None, "ambiguous"),
            (schema1, None, "schema 1 support has been removed"),
            (with(manifest(), "mediaType", json!(media_type::OCI_INDEX)), None, "neither"),
            (manifest(), Some(media_type::OCI_INDEX), "neither"),
            (json!({"schemaVersion": 2, "layers": []}), Some(media_type::OCI_INDEX), "neither"),
            (with(manifest(), "mediaType", json!("text/css")), None, "\"text/css\" is neither"),
            (with(manifest(), "schemaVersion", json!(3)), None, "schema version 3"),
            (json!({"schemaVersion": 2}), None, "neither"),
            (json!([]), None, "manifest cannot be read"),
            (
                with(manifest(), "config", json!({"digest": "x", "size": 1})),
                None,
                "manifest cannot",
            ),
            (with(manifest(), "config", json!(null)), None, "neither"),
        ];
        for (value, content_type, expected) in table {
            let error = parse(&value, content_type).expect_err(expected);
            assert!(error.to_string().contains(expected), "{value}: {error}");
        }
        // Which of both would another reader take?
        let twice = br#"{"schemaVersion":2,"config":{"size":1},"config":{"size":2}}"#;
        let error = Parsed::parse(twice, None).expect_err("twice");
        assert!(format!("{error:?}").contains("duplicate field `config`"), "{error:?}");
        let large = vec![b' '; 5 << 20];
        let error = Parsed::parse(&large, None).expect_err("too large");
        assert_eq!(error.to_string(), "manifest has 5242880 bytes: expected at most 4194304");
    }

    #[test]
    fn unknown_fields_survive_in_every_object() {
        let mut value = with(manifest(), "mediaType", json!(media_type::OCI_MANIFEST));
        value["x"] = json!({"y": [1, null, 2.5]});
        value["annotations"] = json!({"k": "v"});
        value["config"]["data"] = json!("e30=");
        value["layers"][0]["urls"] = json!(["https://example.com/l"]);
        value["layers"][0]["x"] = json!(null);
        let Ok(Parsed::Manifest(read)) = parse(&value, None) else { panic!("a manifest") };
        let written: Value = serde_json::from_slice(&read.to_bytes()).expect("JSON");
        assert_eq!(written, value);

        let mut entry = blob(media_type::OCI_MANIFEST, "m");
        entry["platform"] = json!({"os": "linux", "architecture": "arm", "variant": "v7", "x": 1});
        let value = json!({"schemaVersion": 2, "manifests": [entry], "subject": {"x": 1}});
        let Ok(Parsed::Index(read)) = parse(&value, None) else { panic!("an index") };
        let written: Value = serde_json::from_slice(&read.to_bytes()).expect("JSON");
        assert_eq!(written, value);
    }

    #[test]
    fn regression_a_long_number_is_written_as_it_was_read() {
        let text =
            br#"{"schemaVersion":2,"manifests":[],"x":222222222222222222222222222222222222222}"#;
        let read = Parsed::parse(text, None).expect("an index");
        let Parsed::Index(index) = &read else { panic!("an index") };
        let written = index.to_bytes();
        let x = serde_json::from_slice::<Value>(&written).expect("JSON")["x"].as_f64();
        assert_eq!(x, Some(222_222_222_222_222_222_222_222_222_222_222_222_222.0));
        assert_eq!(Parsed::parse(&written, None).expect("an index"), read);
    }

    #[test]
    fn fields_are_written_in_the_order_of_the_specification() {
        let config = Descriptor::new(media_type::OCI_CONFIG, Digest::of(b""), 2);
        let manifest = Manifest::new(media_type::OCI_MANIFEST, config, Vec::new());
        let expected = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{}","size":2}},"layers":[]}}"#,
            media_type::OCI_MANIFEST,
            media_type::OCI_CONFIG,
            Digest::of(b"")
        );
        assert_eq!(String::from_utf8(manifest.to_bytes()).expect("UTF-8"), expected);
    }

    #[test]
    fn only_container_images_pass_as_images() {
        let config = |media_type| with(manifest(), "config", blob(media_type, "c"));
        let layer = |media_type| with(manifest(), "layers", json!([blob(media_type, "l")]));
        let table = [
            (manifest(), None),
            (config(media_type::DOCKER_CONFIG), None),
            (config("application/octet-stream"), None),
            (config("application/vnd.oci.empty.v1+json"), Some("not a container image")),
            (config("application/vnd.cncf.helm.config.v1+json"), Some("helm")),
            (config("application/vnd.docker.plugin.v1+json"), Some("plugin")),
            (layer("application/vnd.in-toto+json"), Some("in-toto")),
        ];
        for (value, expected) in table {
            let Ok(Parsed::Manifest(read)) = parse(&value, None) else { panic!("a manifest") };
            let found = read.check_is_image().err().map(|error| error.to_string());
            match (&found, expected) {
                (None, None) => {}
                (Some(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
                _ => panic!("{value}: {found:?}"),
            }
        }
    }
}
