//! `strata images`.

use clap::Args;
use jiff::Timestamp;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::{created_ago, size};
use crate::cli::output::{line, table};
use crate::image::Reference;
use crate::service::ImageRow;

/// List images
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata images\n  strata images --digests debian\n  strata \
                        rmi $(strata images -q)")]
pub(crate) struct Arguments {
    /// Show all images; here there are none that are hidden without it
    #[arg(short, long)]
    all: bool,

    /// Print only ids
    #[arg(short, long)]
    quiet: bool,

    /// Show the digests that registries have
    #[arg(long)]
    digests: bool,

    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,

    /// Only images of this repository, or with this tag
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

const NONE: &str = "<none>";

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let wanted: Option<Reference> = arguments.name.as_deref().map(str::parse).transpose()?;
    let mut rows = context.strata()?.images()?;
    if let Some(wanted) = &wanted {
        rows.retain(|row| row.reference.as_ref().is_some_and(|name| is_wanted(name, wanted)));
    }
    let id = |row: &ImageRow| {
        if arguments.no_trunc { row.id.to_string() } else { row.id.short() }
    };
    if arguments.quiet {
        let mut known = std::collections::HashSet::new();
        rows.retain(|row| known.insert(row.id));
        return rows.iter().try_for_each(|row| line(&id(row)));
    }
    let now = Timestamp::now();
    let digest = if arguments.digests { "\tDIGEST" } else { "" };
    let header = format!("REPOSITORY\tTAG{digest}\tIMAGE ID\tCREATED\tSIZE");
    let text = |row: &ImageRow| {
        let name = row.reference.as_ref();
        let repository = name.map_or(NONE.to_owned(), Reference::familiar_name);
        let tag = name.and_then(Reference::tag).unwrap_or(NONE);
        let digest = match (arguments.digests, row.digest) {
            (false, _) => String::new(),
            (true, Some(digest)) => format!("\t{digest}"),
            (true, None) => format!("\t{NONE}"),
        };
        let created = created_ago(row.created.as_deref(), now);
        format!("{repository}\t{tag}{digest}\t{}\t{created}\t{}", id(row), size(row.size))
    };
    table(&header, rows.iter().map(text))
}

fn is_wanted(name: &Reference, wanted: &Reference) -> bool {
    name.repository() == wanted.repository()
        && wanted.tag().is_none_or(|tag| name.tag() == Some(tag))
        && wanted.digest().is_none_or(|digest| name.digest() == Some(digest))
}
