//! `strata inspect`.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::json;
use crate::image::{ContainerConfig, ImageConfig, RootFs};
use crate::service::{ContainerDetails, ContainerStatus, Details, Error, ImageDetails, Strata};

/// Show everything that is known of images and containers, as JSON
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata inspect debian:12 | jq '.[0].Config.Env'")]
pub(crate) struct Arguments {
    /// Look only for this kind
    #[arg(long, value_name = "KIND")]
    r#type: Option<Type>,

    /// Images or containers
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

/// Show everything that is known of images, as JSON
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata image inspect debian:12")]
pub(crate) struct ImageArguments {
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

/// Show everything that is known of containers, as JSON
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata container inspect work")]
pub(crate) struct ContainerArguments {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

impl From<ImageArguments> for Arguments {
    fn from(arguments: ImageArguments) -> Self {
        Self { r#type: Some(Type::Image), names: arguments.names }
    }
}

impl From<ContainerArguments> for Arguments {
    fn from(arguments: ContainerArguments) -> Self {
        Self { r#type: Some(Type::Container), names: arguments.names }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Type {
    Image,
    Container,
}

/// What docker shows of an image.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    parent: String,
    comment: String,
    created: String,
    docker_version: String,
    author: String,
    config: ContainerConfig,
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    os: String,
    size: u64,
    graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    root_fs: RootFsShown,
    metadata: Metadata,
    descriptor: Descriptor,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFsShown {
    r#type: String,
    layers: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    data: BTreeMap<&'static str, String>,
    name: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    last_tag_time: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

/// What docker shows of a container, as far as it can be said of one that is not run.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    created: String,
    path: String,
    args: Vec<String>,
    state: State,
    image: String,
    name: String,
    driver: &'static str,
    log_path: String,
    graph_driver: GraphDriver,
    mounts: Vec<Mount>,
    config: Config,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: &'static str,
    running: bool,
    dead: bool,
    pid: i32,
    started_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    destination: String,
    #[serde(rename = "RW")]
    rw: bool,
}

#[derive(Serialize)]
struct Config {
    #[serde(rename = "Image")]
    image: String,
    #[serde(flatten)]
    config: ContainerConfig,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    Image(Box<Image>),
    Container(Box<Container>),
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let strata = context.strata()?;
    let (mut shown, mut errors) = (Vec::new(), Vec::new());
    for name in &arguments.names {
        match find(&strata, name, arguments.r#type) {
            Ok(Details::Image(details)) => shown.push(Shown::Image(Box::new(image(*details)))),
            Ok(Details::Container(details)) => {
                shown.push(Shown::Container(Box::new(container(*details))));
            }
            Err(error) => errors.push(error),
        }
    }
    json(&shown)?;
    Failure::collect(errors)
}

fn find(strata: &Strata, name: &str, kind: Option<Type>) -> Result<Details, Error> {
    match kind {
        None => strata.inspect(name),
        Some(Type::Image) => Ok(Details::Image(Box::new(strata.inspect_image(name)?))),
        Some(Type::Container) => {
            Ok(Details::Container(Box::new(strata.inspect_container_only(name)?)))
        }
    }
}

fn image(details: ImageDetails) -> Image {
    let comment = details.config.history.last().and_then(|last| last.comment.clone());
    let ImageConfig { created, author, architecture, variant, os, config, rootfs, .. } =
        details.config;
    Image {
        id: details.id.to_string(),
        repo_tags: details.tags,
        repo_digests: details.digests,
        parent: String::new(),
        comment: comment.unwrap_or_default(),
        created: created.unwrap_or_default(),
        docker_version: details.config.docker_version.unwrap_or_default(),
        author: author.unwrap_or_default(),
        config,
        architecture,
        variant,
        os,
        size: details.size,
        graph_driver: GraphDriver { data: BTreeMap::new(), name: "strata" },
        root_fs: root_fs(rootfs),
        metadata: Metadata {
            last_tag_time: details.tagged.map(|time| time.to_string()).unwrap_or_default(),
        },
        descriptor: Descriptor {
            media_type: details.media_type.unwrap_or_default(),
            digest: details.manifest.to_string(),
            size: details.manifest_size,
        },
    }
}

fn root_fs(rootfs: RootFs) -> RootFsShown {
    let layers = rootfs.diff_ids.iter().map(ToString::to_string).collect();
    RootFsShown { r#type: rootfs.kind, layers }
}

fn container(details: ContainerDetails) -> Container {
    let (status, mount) = match details.status {
        ContainerStatus::Created => ("created", None),
        ContainerStatus::Mounted(mount) => ("mounted", Some(mount)),
        ContainerStatus::Dead(mount) => ("dead", Some(mount)),
    };
    let path = |path: &std::path::Path| path.display().to_string();
    let mut data = BTreeMap::new();
    if !details.container.ephemeral {
        data.insert("UpperDir", path(&details.upper));
        data.insert("WorkDir", path(&details.work));
    }
    if let Some(mount) = &mount {
        data.insert("MergedDir", path(&mount.target));
    }
    let mut command = details.command.into_iter();
    Container {
        id: details.container.id,
        created: details.container.created.to_string(),
        path: command.next().unwrap_or_default(),
        args: command.collect(),
        state: State {
            status,
            running: status == "mounted",
            dead: status == "dead",
            pid: mount.as_ref().map_or(0, |mount| mount.pid),
            started_at: mount.as_ref().map(|mount| mount.since.to_string()).unwrap_or_default(),
        },
        image: details.image.to_string(),
        name: format!("/{}", details.container.name),
        driver: "strata",
        log_path: path(&details.log),
        graph_driver: GraphDriver { data, name: "strata" },
        mounts: mount
            .map(|mount| Mount { destination: path(&mount.target), rw: mount.writable })
            .into_iter()
            .collect(),
        config: Config { image: details.container.image, config: details.config.config },
    }
}
