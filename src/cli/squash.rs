//! `strata squash`.

use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::line;
use crate::cli::progress::Shown;
use crate::cli::tag::new_name;
use crate::service::SquashRequest;

/// Make a new image that shows the same in one layer, or in one layer above another
///
/// The configuration and the history stay. What upper layers hide of lower ones is in the new image
/// no more, unless it is below the layer that --from names.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  strata squash my/app:1 my/app:small\n  strata squash --from 3 \
                        my/app:1 my/app:small"
)]
pub(crate) struct Arguments {
    /// Keep this layer and all below it: its number, from 1 at the bottom, or the beginning of its
    /// diffID, with sha256: before it where that has only digits
    #[arg(long, value_name = "LAYER")]
    from: Option<String>,

    /// The image
    image: String,

    /// The name of the new image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: String,
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let name = new_name(Some(&arguments.name))?;
    let reference = name.ok_or_else(|| Failure::text("a name is needed"))?;
    let strata = context.strata_with(Arc::new(Shown::new(true)))?;
    let id = strata.squash(&SquashRequest {
        image: arguments.image,
        reference,
        above: arguments.from,
    })?;
    line(&id.to_string())
}
