//! `strata cat`.

use std::ffi::OsString;
use std::io;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::service::{Error, TreePath};

/// Print files of an image or a container
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata cat debian:12:/etc/os-release")]
pub(crate) struct Arguments {
    /// The files; symbolic links are followed
    #[arg(value_name = "IMAGE|CONTAINER:/PATH", required = true)]
    files: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let strata = context.strata()?;
    let mut errors = Vec::new();
    for file in &arguments.files {
        match strata.read_file(&TreePath::parse(file), &mut io::stdout().lock()) {
            Ok(()) => {}
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
                return Err(Failure::Closed);
            }
            Err(error) => errors.push(error),
        }
    }
    Failure::collect(errors)
}
