//! `strata create`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::line;
use crate::service::CreateRequest;

/// Make a container: a writable layer over an image
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata create --name work debian:12\n  strata mount work /mnt")]
pub(crate) struct Arguments {
    /// The name of the container; a random one if it is not said
    #[arg(long)]
    name: Option<String>,

    /// The image
    image: String,

    /// The command that it would run, and that an image made of it has
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_names = ["COMMAND", "ARG"],
        num_args = 0..
    )]
    command: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let id = context.strata()?.create(&CreateRequest {
        image: arguments.image,
        name: arguments.name,
        command: arguments.command,
    })?;
    line(&id)
}
