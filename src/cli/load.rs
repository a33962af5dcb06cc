//! `strata load`.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::limits;
use crate::cli::output::line;
use crate::cli::progress::Shown;
use crate::image::Platform;
use crate::service::{LoadRequest, LoadSource, Loaded};

/// Load images from an archive of docker, podman or skopeo, or from an OCI layout
///
/// An archive is a tar, which may be compressed with gzip, zstd, bzip2 or xz. An OCI layout may also
/// be a directory.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata load -i debian.tar\n  docker save debian:12 | strata \
                        load\n  strata load -i ./layout")]
pub(crate) struct Arguments {
    /// Read a file or a directory instead of standard input
    #[arg(short, long, value_name = "FILE|DIR")]
    input: Option<PathBuf>,

    /// Show no bars
    #[arg(short, long)]
    quiet: bool,

    /// The platform to choose from an image for several: os[/arch[/variant]]
    #[arg(long)]
    platform: Option<Platform>,

    #[command(flatten)]
    limits: limits::Arguments,
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let Arguments { input, quiet, platform, limits } = arguments;
    let source = match input {
        Some(path) => LoadSource::Path(path),
        None if io::stdin().is_terminal() => {
            return Err(Failure::text("requested load from stdin, but stdin is empty"));
        }
        None => LoadSource::Stdin,
    };
    let strata = context.strata_for_work(Arc::new(Shown::new(quiet)))?;
    let strata = strata.with_limits(limits.limits());
    for loaded in strata.load(&LoadRequest { source, platform })? {
        say(&loaded)?;
    }
    Ok(())
}

fn say(loaded: &Loaded) -> Result<(), Failure> {
    let Some(name) = loaded.name.as_ref().map(crate::image::Reference::familiar) else {
        return line(&format!("Loaded image ID: {}", loaded.id));
    };
    if let Some(replaced) = loaded.replaced {
        let what = if replaced.is_nameless {
            format!("renaming the old one with ID {} to empty string", replaced.id)
        } else {
            format!("the old one with ID {} keeps its other names", replaced.id)
        };
        line(&format!("The image {name} already exists, {what}"))?;
    }
    line(&format!("Loaded image: {name}"))
}
