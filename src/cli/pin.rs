//! `strata pin` and `strata unpin`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::service::{Error, Strata};

/// Keep images from every prune
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata pin debian:12 my/base:1")]
pub(crate) struct Arguments {
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Let images be pruned again
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata unpin debian:12")]
pub(crate) struct UnpinArguments {
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    each(&arguments.images, context, Strata::pin)
}

pub(crate) fn run_unpin(arguments: &UnpinArguments, context: &Context) -> Result<(), Failure> {
    each(&arguments.images, context, Strata::unpin)
}

fn each(
    images: &[String],
    context: &Context,
    work: impl Fn(&Strata, &str) -> Result<(), Error>,
) -> Result<(), Failure> {
    let strata = context.strata()?;
    let errors = images.iter().filter_map(|image| work(&strata, image).err()).collect();
    Failure::collect(errors)
}
