//! The image room: what the documents of an image mean.
//!
//! References, manifests, indexes, configs, platforms, history and the `--change` instructions, as
//! pure formats: text or bytes in, values out. It must not know the disk, the network or the other
//! rooms (`digest` excepted).
//!
//! Two rules hold for every document here. What strata does not understand survives: each object
//! keeps the fields that no struct names (`other`). And the same value always gives the same bytes,
//! because every map is ordered; digests are taken of those bytes.

mod change;
mod config;
mod edit;
mod error;
mod expand;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod healthcheck;
mod history;
mod json;
mod manifest;
mod media_type;
mod platform;
mod reference;

pub use crate::image::change::apply_changes;
pub use crate::image::config::CONFIG_LIMIT_BYTES;
pub use crate::image::config::ContainerConfig;
pub use crate::image::config::Healthcheck;
pub use crate::image::config::ImageConfig;
pub use crate::image::config::RootFs;
pub use crate::image::edit::Edit;
pub use crate::image::edit::apply_edits;
pub use crate::image::error::Error;
pub use crate::image::error::Result;
pub use crate::image::history::History;
pub use crate::image::history::Step;
pub use crate::image::history::fill_history;
pub use crate::image::history::steps;
pub use crate::image::json::document_memory;
pub use crate::image::manifest::Descriptor;
pub use crate::image::manifest::Index;
pub use crate::image::manifest::MANIFEST_LIMIT_BYTES;
pub use crate::image::manifest::Manifest;
pub use crate::image::manifest::Parsed;
pub use crate::image::media_type::Compression;
pub use crate::image::media_type::DOCKER_CONFIG;
pub use crate::image::media_type::DOCKER_LAYER_GZIP;
pub use crate::image::media_type::DOCKER_MANIFEST;
pub use crate::image::media_type::DOCKER_MANIFEST_LIST;
pub use crate::image::media_type::OCI_CONFIG;
pub use crate::image::media_type::OCI_INDEX;
pub use crate::image::media_type::OCI_LAYER;
pub use crate::image::media_type::OCI_LAYER_GZIP;
pub use crate::image::media_type::OCI_LAYER_ZSTD;
pub use crate::image::media_type::OCI_MANIFEST;
pub use crate::image::media_type::is_config;
pub use crate::image::media_type::is_foreign_layer;
pub use crate::image::media_type::is_index;
pub use crate::image::media_type::is_layer;
pub use crate::image::media_type::is_manifest;
pub use crate::image::media_type::layer_compression;
pub use crate::image::media_type::oci_config;
pub use crate::image::media_type::oci_layer;
pub use crate::image::platform::Platform;
pub use crate::image::platform::is_image_entry;
pub use crate::image::platform::select;
pub use crate::image::reference::DEFAULT_DOMAIN;
pub use crate::image::reference::DEFAULT_TAG;
pub use crate::image::reference::Reference;
