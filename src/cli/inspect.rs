//! `strata inspect`.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::{compact_json, json, print};
use crate::cli::template::{Functions, Template, from_document};
use crate::image::{ContainerConfig, ImageConfig, RootFs};
use crate::service::{ContainerDetails, ContainerStatus, Details, Error, ImageDetails, Strata};

/// Show everything that is known of images and containers, as JSON
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata inspect debian:12 | jq '.[0].Config.Env'")]
pub(crate) struct Arguments {
    /// How to print: json, or a template of Go
    #[arg(short, long)]
    format: Option<String>,

    /// Show how much a container has written
    #[arg(short, long)]
    size: bool,

    /// Look only for this kind: container or image
    #[arg(long, value_name = "KIND")]
    r#type: Option<String>,

    /// Images or containers
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

/// Show everything that is known of images, as JSON
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata image inspect debian:12")]
pub(crate) struct ImageArguments {
    /// How to print: json, or a template of Go
    #[arg(short, long)]
    format: Option<String>,

    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

/// Show everything that is known of containers, as JSON
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata container inspect work")]
pub(crate) struct ContainerArguments {
    /// How to print: json, or a template of Go
    #[arg(short, long)]
    format: Option<String>,

    /// Show how much a container has written
    #[arg(short, long)]
    size: bool,

    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

impl From<ImageArguments> for Arguments {
    fn from(arguments: ImageArguments) -> Self {
        let ImageArguments { format, names } = arguments;
        Self { format, size: false, r#type: Some("image".to_owned()), names }
    }
}

impl From<ContainerArguments> for Arguments {
    fn from(arguments: ContainerArguments) -> Self {
        let ContainerArguments { format, size, names } = arguments;
        Self { format, size, r#type: Some("container".to_owned()), names }
    }
}

#[derive(Clone, Copy, Debug)]
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
    restart_count: u32,
    driver: &'static str,
    platform: String,
    log_path: String,
    graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_root_fs: Option<u64>,
    mounts: Vec<Mount>,
    config: Config,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: &'static str,
    running: bool,
    paused: bool,
    restarting: bool,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    dead: bool,
    pid: i32,
    exit_code: i32,
    error: &'static str,
    started_at: String,
    finished_at: &'static str,
}

/// The time of what has not been, as Go has it.
const NEVER: &str = "0001-01-01T00:00:00Z";

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
    let kind = arguments.r#type.as_deref().map(kind).transpose()?;
    let form = Form::of(arguments.format.as_deref())?;
    let strata = context.strata()?;
    let (mut shown, mut errors) = (Vec::new(), Vec::new());
    for name in &arguments.names {
        match find(&strata, name, kind).and_then(|found| show(&strata, found, arguments.size)) {
            Ok(found) => shown.push(found),
            Err(error) => errors.push(error),
        }
    }
    let printed = form.print(&shown);
    let missing = Failure::collect(errors);
    match (printed, missing) {
        (Ok(()), missing) => missing,
        (printed, Ok(())) => printed,
        (printed, Err(missing)) => {
            missing.report();
            printed
        }
    }
}

/// Returns the kind that a word means.
fn kind(word: &str) -> Result<Type, Failure> {
    match word {
        "image" => Ok(Type::Image),
        "container" => Ok(Type::Container),
        other => Err(Failure::Words(format!(
            "unknown type: {other:?}: must be one of \"container\", \"image\""
        ))),
    }
}

/// How to print what was found.
enum Form {
    Indented,
    Compact,
    Template(Box<Template>),
}

impl Form {
    fn of(format: Option<&str>) -> Result<Self, Failure> {
        match format {
            None | Some("") => Ok(Self::Indented),
            Some("json") => Ok(Self::Compact),
            Some(text) => match Template::parse(text, Functions::Object) {
                Ok(template) => Ok(Self::Template(Box::new(template))),
                Err(text) => Err(Failure::Template(format!("template parsing error: {text}"))),
            },
        }
    }

    fn print(&self, shown: &[Shown]) -> Result<(), Failure> {
        let template = match self {
            Self::Indented => return json(&shown),
            Self::Compact => return compact_json(&shown),
            Self::Template(template) => template,
        };
        let (mut out, mut wrong) = (String::new(), Vec::new());
        for one in shown {
            let document = serde_json::to_value(one).map_err(std::io::Error::other)?;
            match template.render(&from_document(document)) {
                Ok(text) => out.push_str(&(text + "\n")),
                Err(text) => wrong.push(format!("template parsing error: {text}")),
            }
        }
        // Docker prints an empty line where there is nothing to print.
        print(if out.is_empty() { b"\n" } else { out.as_bytes() })?;
        if wrong.is_empty() { Ok(()) } else { Err(Failure::Words(wrong.join("\n"))) }
    }
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

fn show(strata: &Strata, found: Details, with_size: bool) -> Result<Shown, Error> {
    Ok(match found {
        Details::Image(details) => Shown::Image(Box::new(image(*details))),
        Details::Container(details) => {
            let own = &details.container;
            let sizes = with_size.then(|| strata.sizes(&own.id, own.manifest)).transpose()?;
            let mut shown = container(*details);
            shown.size_rw = sizes.map(|sizes| sizes.written);
            shown.size_root_fs = sizes.map(|sizes| sizes.written + sizes.image);
            Shown::Container(Box::new(shown))
        }
    })
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
            paused: false,
            restarting: false,
            oom_killed: false,
            dead: status == "dead",
            pid: mount.as_ref().map_or(0, |mount| mount.pid),
            exit_code: 0,
            error: "",
            started_at: mount.as_ref().map_or(NEVER.to_owned(), |mount| mount.since.to_string()),
            finished_at: NEVER,
        },
        image: details.image.to_string(),
        name: format!("/{}", details.container.name),
        restart_count: 0,
        driver: "strata",
        platform: details.config.os,
        log_path: path(&details.log),
        graph_driver: GraphDriver { data, name: "strata" },
        size_rw: None,
        size_root_fs: None,
        mounts: mount
            .map(|mount| Mount { destination: path(&mount.target), rw: mount.writable })
            .into_iter()
            .collect(),
        config: Config { image: details.container.image, config: details.config.config },
    }
}
