//! `strata diff`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::print;
use crate::service::DiffKind;

/// List what a container has changed
///
/// A line for each path: A for added, C for changed, D for deleted.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata diff work")]
pub(crate) struct Arguments {
    /// The container
    container: String,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let mut text = Vec::new();
    for line in context.strata()?.diff(&arguments.container)? {
        text.push(match line.kind {
            DiffKind::Added => b'A',
            DiffKind::Changed => b'C',
            DiffKind::Deleted => b'D',
        });
        text.push(b' ');
        text.extend_from_slice(&line.path);
        text.push(b'\n');
    }
    print(&text)
}
