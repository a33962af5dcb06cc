//! `strata push`.

use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::line;
use crate::cli::progress::Shown;
use crate::image::Reference;

/// Upload an image to a registry
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata tag my/app localhost:5000/my/app:v1\n  strata push \
                        localhost:5000/my/app:v1")]
pub(crate) struct Arguments {
    /// Upload all tags of the repository
    #[arg(short, long)]
    all_tags: bool,

    /// Print only the name of the image
    #[arg(short, long)]
    quiet: bool,

    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let reference: Reference = arguments.name.parse()?;
    if reference.digest().is_some() {
        return Err(Failure::text("cannot push a digest reference"));
    }
    if arguments.all_tags && reference.tag().is_some() {
        return Err(Failure::text("tag can't be used with --all-tags/-a"));
    }
    let strata = context.strata_for_work(Arc::new(Shown::new(arguments.quiet)))?;
    let repository = reference.repository();
    if !arguments.quiet {
        if reference.tag().is_none() && !arguments.all_tags {
            line("Using default tag: latest")?;
        }
        line(&format!("The push refers to repository [{repository}]"))?;
    }
    let name = if arguments.all_tags {
        strata.push_all(&reference)?;
        repository
    } else {
        strata.push(&reference)?.reference.to_string()
    };
    if arguments.quiet { line(&name) } else { Ok(()) }
}
