//! `strata images`.

use std::io::{self, Write};

use clap::Args;
use jiff::Timestamp;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::{created_ago, created_at, filter, size};
use crate::cli::image_tree;
use crate::cli::rows::{List, Row, TEMPLATE_ERROR, is_plain_table};
use crate::image::Reference;
use crate::service::ImageRow;

/// List images
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata images\n  strata images --digests debian\n  strata \
                        images --filter label=stage=test --format '{{.ID}} {{.Tag}}'\n  strata \
                        rmi $(strata images -q)")]
pub(crate) struct Arguments {
    /// Show all images; without it --tree leaves out those without a name
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

    /// Only images that fit: dangling=BOOL, label=KEY[=VALUE], label!=KEY[=VALUE], before=IMAGE,
    /// since=IMAGE, reference=PATTERN, until=TIME (repeatable)
    #[arg(short, long = "filter", value_name = "FILTER", value_parser = filter)]
    filters: Vec<(String, String)>,

    /// How to print: table, table TEMPLATE, json, or a template of Go
    #[arg(long)]
    format: Option<String>,

    /// Show what each image is for, and how much it takes
    #[arg(long, conflicts_with_all = ["quiet", "digests", "no_trunc", "format"])]
    tree: bool,

    /// Only images of this repository, or with this tag; * stands for any letters
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

const NONE: &str = "<none>";
const UNKNOWN: &str = "N/A";

const TABLE: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const TABLE_WITH_DIGESTS: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const TITLES: [(&str, &str); 11] = [
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let pattern = arguments.name.iter().map(|name| ("reference".to_owned(), name.clone()));
    let filters: Vec<_> = arguments.filters.iter().cloned().chain(pattern).collect();
    let mut rows = context.strata()?.filtered_images(&filters)?;
    if arguments.tree {
        return image_tree::print(rows, arguments.all);
    }
    let none_found = rows.is_empty();
    let now = Timestamp::now();
    let only_ids = arguments.quiet && is_plain_table(arguments.format.as_deref());
    let format = match only_ids {
        true => Some("{{.ID}}".to_owned()),
        false => context.list_format(arguments.format.as_deref(), "imagesFormat"),
    };
    if only_ids {
        let mut known = std::collections::HashSet::new();
        rows.retain(|row| known.insert(row.id));
    }
    let table = if arguments.digests { TABLE_WITH_DIGESTS } else { TABLE };
    let list =
        List { kind: "formatter.imageContext", failure: TEMPLATE_ERROR, titles: &TITLES, table };
    let rows = rows.iter().map(|row| fields(row, arguments.no_trunc, now)).collect();
    list.print(format.as_deref(), rows)?;
    if none_found && let Some(name) = &arguments.name {
        hint(name);
    }
    Ok(())
}

/// Tells who typed a command of `strata image` after `strata images`.
fn hint(name: &str) {
    let commands = [
        "build", "history", "import", "inspect", "list", "load", "ls", "prune", "pull", "push",
        "rm", "save", "tag",
    ];
    if commands.contains(&name) {
        let text =
            format!("No images found matching {name:?}: did you mean \"strata image {name}\"?");
        let written = writeln!(io::stderr(), "\n{text}");
        drop(written);
    }
}

fn fields(row: &ImageRow, no_trunc: bool, now: Timestamp) -> Row {
    let name = row.reference.as_ref();
    let tag = name.and_then(Reference::tag).unwrap_or(NONE);
    let unknown = || UNKNOWN.to_owned();
    let fields = vec![
        ("ID", if no_trunc { row.id.to_string() } else { row.id.short() }),
        ("Repository", name.map_or(NONE.to_owned(), Reference::familiar_name)),
        ("Tag", tag.to_owned()),
        ("Digest", row.digest.map_or(NONE.to_owned(), |digest| digest.to_string())),
        ("CreatedSince", created_ago(row.created.as_deref(), now)),
        ("CreatedAt", created_at(row.created.as_deref())),
        ("Size", size(row.size)),
        ("VirtualSize", size(row.size)),
        ("Containers", unknown()),
        ("SharedSize", unknown()),
        ("UniqueSize", unknown()),
    ];
    Row { fields, labels: Some(row.labels.clone()) }
}
