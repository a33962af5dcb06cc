//! `strata export`.

use std::io::{self, BufWriter, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::file::{BUFFER, write_file};
use crate::cli::progress::Shown;

/// Write what a container or an image shows as a tar
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata export work | tar -t\n  strata export -o debian.tar \
                        debian:12")]
pub(crate) struct Arguments {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// A container, or an image
    #[arg(value_name = "CONTAINER|IMAGE")]
    what: String,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let strata = context.strata_for_work(Arc::new(Shown::new(true)))?;
    let Some(path) = &arguments.output else {
        if io::stdout().is_terminal() {
            return Err(Failure::text(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            ));
        }
        let out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
        return match strata.export(&arguments.what, out) {
            // `strata export x | tar t | head` is not an error.
            Err(crate::service::Error::Io { source, .. })
                if source.kind() == io::ErrorKind::BrokenPipe =>
            {
                Err(Failure::Closed)
            }
            result => Ok(result?),
        };
    };
    write_file(path, 0o666, |out| Ok(strata.export(&arguments.what, out)?))
}
