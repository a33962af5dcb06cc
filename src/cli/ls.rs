//! `strata ls`.

use std::ffi::OsString;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::listing::{long, shown};
use crate::cli::output::print;
use crate::service::TreePath;

/// List a directory of an image or a container
///
/// All names are listed, also those that begin with a dot. Times are in UTC.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata ls debian:12\n  strata ls -l debian:12:/etc work:/etc")]
pub(crate) struct Arguments {
    /// Print type and permissions, links, owner, group, size, time and name
    #[arg(short)]
    long: bool,

    /// What to list; without a path the root
    #[arg(value_name = "IMAGE|CONTAINER[:/PATH]", required = true)]
    places: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let strata = context.strata()?;
    let mut errors = Vec::new();
    let mut is_first = true;
    for place in &arguments.places {
        let at = TreePath::parse(place);
        let files = match strata.list_tree(&at) {
            Ok(files) => files,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let mut text = Vec::new();
        if arguments.places.len() > 1 {
            let blank = if is_first { "" } else { "\n" };
            text.extend_from_slice(format!("{blank}{at}:\n").as_bytes());
        }
        is_first = false;
        let named = files.iter().map(|file| (file, shown(file.name())));
        if arguments.long {
            text.extend(long(named));
        } else {
            named.for_each(|(_, name)| {
                text.extend(name);
                text.push(b'\n');
            });
        }
        print(&text)?;
    }
    Failure::collect(errors)
}
