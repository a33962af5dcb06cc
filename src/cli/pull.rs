//! `strata pull`.

use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::limits;
use crate::cli::output::line;
use crate::cli::progress::Shown;
use crate::image::{Platform, Reference};
use crate::service::PullRequest;

/// Download an image from a registry
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata pull debian:12\n  strata pull \
                        localhost:5000/team/app@sha256:9f86d0…\n  strata pull --platform \
                        linux/arm64 alpine")]
pub(crate) struct Arguments {
    /// Download all tags of the repository
    #[arg(short, long)]
    all_tags: bool,

    /// Print only the name of the image
    #[arg(short, long)]
    quiet: bool,

    /// The platform to choose from an image for several: os[/arch[/variant]]
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM", hide_env_values = true)]
    platform: Option<Platform>,

    #[command(flatten)]
    limits: limits::Arguments,

    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let reference: Reference = arguments.name.parse()?;
    let bare = reference.tag().is_none() && reference.digest().is_none();
    if arguments.all_tags && !bare {
        return Err(Failure::text("tag can't be used with --all-tags/-a"));
    }
    if bare && !arguments.quiet && !arguments.all_tags {
        line("Using default tag: latest")?;
    }
    let strata = context.strata_for_work(Arc::new(Shown::new(arguments.quiet)))?;
    let strata = strata.with_limits(arguments.limits.limits());
    let request = PullRequest { reference, platform: arguments.platform };
    if arguments.all_tags {
        let newer = strata.pull_all(&request)?.iter().any(|image| image.newer);
        status(newer, &request.reference.familiar_name(), arguments.quiet)?;
        return line(&request.reference.repository());
    }
    let pulled = strata.pull(&request)?;
    status(pulled.newer, &pulled.reference.familiar(), arguments.quiet)?;
    line(&pulled.reference.to_string())
}

fn status(newer: bool, name: &str, quiet: bool) -> Result<(), Failure> {
    match (quiet, newer) {
        (true, _) => Ok(()),
        (false, true) => line(&format!("Status: Downloaded newer image for {name}")),
        (false, false) => line(&format!("Status: Image is up to date for {name}")),
    }
}
