//! `strata import`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::limits;
use crate::cli::output::line;
use crate::cli::progress::Shown;
use crate::cli::tag::new_name;
use crate::image::Platform;
use crate::service::{ImportRequest, ImportSource};

/// Make an image of a tar or a directory
///
/// The image has one layer. A tar may be compressed with gzip, zstd, bzip2 or xz, and may be under a
/// URL, http://… or https://….
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  strata import rootfs.tar.zst my/base:1\n  tar -c -C rootfs . \
                        | strata import - my/base:1\n  strata import -c 'CMD [\"/bin/sh\"]' \
                        ./rootfs my/base:1\n  strata import \
                        https://example.org/rootfs.tar.xz my/base:1"
)]
pub(crate) struct Arguments {
    /// Change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
    /// STOPSIGNAL, USER, VOLUME or WORKDIR (repeatable)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,

    /// What the history says
    #[arg(short, long)]
    message: Option<String>,

    /// What the image runs on: os[/arch[/variant]]
    #[arg(long)]
    platform: Option<Platform>,

    #[command(flatten)]
    limits: limits::Arguments,

    /// A tar, a directory, the URL of a tar, or - for standard input
    #[arg(value_name = "FILE|DIR|URL|-")]
    source: PathBuf,

    /// The name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let reference = new_name(arguments.name.as_deref())?;
    let strata = context.strata_for_work(Arc::new(Shown::new(true)))?;
    let strata = strata.with_limits(arguments.limits.limits());
    let id = strata.import(&ImportRequest {
        source: ImportSource::of(arguments.source),
        reference,
        message: arguments.message,
        changes: arguments.changes,
        platform: arguments.platform,
    })?;
    line(&id.to_string())
}
