//! Media types: what a blob is, in docker's words and in those of OCI.
//!
//! Pure tables. Two spellings of the same thing are equal here, and a type that no table has is an
//! error that names it: a layer is never guessed at.

use crate::image::Error;
use crate::image::Result;

/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An OCI layer: a tar.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// An OCI layer: a tar in gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// An OCI layer: a tar in zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// A docker manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A docker manifest list.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// A docker layer: a tar in gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const FOREIGN: [&str; 2] = ["nondistributable", "rootfs.foreign.diff"];

/// Each layer type: how it is compressed, and its OCI spelling.
const LAYERS: [(&str, Compression, &str); 14] = [
    (OCI_LAYER, Compression::None, OCI_LAYER),
    (OCI_LAYER_GZIP, Compression::Gzip, OCI_LAYER_GZIP),
    (OCI_LAYER_ZSTD, Compression::Zstd, OCI_LAYER_ZSTD),
    (OCI_FOREIGN, Compression::None, OCI_FOREIGN),
    (OCI_FOREIGN_GZIP, Compression::Gzip, OCI_FOREIGN_GZIP),
    (OCI_FOREIGN_ZSTD, Compression::Zstd, OCI_FOREIGN_ZSTD),
    ("application/vnd.docker.image.rootfs.diff.tar", Compression::None, OCI_LAYER),
    (DOCKER_LAYER_GZIP, Compression::Gzip, OCI_LAYER_GZIP),
    ("application/vnd.docker.image.rootfs.diff.tar.zstd", Compression::Zstd, OCI_LAYER_ZSTD),
    // podman writes docker manifests with this suffix.
    ("application/vnd.docker.image.rootfs.diff.tar+zstd", Compression::Zstd, OCI_LAYER_ZSTD),
    ("application/vnd.docker.image.rootfs.foreign.diff.tar", Compression::None, OCI_FOREIGN),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        Compression::Gzip,
        OCI_FOREIGN_GZIP,
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd",
        Compression::Zstd,
        OCI_FOREIGN_ZSTD,
    ),
    // What docker save writes into the layout that goes with its archive.
    ("application/vnd.docker.container.image.rootfs.diff+x-gtar", Compression::None, OCI_LAYER),
];
const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const OCI_FOREIGN_GZIP: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
const OCI_FOREIGN_ZSTD: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";

/// Types that old registries and builders gave to image configs; docker takes them too.
const OLD_CONFIGS: [&str; 4] = ["application/octet-stream", "application/json", "text/html", ""];

/// How a layer's tar is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// Says whether the type is that of an image manifest.
pub fn is_manifest(media_type: &str) -> bool {
    [OCI_MANIFEST, DOCKER_MANIFEST].contains(&media_type)
}

/// Says whether the type is that of an image index or a docker manifest list.
pub fn is_index(media_type: &str) -> bool {
    [OCI_INDEX, DOCKER_MANIFEST_LIST].contains(&media_type)
}

/// Says whether the type is that of a docker schema 1 manifest.
pub(super) fn is_schema1(media_type: &str) -> bool {
    [DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED].contains(&media_type)
}

/// Says whether the type can be that of an image config.
pub fn is_config(media_type: &str) -> bool {
    [OCI_CONFIG, DOCKER_CONFIG].contains(&media_type) || OLD_CONFIGS.contains(&media_type)
}

/// Says whether the type is that of a layer strata can unpack.
pub fn is_layer(media_type: &str) -> bool {
    layer_compression(media_type).is_ok()
}

/// Says whether the type is that of a layer which its registry may not serve ("foreign").
pub fn is_foreign_layer(media_type: &str) -> bool {
    FOREIGN.iter().any(|mark| media_type.contains(mark))
}

/// Returns how a layer of this type is compressed.
///
/// # Errors
/// The type is not that of a layer.
pub fn layer_compression(media_type: &str) -> Result<Compression> {
    row(media_type).map(|(_, compression, _)| compression)
}

/// Returns the OCI spelling of a layer type.
///
/// # Errors
/// The type is not that of a layer.
pub fn oci_layer(media_type: &str) -> Result<&'static str> {
    row(media_type).map(|(_, _, oci)| oci)
}

/// Returns the OCI spelling of a config type that passes [`is_config`].
pub fn oci_config(media_type: &str) -> &str {
    if is_config(media_type) { OCI_CONFIG } else { media_type }
}

fn row(media_type: &str) -> Result<(&'static str, Compression, &'static str)> {
    LAYERS
        .into_iter()
        .find(|(known, ..)| *known == media_type)
        .ok_or_else(|| Error::LayerType { media_type: media_type.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_oci_spelling_is_itself_a_layer_type_of_the_same_compression() {
        for (media_type, compression, oci) in LAYERS {
            assert_eq!(layer_compression(oci).expect(oci), compression, "{media_type}");
            assert_eq!(oci_layer(oci).expect(oci), oci);
            assert_eq!(is_foreign_layer(media_type), is_foreign_layer(oci), "{media_type}");
        }
    }

    #[test]
    fn an_unknown_layer_type_is_named() {
        for media_type in ["", "application/vnd.oci.image.layer.v1.tar+xz", OCI_CONFIG] {
            let error = layer_compression(media_type).expect_err(media_type);
            assert!(error.to_string().contains(&format!("{media_type:?}")), "{error}");
            assert!(oci_layer(media_type).is_err());
            assert!(!is_layer(media_type));
        }
    }

    #[test]
    fn manifests_indexes_and_configs_are_told_apart() {
        // (media type, manifest, index, config)
        let table = [
            (OCI_MANIFEST, true, false, false),
            (DOCKER_MANIFEST, true, false, false),
            (OCI_INDEX, false, true, false),
            (DOCKER_MANIFEST_LIST, false, true, false),
            (OCI_CONFIG, false, false, true),
            (DOCKER_CONFIG, false, false, true),
            ("application/octet-stream", false, false, true),
            ("application/vnd.oci.empty.v1+json", false, false, false),
            ("application/vnd.cncf.helm.config.v1+json", false, false, false),
        ];
        for (media_type, manifest, index, config) in table {
            let found = (is_manifest(media_type), is_index(media_type), is_config(media_type));
            assert_eq!(found, (manifest, index, config), "{media_type}");
        }
        assert_eq!(oci_config(DOCKER_CONFIG), OCI_CONFIG);
    }
}
