//! `strata export`.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
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

const BUFFER: usize = 128 * 1024;

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
    // What is there under the name stays until the new one is whole.
    let mut partial = path.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let fail = |error: io::Error| Failure::text(format!("{}: {error}", path.display()));
    let file = File::create(&partial).map_err(fail)?;
    let exported = strata.export(&arguments.what, BufWriter::with_capacity(BUFFER, &file));
    let placed = exported.map_err(Failure::from).and_then(|()| {
        file.sync_all().and_then(|()| std::fs::rename(&partial, path)).map_err(fail)
    });
    if placed.is_err() {
        drop(std::fs::remove_file(&partial));
    }
    placed
}
