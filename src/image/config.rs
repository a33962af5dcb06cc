//! `ImageConfig`: what runs in an image, and which layers it is made of.
//!
//! One struct reads docker's config and OCI's. Nothing in a config is lost by reading and writing
//! it: fields that no struct names are kept at every level, because docker, podman and buildkit add
//! their own and an image that strata commits must keep them. It must not know how a layer is
//! stored.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::digest::DiffId;
use crate::image::Error;
use crate::image::Result;
use crate::image::history::History;
use crate::image::json::Other;
use crate::image::json::is_false;
use crate::image::json::is_zero;
use crate::image::json::list_or_string;
use crate::image::json::null_as_default;
use crate::image::manifest::Manifest;
use crate::image::manifest::check_size;
use crate::image::manifest::read;
use crate::image::platform::Platform;

/// The largest image config that is read.
pub const CONFIG_LIMIT_BYTES: u64 = 8 << 20;

const ROOTFS_TYPE: &str = "layers";

/// The config of an image. Its digest is the image's id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, as RFC 3339; kept as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The architecture: `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// The operating system: `linux`.
    #[serde(default)]
    pub os: String,
    /// The version of the system that the image asks for (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the system that the image asks for (Windows).
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// The variant of the architecture: `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How to run a container of the image.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ContainerConfig,
    /// The layers.
    pub rootfs: RootFs,
    /// How the layers came to be, oldest first.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// The docker that made the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_version: Option<String>,
    /// Fields that this struct does not name.
    #[serde(flatten)]
    pub other: Other,
}

impl ImageConfig {
    /// Returns the config that `bytes` hold.
    ///
    /// # Errors
    /// The bytes are too large, not a config, or a config without a stack of layers.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        check_size("image config", bytes, CONFIG_LIMIT_BYTES)?;
        let config: Self = read("image config", bytes)?;
        if config.rootfs.kind != ROOTFS_TYPE {
            return Err(Error::RootFsType { found: config.rootfs.kind });
        }
        Ok(config)
    }

    /// Returns the JSON of the config: the bytes to store and to take the image id of.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and maps with string keys are JSON")
    }

    /// Returns what the image runs on.
    pub fn platform(&self) -> Platform {
        Platform {
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            ..Platform::new(&self.os, &self.architecture, self.variant.as_deref())
        }
    }

    /// Checks that `manifest` has a layer for each diff id.
    ///
    /// # Errors
    /// [`Error::LayerCount`] with both numbers.
    pub fn check_layers(&self, manifest: &Manifest) -> Result<()> {
        let (config, manifest) = (self.rootfs.diff_ids.len(), manifest.layers.len());
        if config != manifest {
            return Err(Error::LayerCount { config, manifest });
        }
        Ok(())
    }
}

/// The layers of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The layers, bottom first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<DiffId>,
    /// Fields that this struct does not name.
    #[serde(flatten)]
    pub other: Other,
}

impl RootFs {
    /// Returns the stack of these layers, bottom first.
    pub fn new(diff_ids: Vec<DiffId>) -> Self {
        Self { kind: ROOTFS_TYPE.to_owned(), diff_ids, other: BTreeMap::new() }
    }
}

impl Default for RootFs {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// How to run a container of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// User and group, by name or number.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// Ports that the program listens on, `80/tcp`; the values are empty objects.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, Value>,
    /// The environment, `NAME=value`.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program that always runs.
    #[serde(default, deserialize_with = "list_or_string", skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The arguments to the entrypoint, or the program where there is none.
    #[serde(default, deserialize_with = "list_or_string", skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Directories kept outside the image; the values are empty objects.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, Value>,
    /// The directory that the program starts in.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// Free text by key.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that stops the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Instructions for builds on top of this image.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// How to see that the program is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The shell that the shell form of instructions runs in.
    #[serde(default, deserialize_with = "list_or_string", skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Whether the command is escaped already (Windows).
    #[serde(default, skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// Fields that this struct does not name.
    #[serde(flatten)]
    pub other: Other,
}

/// How to see that a container's program is well. Times are in nanoseconds; 0 is docker's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `NONE`, or `CMD` or `CMD-SHELL` and the command.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// The time between two checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// The time after which a check has failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// The time after the start in which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// The time between two checks in the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// How many failures in a row make the container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Fields that this struct does not name.
    #[serde(flatten)]
    pub other: Other,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::image::manifest::Descriptor;
    use crate::image::media_type;
    use serde_json::json;

    fn full() -> Value {
        json!({
            "created": "2026-11-20T21:41:57.123456789Z", "author": "a", "architecture": "arm",
            "os": "linux", "os.version": "1", "os.features": ["f"], "variant": "v7",
            "docker_version": "20.10.24", "container_config": {"Cmd": null, "x": [1]},
            "moby.buildkit.buildinfo.v1": "x",
            "config": {
                "User": "1000:1000", "ExposedPorts": {"80/tcp": {}}, "Env": ["PATH=/bin"],
                "Entrypoint": ["/bin/a"], "Cmd": ["b"], "Volumes": {"/data": {"x": 1}},
                "WorkingDir": "/w", "Labels": {"z": "1", "a": "2"}, "StopSignal": "SIGINT",
                "OnBuild": ["RUN x"], "Shell": ["/bin/bash", "-c"], "ArgsEscaped": true,
                "Healthcheck": {
                    "Test": ["CMD", "x"], "Interval": 1, "Timeout": 2, "StartPeriod": 3,
                    "StartInterval": 4, "Retries": 5, "unknown": true
                },
                "Hostname": "", "AttachStdin": false, "StopTimeout": 10, "unknown": null
            },
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"").to_string()], "unknown": 1},
            "history": [
                {"created": "2026-11-20T21:41:57Z", "created_by": "c", "author": "a",
                 "comment": "k", "unknown": {}},
                {"created_by": "d", "empty_layer": true}
            ],
        })
    }

    #[test]
    fn nothing_is_lost_by_reading_and_writing() {
        let config = ImageConfig::parse(full().to_string().as_bytes()).expect("a config");
        let written = config.to_bytes();
        assert_eq!(serde_json::from_slice::<Value>(&written).expect("JSON"), full());
        assert_eq!(ImageConfig::parse(&written).expect("a config"), config);
        assert_eq!(config.to_bytes(), written);
        assert_eq!(config.platform().to_string(), "linux/arm/v7");
    }

    #[test]
    fn null_is_empty_and_a_string_is_a_list_of_one() {
        let config = json!({
            "config": {"Env": null, "Cmd": "sh", "Entrypoint": null, "Volumes": null,
                       "Labels": null, "OnBuild": null, "ExposedPorts": null, "Healthcheck": null},
            "rootfs": {"type": "layers", "diff_ids": null}, "history": null, "created": null,
        });
        let config = ImageConfig::parse(config.to_string().as_bytes()).expect("a config");
        let expected = ContainerConfig { cmd: Some(vec!["sh".into()]), ..Default::default() };
        assert_eq!(config.config, expected);
        let none = json!({"config": null, "rootfs": {"type": "layers"}});
        assert!(ImageConfig::parse(none.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn what_is_not_a_config_is_refused() {
        let sha512 = format!("sha512:{}", "0".repeat(128));
        let table = [
            (json!({}), "image config cannot be read"),
            (json!({"rootfs": {"type": "tree"}}), "rootfs type \"tree\""),
            (json!({"rootfs": {"type": "layers", "diff_ids": [sha512]}}), "cannot be read"),
            (json!({"rootfs": {"type": "layers"}, "os": 1}), "cannot be read"),
        ];
        for (value, expected) in table {
            let error = ImageConfig::parse(value.to_string().as_bytes()).expect_err(expected);
            assert!(error.to_string().contains(expected), "{value}: {error}");
        }
    }

    #[test]
    fn config_and_manifest_must_have_the_same_number_of_layers() {
        let blob = |media_type| Descriptor::new(media_type, Digest::of(b""), 0);
        let layers = vec![blob(media_type::OCI_LAYER); 2];
        let manifest =
            Manifest::new(media_type::OCI_MANIFEST, blob(media_type::OCI_CONFIG), layers);
        let config = |count| ImageConfig {
            rootfs: RootFs::new(vec![DiffId(Digest::of(b"")); count]),
            ..ImageConfig::default()
        };
        assert!(config(2).check_layers(&manifest).is_ok());
        let error = config(3).check_layers(&manifest).expect_err("one too many");
        assert_eq!(error.to_string(), "image config names 3 layers: the manifest has 2");
    }
}
