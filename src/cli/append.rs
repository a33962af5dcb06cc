//! `strata append`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::limits;
use crate::cli::output::line;
use crate::cli::progress::Shown;
use crate::cli::tag::new_name;
use crate::service::{AppendRequest, ImportSource};

/// Make a new image of an image and a layer on top of it
///
/// A tar, which may be compressed with gzip, zstd, bzip2 or xz, becomes the layer as it is. Of a
/// directory the layer has what is in it; directories that the image has stay as they are.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  strata append debian:12 ./files -t my/debian:1\n  strata append \
                        debian:12 ./app --to /opt/app -t my/app:1\n  zcat layer.tar.gz | strata \
                        append debian:12 - -t my/debian:2"
)]
pub(crate) struct Arguments {
    /// The name of the new image; without it the image has none
    #[arg(short, long, value_name = "REPOSITORY[:TAG]")]
    tag: Option<String>,

    /// What the history says
    #[arg(short, long)]
    message: Option<String>,

    /// The directory of the image that it goes to; the root without it
    #[arg(long, value_name = "PATH")]
    to: Option<OsString>,

    #[command(flatten)]
    limits: limits::Arguments,

    /// The image
    image: String,

    /// A directory, a tar, the URL of a tar, or - for standard input
    #[arg(value_name = "DIR|TAR|URL|-")]
    source: PathBuf,
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let reference = new_name(arguments.tag.as_deref())?;
    let strata = context.strata_with(Arc::new(Shown::new(true)))?;
    let strata = strata.with_limits(arguments.limits.limits());
    let id = strata.append(&AppendRequest {
        image: arguments.image,
        source: ImportSource::of(arguments.source),
        to: arguments.to.unwrap_or_default().into_vec(),
        reference,
        message: arguments.message,
    })?;
    line(&id.to_string())
}
