//! `strata save`.

use std::io::{self, BufWriter, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::file::{BUFFER, write_file};
use crate::cli::progress::Shown;
use crate::image::Platform;
use crate::service::SaveRequest;

/// Write images as an archive that docker, podman and skopeo load
///
/// The archive has the layers uncompressed, byte for byte as they were, and is both an OCI layout and
/// an archive of docker.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata save -o debian.tar debian:12\n  strata save debian | \
                        ssh host strata load")]
pub(crate) struct Arguments {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Refuse images that are not for this platform: os[/arch[/variant]]
    #[arg(long)]
    platform: Option<Platform>,

    /// Names, or ids; a name without a tag stands for all tags of it
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let Arguments { output, platform, images } = arguments;
    let request = SaveRequest { images, platform };
    let strata = context.strata_for_work(Arc::new(Shown::new(true)))?;
    if let Some(path) = output {
        return write_file(&path, 0o600, |out| Ok(strata.save(&request, out)?));
    }
    if io::stdout().is_terminal() {
        return Err(Failure::text(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    match strata.save(&request, BufWriter::with_capacity(BUFFER, io::stdout().lock())) {
        // `strata save x | tar t | head` is not an error.
        Err(crate::service::Error::Io { source, .. })
            if source.kind() == io::ErrorKind::BrokenPipe =>
        {
            Err(Failure::Closed)
        }
        result => Ok(result?),
    }
}
