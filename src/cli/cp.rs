//! `strata cp`.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::Arc;

use clap::{ArgAction, Args};

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::size;
use crate::cli::progress::Shown;
use crate::service::{CopyRequest, Error};

/// Copy files between the host, images and containers
#[derive(Debug, Args)]
#[command(
    after_help = "A path in an image or a container is from its root. '-' as the source reads \
                        a tar from standard input and unpacks it into a directory; '-' as the \
                        destination writes a tar to standard output.\n\nExamples:\n  strata cp \
                        debian:12:/etc/os-release .\n  strata cp motd work:/etc/\n  strata cp \
                        work:/etc/. - | tar -t"
)]
pub(crate) struct Arguments {
    /// Keep owners and groups
    #[arg(short, long)]
    archive: bool,

    /// Follow the source if it is a symbolic link
    #[arg(short = 'L', long)]
    follow_link: bool,

    /// Do not say what was copied, as when standard output is no terminal
    #[arg(short, long, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "BOOL")]
    quiet: Option<bool>,

    /// A path of the host, one in an image or a container, or '-'
    #[arg(value_name = "SRC_PATH|IMAGE:PATH|CONTAINER:PATH|-")]
    source: OsString,

    /// A path of the host, one in a container, or '-'
    #[arg(value_name = "DEST_PATH|CONTAINER:PATH|-")]
    destination: OsString,
}

const BUFFER: usize = 128 * 1024;

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let is_terminal = io::stdout().is_terminal();
    if arguments.destination == "-" && is_terminal {
        return Err(Failure::text("cowardly refusing to write a tar to a terminal: redirect it"));
    }
    let strata = context.strata_with(Arc::new(Shown::new(true)))?;
    let request = CopyRequest {
        source: arguments.source.clone(),
        destination: arguments.destination.clone(),
        archive: arguments.archive,
        follow: arguments.follow_link,
    };
    let mut output = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let copied = match strata.copy(&request, &mut io::stdin(), &mut output) {
        // `strata cp box:/x - | head` is not an error.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            return Err(Failure::Closed);
        }
        other => other?,
    };
    if let (Some(to), false) = (copied.to, arguments.quiet.unwrap_or(!is_terminal)) {
        let told = writeln!(io::stderr(), "Successfully copied {} to {to}", size(copied.bytes));
        // If standard error is closed there is nobody to tell.
        drop(told);
    }
    Ok(())
}
