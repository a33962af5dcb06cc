//! `strata untag`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::image::Reference;

/// Take names from an image, which stays
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata untag my/app:1\n  strata untag 3b8c1f0d9e2a my/app:1")]
pub(crate) struct Arguments {
    /// The image
    image: String,

    /// The names; all that it has if none is said
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let names: Vec<Reference> =
        arguments.names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    Ok(context.strata()?.untag_only(&arguments.image, &names)?)
}
