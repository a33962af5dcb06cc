//! `strata image prune`, `strata container prune` and `strata system prune`.

use std::io::{self, Write};

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::{filter, size_of_room};
use crate::cli::output::print;
use crate::service::{Pruned, Removed};

/// Remove images that nobody uses
///
/// Without --all those that have no tag. Images of containers and pinned images stay.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata image prune\n  strata image prune -a --filter \
                        unused-for=720h --filter 'reference=ci/*'")]
pub(crate) struct ImageArguments {
    /// Also those with a tag, if no container uses them
    #[arg(short, long)]
    all: bool,

    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Only images that fit: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE], unused-for=DURATION;
    /// with --all also reference=PATTERN, and keep-last=N of each repository (repeatable)
    #[arg(long = "filter", value_name = "FILTER", value_parser = filter)]
    filters: Vec<(String, String)>,
}

/// Remove containers that are not mounted, with their changes and snapshots
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata container prune --filter until=24h")]
pub(crate) struct ContainerArguments {
    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Only containers that fit: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE] (repeatable)
    #[arg(long = "filter", value_name = "FILTER", value_parser = filter)]
    filters: Vec<(String, String)>,
}

/// Remove containers that are not mounted, and images that nobody uses
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata system prune -a")]
pub(crate) struct SystemArguments {
    /// Also images with a tag, if no container uses them
    #[arg(short, long)]
    all: bool,

    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Only what fits: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE] (repeatable)
    #[arg(long = "filter", value_name = "FILTER", value_parser = filter)]
    filters: Vec<(String, String)>,
}

const DANGLING: &str = "WARNING! This will remove all dangling images.";
const UNUSED: &str =
    "WARNING! This will remove all images without at least one container associated to them.";

pub(crate) fn run_image(arguments: &ImageArguments, context: &Context) -> Result<(), Failure> {
    let warning = if arguments.all { UNUSED } else { DANGLING };
    if !arguments.force && !is_wanted(&format!("{warning}\n"))? {
        return Ok(());
    }
    tell(&context.strata()?.prune_images(arguments.all, &arguments.filters)?)
}

pub(crate) fn run_container(
    arguments: &ContainerArguments,
    context: &Context,
) -> Result<(), Failure> {
    let warning = "WARNING! This will remove all containers that are not mounted.\n";
    if !arguments.force && !is_wanted(warning)? {
        return Ok(());
    }
    tell(&context.strata()?.prune_containers(&arguments.filters)?)
}

pub(crate) fn run_system(arguments: &SystemArguments, context: &Context) -> Result<(), Failure> {
    let images = match arguments.all {
        true => "all images without at least one container associated to them",
        false => "all dangling images",
    };
    let mut warning = format!(
        "WARNING! This will remove:\n  - all containers that are not mounted\n  - {images}\n\n"
    );
    if !arguments.filters.is_empty() {
        warning.push_str("  Items to be pruned will be filtered with:\n");
        for (key, value) in &arguments.filters {
            warning.push_str(&format!("  - {key}={value}\n"));
        }
        warning.push('\n');
    }
    if !arguments.force && !is_wanted(&warning)? {
        return Ok(());
    }
    tell(&context.strata()?.prune_system(arguments.all, &arguments.filters)?)
}

/// Asks a person; nobody to answer is a no.
fn is_wanted(warning: &str) -> Result<bool, Failure> {
    print(format!("{warning}Are you sure you want to continue? [y/N] ").as_bytes())?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}

fn tell(pruned: &Pruned) -> Result<(), Failure> {
    let mut text = Vec::new();
    if !pruned.containers.is_empty() {
        writeln!(text, "Deleted Containers:\n{}\n", pruned.containers.join("\n"))?;
    }
    if !pruned.images.is_empty() {
        writeln!(text, "Deleted Images:")?;
        for what in &pruned.images {
            match what {
                Removed::Untagged(name) => writeln!(text, "untagged: {name}")?,
                Removed::Deleted(id) => writeln!(text, "deleted: {id}")?,
            }
        }
        writeln!(text)?;
    }
    writeln!(text, "Total reclaimed space: {}", size_of_room(pruned.bytes))?;
    print(&text)
}
