//! `strata rm`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::line;
use crate::service::Error;

/// Remove containers with their changes and snapshots
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata rm work")]
pub(crate) struct Arguments {
    /// Unmount a container that is mounted; one that is not there is no error
    #[arg(short, long)]
    force: bool,

    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let strata = context.strata()?;
    let mut errors = Vec::new();
    for container in &arguments.containers {
        match strata.remove(container, arguments.force) {
            Ok(()) => line(container)?,
            // By force, what is not there is said and is no error.
            Err(error @ Error::NoContainer(_)) if arguments.force => {
                Failure::from(error).report();
            }
            Err(error) => errors.push(error),
        }
    }
    Failure::collect(errors)
}
