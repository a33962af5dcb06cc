//! `strata rebase`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::line;
use crate::cli::tag::new_name;
use crate::service::RebaseRequest;

/// Put the layers of an image on another base
///
/// No layer is made, and nothing is run: what the layers above the base were made with, such as
/// libraries of the old base, must be in the new one too. The configuration is that of the image.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  strata rebase my/app:1 --old-base debian:12.1 --new-base debian:12.2 \
                        -t my/app:2"
)]
pub(crate) struct Arguments {
    /// The image whose layers are the lowest of IMAGE
    #[arg(long, value_name = "IMAGE", required = true)]
    old_base: String,

    /// The image whose layers come in their place
    #[arg(long, value_name = "IMAGE", required = true)]
    new_base: String,

    /// The name of the new image; without it the image has none
    #[arg(short, long, value_name = "REPOSITORY[:TAG]")]
    tag: Option<String>,

    /// The image
    image: String,
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let reference = new_name(arguments.tag.as_deref())?;
    let id = context.strata()?.rebase(&RebaseRequest {
        image: arguments.image,
        old_base: arguments.old_base,
        new_base: arguments.new_base,
        reference,
    })?;
    line(&id.to_string())
}
