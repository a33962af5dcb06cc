//! `strata rename`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;

/// Give a container another name
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata rename quiet_basalt work")]
pub(crate) struct Arguments {
    /// The container
    container: String,

    /// Its new name
    #[arg(value_name = "NEW_NAME")]
    name: String,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    Ok(context.strata()?.rename(&arguments.container, &arguments.name)?)
}
