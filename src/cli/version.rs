//! `strata version` and `strata info`.

use std::fmt::Write;

use clap::Args;
use serde_json::json;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::binary_size;
use crate::cli::output::{line, print};
use crate::cli::template::print_document;
use crate::image::Platform;
use crate::service::{ContainerStatus, Machine};

/// Show the version
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata version --format '{{.Client.Version}}'")]
pub(crate) struct Arguments {
    /// How to print: json, or a template of Go
    #[arg(short, long)]
    format: Option<String>,
}

/// Show what is in the store, and which machine this is
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata info --format '{{.DockerRootDir}}'")]
pub(crate) struct InfoArguments {
    /// How to print: json, or a template of Go
    #[arg(short, long)]
    format: Option<String>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let here = Platform::host();
    let part = json!({"Version": VERSION, "Os": here.os, "Arch": here.architecture});
    // There is no other side; who asks for its version gets the program's.
    let document = json!({"Client": part, "Server": part});
    if let Some(format) = arguments.format.as_deref().filter(|format| !format.is_empty()) {
        return print_document(document, format);
    }
    let text = format!(
        "Client:\n Version:           {VERSION}\n OS/Arch:           {}/{}",
        here.os, here.architecture
    );
    line(&text)
}

pub(crate) fn run_info(arguments: &InfoArguments, context: &Context) -> Result<(), Failure> {
    let strata = context.strata()?;
    let containers = strata.containers()?;
    let mounted =
        containers.iter().filter(|row| matches!(row.status, ContainerStatus::Mounted(_))).count();
    let images: std::collections::HashSet<_> =
        strata.images()?.into_iter().map(|row| row.id).collect();
    let machine = Machine::here();
    let root = strata.root().display().to_string();
    if let Some(format) = arguments.format.as_deref().filter(|format| !format.is_empty()) {
        let document = json!({
            "Containers": containers.len(),
            "ContainersRunning": mounted,
            "ContainersPaused": 0,
            "ContainersStopped": containers.len() - mounted,
            "Images": images.len(),
            "Driver": "strata",
            "DockerRootDir": root,
            "KernelVersion": machine.kernel,
            "OperatingSystem": machine.system,
            "OSType": "linux",
            "Architecture": machine.architecture,
            "NCPU": machine.processors,
            "MemTotal": machine.memory,
            "Name": machine.name,
            "ServerVersion": VERSION,
            "IndexServerAddress": "https://index.docker.io/v1/",
        });
        return print_document(document, format);
    }
    let mut text = format!("Client:\n Version:    {VERSION}\n\nServer:\n");
    for (name, value) in [
        ("Containers", containers.len().to_string()),
        (" Running", mounted.to_string()),
        (" Paused", "0".to_owned()),
        (" Stopped", (containers.len() - mounted).to_string()),
        ("Images", images.len().to_string()),
        ("Server Version", VERSION.to_owned()),
        ("Storage Driver", "strata".to_owned()),
        ("Kernel Version", machine.kernel),
        ("Operating System", machine.system),
        ("OSType", "linux".to_owned()),
        ("Architecture", machine.architecture.to_owned()),
        ("CPUs", machine.processors.to_string()),
        ("Total Memory", binary_size(machine.memory)),
        ("Name", machine.name),
        ("Docker Root Dir", root),
    ] {
        writeln!(text, " {name}: {value}").map_err(std::io::Error::other)?;
    }
    print(text.as_bytes())
}
