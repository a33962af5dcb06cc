//! `strata umount`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;

/// Unmount images and containers
///
/// When it returns, the changes of a container are complete and it can be mounted again. A mount
/// whose server has died is cleared.
#[derive(Debug, Args)]
#[command(visible_alias = "unmount", after_help = "Example:\n  strata umount /mnt")]
pub(crate) struct Arguments {
    /// Take a mount that is in use out of the tree at once; it ends when its last user leaves
    #[arg(short, long)]
    lazy: bool,

    /// Mount points, or containers
    #[arg(required = true, value_name = "DIR|CONTAINER")]
    what: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let strata = context.strata()?;
    let mut errors = Vec::new();
    for what in &arguments.what {
        if let Err(error) = strata.umount(what, arguments.lazy) {
            errors.push(error);
        }
    }
    Failure::collect(errors)
}
