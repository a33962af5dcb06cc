//! `strata rmi`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::line;
use crate::service::{Error, Removed};

/// Remove images
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata rmi my/app:old 3b8c1f0d9e2a")]
pub(crate) struct Arguments {
    /// Remove an image that a container uses, or that has several names
    #[arg(short, long)]
    force: bool,

    /// Do not remove parents without a name; here images have no parents
    #[arg(long)]
    no_prune: bool,

    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    // Accepted for docker's sake.
    let _no_prune = arguments.no_prune;
    let strata = context.strata()?;
    let mut errors = Vec::new();
    for image in &arguments.images {
        match strata.remove_image(image, arguments.force) {
            Ok(removed) => {
                for what in removed {
                    line(&match what {
                        Removed::Untagged(name) => format!("Untagged: {name}"),
                        Removed::Deleted(id) => format!("Deleted: {id}"),
                    })?;
                }
            }
            // By force, what is not there is said and is no error.
            Err(error @ Error::NoImage(_)) if arguments.force => {
                Failure::from(error).report();
            }
            Err(error) => errors.push(error),
        }
    }
    Failure::collect(errors)
}
