//! `strata commit`.

use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::line;
use crate::cli::progress::Shown;
use crate::cli::tag::new_name;
use crate::service::CommitRequest;

/// Make a new image of what a container has changed
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata commit -m 'add curl' -c 'CMD [\"curl\"]' work \
                        my/debian:curl")]
pub(crate) struct Arguments {
    /// Who made it
    #[arg(short, long)]
    author: Option<String>,

    /// What was done
    #[arg(short, long)]
    message: Option<String>,

    /// Change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
    /// STOPSIGNAL, USER, VOLUME or WORKDIR (repeatable)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,

    /// Accepted for docker's sake: nothing runs that could be paused
    #[arg(short, long)]
    pause: bool,

    /// The container
    container: String,

    /// The name of the new image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    // Accepted for docker's sake.
    let _pause = arguments.pause;
    let reference = new_name(arguments.name.as_deref())?;
    let strata = context.strata_for_work(Arc::new(Shown::new(true)))?;
    let id = strata.commit(&CommitRequest {
        container: arguments.container,
        reference,
        author: arguments.author,
        message: arguments.message,
        changes: arguments.changes,
    })?;
    line(&id.to_string())
}
